"""An S3 server of the tests' own: a real one (versitygw), with its data on disk."""

import http.client
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import botocore.session

from layover.adapters.blobs.objects import Bucket
from tests.e2e.processes import Background, environment, find, free_port, wait_until

_NAME = "layover"
ACCESS_KEY, SECRET_KEY = "tests", "a secret of the tests"
REGION = "us-east-1"


class S3Server:
    """A server on a port of 127.0.0.1 that outlives its restarts, with one bucket."""

    def __init__(self) -> None:
        """Make it and start it. `remove` ends it."""
        self.folder = Path(tempfile.mkdtemp(prefix="layover-s3-", dir="/tmp"))
        self.port = free_port()
        for name in ("data", "metadata"):
            (self.folder / name).mkdir()
        try:
            self.start()
            self.client().create_bucket(Bucket=_NAME)
        except BaseException:
            self.remove()
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command: list[str | Path] = [
            *(find("versitygw"), "--port", f"127.0.0.1:{self.port}", "--keep-alive", "--quiet"),
            # Beside the objects and not in their extended attributes, which not every file
            # system has.
            *("posix", "--sidecar", self.folder / "metadata", self.folder / "data"),
        ]
        env = environment(
            self.folder, ROOT_ACCESS_KEY=ACCESS_KEY, ROOT_SECRET_KEY=SECRET_KEY, VGW_REGION=REGION
        )
        self._process = Background(command, env=env, log=self.folder / "log")
        wait_until(self._answers, timeout=30, what="the S3 server")

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.signal(signal.SIGKILL)
        self._process.wait(10)

    def remove(self) -> None:
        if hasattr(self, "_process"):
            self._process.stop(1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def bucket(self, url: str | None = None) -> Bucket:
        """A place of its own in the bucket, reached at `url` or else at the server itself."""
        return Bucket(
            f"s3://{_NAME}/{uuid4().hex}",
            endpoint=url or self.url,
            region=REGION,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
        )

    def client(self) -> Any:
        """Another client than the one that is tested."""
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def keys(self, bucket: Bucket) -> dict[str, int]:
        """The objects of a place, with their sizes."""
        prefix = bucket.url.removeprefix(f"s3://{_NAME}/") + "/"
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=_NAME, Prefix=prefix)
        return {
            found["Key"].removeprefix(prefix): found["Size"]
            for page in pages
            for found in page.get("Contents", ())
        }

    def unfinished(self, bucket: Bucket) -> list[str]:
        """The keys of the place's multipart uploads that nobody completed."""
        prefix = bucket.url.removeprefix(f"s3://{_NAME}/") + "/"
        page = self.client().list_multipart_uploads(Bucket=_NAME, Prefix=prefix)
        return [upload["Key"].removeprefix(prefix) for upload in page.get("Uploads", ())]

    def _answers(self) -> bool:
        if not self._process.is_running:
            raise AssertionError(f"the S3 server ended: {self._process.log()[-2000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse()
        except OSError:
            return False
        finally:
            connection.close()
        return True
