"""Page sizes and page tokens."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from headrace.core.errors import PageTokenInvalid
from headrace.core.limits import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

__all__ = ["Cursor", "PageKey", "page_limit"]

Cursor = list[int | str | None]
"""Where a page ended: the values that the list is ordered by, of its last item."""
_DIGEST_BYTES: Final = 9
_LARGEST: Final = 2**63 - 1


def page_limit(page_size: int) -> int:
    """How many items a page has."""
    return PAGE_SIZE_DEFAULT if page_size <= 0 else min(page_size, PAGE_SIZE_MAX)


@dataclass(frozen=True, slots=True)
class PageKey:
    """What a list's tokens belong to: the list, its filter and its order."""

    digest: str

    @classmethod
    def of(cls, name: str, filter: Message | str, order: int = 0) -> PageKey:
        """The key of the list called `name`."""
        body = filter.encode() if isinstance(filter, str) else filter.SerializeToString(deterministic=True)
        digest = hashlib.sha256(f"{name}\0{order}\0".encode() + body).digest()[:_DIGEST_BYTES]
        return cls(base64.urlsafe_b64encode(digest).decode())

    def token(self, cursor: Cursor) -> str:
        """The token of the page after `cursor`."""
        body = json.dumps([self.digest, *cursor], separators=(",", ":"))
        return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")

    def cursor(self, token: str, *types: type) -> Cursor | None:
        """Where the page of `token` begins; None: at the beginning.

        Args:
            token: as it was given out, or empty.
            types: of the cursor's values; each may also be None.

        Raises:
            PageTokenInvalid: it was not made by this list with this filter and order.
        """
        if not token:
            return None
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            found: list[Any] = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            digest, *cursor = found
        except (ValueError, TypeError, binascii.Error, RecursionError):
            raise PageTokenInvalid() from None
        fits = len(cursor) == len(types) and all(map(_fits, cursor, types))
        if digest != self.digest or not fits:
            raise PageTokenInvalid()
        return cursor


def _fits(value: object, type_: type) -> bool:
    """Whether a database can compare with the value."""
    if isinstance(value, int) and abs(value) > _LARGEST:
        return False
    return value is None or type(value) is type_
