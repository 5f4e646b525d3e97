"""Deploying what is pushed: a process that follows a branch and applies its project file."""
