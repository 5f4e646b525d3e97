"""Tasks in other processes of this machine: what a process and its children say, and both ends."""
