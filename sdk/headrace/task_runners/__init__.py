"""How submitted tasks are executed.

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def load(urls: list[str]) -> None:
        fetch.map(urls).wait()

Every flow run has a runner of its own, a duplicate of the one its flow was given.
"""

from headrace.task_runners.base import TaskRunner
from headrace.task_runners.processes import ProcessPoolTaskRunner
from headrace.task_runners.threads import ConcurrentTaskRunner, ThreadPoolTaskRunner

__all__ = ["ConcurrentTaskRunner", "ProcessPoolTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"]
