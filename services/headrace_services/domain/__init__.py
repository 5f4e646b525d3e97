"""Decisions: pure functions over frozen values. No I/O, no clock, nothing of the wire."""
