"""`get_client` and the clients, under the name of the module that flows written for Prefect import."""

from __future__ import annotations

from headrace.client import get_client
from headrace.client.api import HeadraceClient
from headrace.client.sync_client import SyncHeadraceClient

__all__ = ["HeadraceClient", "SyncHeadraceClient", "get_client"]
