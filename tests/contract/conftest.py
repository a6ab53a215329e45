"""The stores that each suite runs on: every adapter of its port."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
def stores(tmp_path: Path, database_url: str) -> Iterator[Stores]:
    with opened(tmp_path, database_url) as stores:
        yield stores
