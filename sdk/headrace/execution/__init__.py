"""Runs the engine: the two kinds of `Ops`, what goes on the record, and the entry points."""
