"""Object stores on loopback: moto's server speaks S3's protocol, Azurite that of Azure's blob storage."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import pathlib
import re
import subprocess
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from email.utils import formatdate

import boto3
from moto.server import ThreadedMotoServer

from tests.support.tools import tool

__all__ = ["azure_server", "s3_server"]

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "eu-north-1",
    "AWS_ALLOW_HTTP": "true",
}


@contextmanager
def s3_server(bucket: str) -> Generator[dict[str, str]]:
    """A running server with an empty bucket.

    Yields:
        The variables that a process needs to reach it.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="eu-north-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
        client.close()
        yield {**_ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}
    finally:
        server.stop()


_ACCOUNT = "devstoreaccount1"
# Not a secret: the key that every Azurite has.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-08-06"


@contextmanager
def azure_server(container: str, folder: pathlib.Path) -> Generator[dict[str, str]]:
    """A running server with an empty container.

    Args:
        container: its name.
        folder: where the server keeps its data.

    Yields:
        The variables that a process needs to reach it.
    """
    command = [tool("azurite-blob"), "--disableTelemetry", "--skipApiVersionCheck", "--loose"]
    where = ["--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", "0"]
    environment = {**os.environ, "NODE_NO_WARNINGS": "1"}
    with subprocess.Popen(
        [*command, *where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as server:
        try:
            endpoint = f"{_address(server)}/{_ACCOUNT}"
            _make_container(endpoint, container)
            yield {
                "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
                "AZURE_STORAGE_ENDPOINT": endpoint,
                "AZURE_ALLOW_HTTP": "true",
            }
        finally:
            server.terminate()


def _address(server: subprocess.Popen[str]) -> str:
    """What the server says that it listens on, once it does."""
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"listens on (http://127\.0\.0\.1:\d+)", line):
            return found[1]
    raise RuntimeError(f"Azurite did not start: {said}")


def _make_container(endpoint: str, container: str) -> None:
    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
    resource = f"/{_ACCOUNT}/{_ACCOUNT}/{container}\nrestype:container"
    signed = "PUT" + "\n" * 12 + headers + resource
    signature = hmac.new(base64.b64decode(_KEY), signed.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(
        f"{endpoint}/{container}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}",
            "Content-Length": "0",
        },
    )
    urllib.request.urlopen(request, timeout=60).close()
