"""The stores that each suite runs on: every adapter of its port."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from layover.adapters.blobs.objects import Bucket
from tests.objects import S3Server
from tests.stores import Stores, opened

DATABASES = ("sqlite", "postgresql")


def url_of(database: str, request: pytest.FixtureRequest) -> str:
    """The URL of a database of this kind that is the test's own; `migrate` is still to be done."""
    if database == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        return f"sqlite:///{folder / 'layover.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    return url_of(request.param, request)


@pytest.fixture
def stores(tmp_path: Path, database_url: str, request: pytest.FixtureRequest) -> Iterator[Stores]:
    """The pairs that servers run on: SQLite with files, PostgreSQL with S3."""
    bucket: Bucket | None = None
    if not database_url.startswith("sqlite"):
        server: S3Server = request.getfixturevalue("s3")
        bucket = server.bucket()
    with opened(tmp_path, database_url, bucket) as stores:
        yield stores
