"""Google Cloud Storage on loopback: the part of its XML API that objects are put, read, found and deleted by.

The emulators of the package registries speak the JSON API, or not enough of the other one. So this is a
server of our own, written from Google's reference of the XML API and strict where Google is: about the
signature of the service account's token, the names of bucket and object, and preconditions on generations.
"""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["google_server"]

_ACCOUNT = "tests@headrace.iam.gserviceaccount.com"


@dataclass(frozen=True)
class _Object:
    content: bytes
    generation: int
    modified: float = field(default_factory=time.time)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'

    @property
    def headers(self) -> dict[str, str]:
        return {
            "ETag": self.etag,
            "Last-Modified": formatdate(self.modified, usegmt=True),
            "x-goog-generation": str(self.generation),
            "x-goog-hash": f"md5={base64.b64encode(bytes.fromhex(self.etag[1:-1])).decode()}",
        }


class _Refused(Exception):
    """An answer with the error document of the API."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(status, code)
        self.status, self.code = status, code


class _Bucket:
    """The objects of the one bucket there is."""

    def __init__(self, name: str, key: rsa.RSAPublicKey) -> None:
        self.name, self.key = name, key
        self.objects: dict[str, _Object] = {}
        self.lock = threading.Lock()
        self.generations = 0

    def authenticate(self, header: str) -> None:
        """A token of the service account is a JWT that it has signed itself."""
        kind, _, token = header.partition(" ")
        signed, _, signature = token.rpartition(".")
        try:
            self.key.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_decoded(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            raise _Refused(401, "AuthenticationRequired") from None
        if kind != "Bearer" or claims["iss"] != _ACCOUNT or claims["exp"] < time.time():
            raise _Refused(401, "AuthenticationRequired")

    def get(self, name: str) -> _Object:
        if name not in self.objects:
            raise _Refused(404, "NoSuchKey")
        return self.objects[name]

    def put(self, name: str, content: bytes, if_generation: str | None) -> _Object:
        with self.lock:
            there = self.objects.get(name)
            if if_generation is not None and int(if_generation) != (there.generation if there else 0):
                raise _Refused(412, "PreconditionFailed")
            self.generations += 1
            self.objects[name] = _Object(content, self.generations)
            return self.objects[name]

    def listed(self, asked: dict[str, list[str]]) -> bytes:
        """The document of one page."""
        if asked.get("list-type") != ["2"]:
            raise _Refused(400, "InvalidArgument")
        prefix, most = asked.get("prefix", [""])[0], int(asked.get("max-keys", ["1000"])[0])
        after = asked.get("continuation-token", asked.get("start-after", [""]))[0]
        names = [name for name in sorted(self.objects) if name.startswith(prefix) and name > after]
        page, has_more = names[:most], len(names) > most
        parts = [f"<Name>{self.name}</Name><IsTruncated>{str(has_more).lower()}</IsTruncated>"]
        if has_more:
            parts.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
        for name in page:
            there = self.objects[name]
            modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(there.modified))
            parts.append(
                f"<Contents><Key>{escape(name)}</Key><Generation>{there.generation}</Generation>"
                f"<LastModified>{modified}</LastModified><ETag>{escape(there.etag)}</ETag>"
                f"<Size>{len(there.content)}</Size></Contents>"
            )
        return f"<?xml version='1.0'?><ListBucketResult>{''.join(parts)}</ListBucketResult>".encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: _Bucket

    def do_GET(self) -> None:
        self._answer(self._read)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self._answer(self._write)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _read(self, name: str, asked: dict[str, list[str]], content: bytes) -> tuple[dict[str, str], bytes]:
        if not name:
            return {"Content-Type": "application/xml"}, self.bucket.listed(asked)
        there = self.bucket.get(name)
        return there.headers, there.content

    def _write(self, name: str, asked: dict[str, list[str]], content: bytes) -> tuple[dict[str, str], bytes]:
        there = self.bucket.put(name, content, self.headers.get("x-goog-if-generation-match"))
        return there.headers, b""

    def _delete(self, name: str, asked: dict[str, list[str]], content: bytes) -> tuple[dict[str, str], bytes]:
        self.bucket.get(name)
        del self.bucket.objects[name]
        return {}, b""

    def _answer(self, action: Any) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        bucket, _, name = url.path[1:].partition("/")
        status = 204 if self.command == "DELETE" else 200
        try:
            self.bucket.authenticate(self.headers.get("Authorization", ""))
            if bucket != self.bucket.name:
                raise _Refused(404, "NoSuchBucket")
            headers, body = action(unquote(name), parse_qs(url.query), content)
        except _Refused as error:
            status, headers = error.status, {"Content-Type": "application/xml"}
            body = f"<?xml version='1.0'?><Error><Code>{error.code}</Code></Error>".encode()
        self.send_response(status)
        for header in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(*header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@contextmanager
def google_server(bucket: str, folder: pathlib.Path) -> Generator[dict[str, str]]:
    """A running server with an empty bucket.

    Args:
        bucket: its name.
        folder: where the key of the service account is kept.

    Yields:
        The variables that a process needs to reach it.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    handler = type("Handler", (_Handler,), {"bucket": _Bucket(bucket, key.public_key())})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        account = folder / "account.json"
        pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        said = {
            "type": "service_account",
            "client_email": _ACCOUNT,
            "private_key_id": "tests",
            "private_key": key.private_bytes(*pem).decode(),
            "gcs_base_url": f"http://127.0.0.1:{server.server_port}",
        }
        account.write_text(json.dumps(said))
        try:
            yield {"GOOGLE_SERVICE_ACCOUNT": str(account), "GOOGLE_ALLOW_HTTP": "true"}
        finally:
            server.shutdown()
