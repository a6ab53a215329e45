"""A data folder with something of everything, and one on another file system."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import migrate
from tests.e2e.processes import remove
from tests.fixtures.schemas import released

Tables = dict[str, list[tuple[Any, ...]]]


def execute(data_dir: Path, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run a statement on a data folder's database, as another process does."""
    with closing(sqlite3.connect(data_dir / "layover.db", timeout=30)) as database, database:
        return database.execute(statement, parameters).fetchall()


def tables(database: Path) -> Tables:
    """Every row of a database."""
    with closing(sqlite3.connect(database)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: connection.execute(f'SELECT * FROM "{name}" ORDER BY 1, 2').fetchall()
            for (name,) in names.fetchall()
            if name != "alembic_version"
        }


def blobs(data_dir: Path) -> dict[str, bytes]:
    """The bytes of every blob that the database names, by key."""
    keys = execute(data_dir, "SELECT key FROM blobs")
    return {key: (data_dir / "blobs" / key).read_bytes() for (key,) in keys}


def add_blob(data_dir: Path, content: bytes, digest: str) -> Path:
    """Put a blob there as an upload does."""
    key = f"data/ab/{digest[-12:]}"
    path = data_dir / "blobs" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    execute(
        data_dir,
        "INSERT INTO blobs (digest, size_bytes, key, created_at) VALUES (?, ?, ?, 0)",
        *(digest, len(content), key),
    )
    return path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder of the newest schema, full of what an older one brought."""
    folder = tmp_path / "data"
    released.restore("0001", folder)
    database = Database(f"sqlite:///{folder / 'layover.db'}")
    try:
        migrate(database.engine)
    finally:
        database.close()
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system, to which no link leads."""
    folder = Path(tempfile.mkdtemp(prefix="layover-", dir="/dev/shm"))
    assert folder.stat().st_dev != tmp_path.stat().st_dev
    yield folder
    remove(folder)
