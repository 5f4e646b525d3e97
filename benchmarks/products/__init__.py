"""What can be measured: headrace itself, and the peers on the same work."""
