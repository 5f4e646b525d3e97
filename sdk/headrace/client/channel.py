"""Channels: the transport's settings in one place, and what every request carries."""

from __future__ import annotations

import base64
from functools import lru_cache
from importlib.metadata import version
from typing import Final

import grpc.aio

from headrace.core.limits import TRANSPORT_MESSAGE_BYTES

__all__ = ["CHANNEL_OPTIONS", "client_version", "open_channel", "request_metadata"]

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", TRANSPORT_MESSAGE_BYTES),
    ("grpc.max_send_message_length", TRANSPORT_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    # Without this one a peer that swallows bytes is noticed after a minute, whatever the keepalive says.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Else channels to one address share a connection, and a reconnect ends at the same replica.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `host:port`, for the running event loop. It connects when it is first used."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


@lru_cache(maxsize=1)
def client_version() -> str:
    """Version of this package; looked up once, because that takes milliseconds."""
    return version("headrace")


def request_metadata(auth_string: str | None) -> tuple[tuple[str, str], ...]:
    """What every call carries: this client's version and, if there are any, credentials.

    Args:
        auth_string: `user:password`, or None.
    """
    pairs = [("headrace-client", client_version())]
    if auth_string:
        token = base64.b64encode(auth_string.encode()).decode()
        pairs.append(("authorization", f"Basic {token}"))
    return tuple(pairs)
