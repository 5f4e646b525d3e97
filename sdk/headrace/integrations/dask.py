"""Dask: `pip install 'headrace[dask]'`."""

from headrace.task_runners.dask import DaskTaskRunner, get_dask_client

__all__ = ["DaskTaskRunner", "get_dask_client"]
