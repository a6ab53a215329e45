"""The two pairs of stores that servers run on, and which tests run on which.

A test that needs a server runs on the embedded pair, unless its module or itself says otherwise:

    pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)    on both
    @pytest.mark.pairs(REPLICATED)                          on this one
    @pytest.mark.embedded_only                              it looks into the data folder

`pytest --every-pair` runs all of them on both, but for the last kind.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.objects import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tests.postgres import Postgres

# SQLite and files in the data folder; PostgreSQL and S3.
EMBEDDED, REPLICATED = "embedded", "replicated"


@dataclass(frozen=True)
class Storage:
    """What every server of a test keeps its state in, as LAYOVER_* variables without prefix."""

    settings: dict[str, str] = field(default_factory=dict)
    # Where the blobs lie, unless it is in each server's own data folder.
    blob_folder: Path | None = None


@contextmanager
def storage_of(pair: str, request: pytest.FixtureRequest) -> Iterator[Storage]:
    """Storage of a test's own, with nothing in it."""
    if pair == EMBEDDED:
        yield Storage()
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    template: str = request.getfixturevalue("postgres_template")
    s3: S3Server = request.getfixturevalue("s3")
    bucket = s3.bucket()
    with postgres.database(template) as url:
        yield Storage(
            {
                "DATABASE_URL": url,
                "BLOB_STORE_URL": bucket.url,
                "BLOB_STORE_ENDPOINT": s3.url,
                "BLOB_STORE_REGION": REGION,
                "BLOB_STORE_ACCESS_KEY": ACCESS_KEY,
                "BLOB_STORE_SECRET_KEY": SECRET_KEY,
            },
            s3.folder / "data" / bucket.url.removeprefix("s3://"),
        )


def pairs_of(test: pytest.Function | pytest.Item, *, every: bool) -> Sequence[str]:
    """The pairs that a test runs on; `every` is what --every-pair asks for."""
    if test.get_closest_marker("embedded_only"):
        return (EMBEDDED,)
    if every:
        return (EMBEDDED, REPLICATED)
    marker = test.get_closest_marker("pairs")
    return marker.args if marker else (EMBEDDED,)
