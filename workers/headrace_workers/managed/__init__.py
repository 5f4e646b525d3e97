"""The worker that a server starts for its managed pools."""
