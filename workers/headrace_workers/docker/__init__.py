"""Docker workers: each run in a container of its own."""
