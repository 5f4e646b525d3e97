"""Log lines of runs.

    logger = get_run_logger()
    logger.info("Loaded %s rows", len(rows), extra={"table": "orders"})

What is logged in a run goes to the console and, with the run, its attempt and its trace, on the record.
"""

from headrace.logging.loggers import RunLogger, disable_run_logger, get_logger, get_run_logger

__all__ = ["RunLogger", "disable_run_logger", "get_logger", "get_run_logger"]
