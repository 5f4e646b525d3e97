"""An object store that speaks S3's protocol on loopback: moto's server."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

__all__ = ["s3_server"]

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
