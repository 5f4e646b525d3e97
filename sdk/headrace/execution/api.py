"""Entry points of the engine, for `Task`, `Flow` and task runners."""
