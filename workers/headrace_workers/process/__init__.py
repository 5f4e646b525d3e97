"""The worker that runs each run in a process of its own on this machine."""
