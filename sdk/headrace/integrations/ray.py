"""Ray: `pip install 'headrace[ray]'`."""

from headrace.task_runners.ray import RayTaskRunner, remote_options

__all__ = ["RayTaskRunner", "remote_options"]
