"""Who may call: a shared `user:password` in the `authorization` metadata of every call."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from typing import Final

from headrace.core.errors import Unauthenticated

__all__ = ["OPEN_METHODS", "BasicAuth"]

OPEN_METHODS: Final = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
"""The methods that ask for no credentials, by their exact names."""


class BasicAuth:
    """Checks `authorization: Basic <base64 of user:password>`.

    Args:
        auth_string: `user:password`; the password may contain colons.
        also: others that are as good.
    """

    def __init__(self, auth_string: str, *also: str) -> None:
        self._expected = [text.encode() for text in (auth_string, *also)]
        self.principal = auth_string.partition(":")[0]

    def check(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Nothing, when the call carries the right credentials.

        Raises:
            Unauthenticated: it carries none, or others; the message does not say which.
        """
        given = next((value for key, value in metadata if key == "authorization"), "")
        text = given.decode("latin-1") if isinstance(given, bytes) else given
        scheme, _, credentials = text.partition(" ")
        try:
            decoded = base64.b64decode(credentials.strip(), validate=True)
        except (binascii.Error, ValueError):
            decoded = b""
        same = [hmac.compare_digest(decoded, expected) for expected in self._expected]
        if scheme.lower() != "basic" or not any(same):
            raise Unauthenticated("Unauthorized")
