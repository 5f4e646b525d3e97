"""Work that the server does by itself, each loop safe to run in several replicas at once."""
