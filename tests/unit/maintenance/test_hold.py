import asyncio
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from layover.adapters.sql import server_leases
from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import server_leases as leases
from layover.maintenance.collect import CollectorBusy
from layover.maintenance.hold import NoServerData, hold
from layover.settings import Settings

pytestmark = pytest.mark.anyio

_WAIT = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)"


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, data_dir: Path) -> Settings:
    if request.param == "sqlite":
        return Settings(data_dir=data_dir)
    url: str = request.getfixturevalue("postgres_url")
    return Settings.model_validate({"data_dir": data_dir, "database_url": url})


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The database as the server has it open."""
    url = settings.database_url.get_secret_value()
    database = Database(url or f"sqlite:///{settings.data_dir / 'layover.db'}")
    yield database
    database.close()


async def _collects(database: Database) -> bool:
    """Whether the server could collect now; then it does, for a moment."""
    now = datetime.now(UTC)
    until = now + timedelta(minutes=1)
    taken = await database.write(
        lambda connection: server_leases.take(
            connection, server_leases.COLLECTOR, "server", now, until
        )
    )
    await database.write(
        lambda connection: server_leases.release(connection, server_leases.COLLECTOR, "server")
    )
    return taken


async def _wait_for_lease(database: Database) -> None:
    query = select(leases)
    while not await database.read(lambda connection: connection.execute(query).all()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_nothing_is_collected_while_the_command_works(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    command = (sys.executable, "-c", _WAIT, str(tmp_path / "go"))
    held = asyncio.create_task(hold(settings, command, renewal_seconds=0.1))
    await _wait_for_lease(database)
    # Also past the first renewals.
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        assert not await _collects(database)
    (tmp_path / "go").touch()
    ended = await held
    assert (ended.status, ended.was_interrupted) == (0, False)
    assert await _collects(database)


async def test_a_collection_that_came_between_is_told(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    command = (sys.executable, "-c", _WAIT, str(tmp_path / "go"))
    held = asyncio.create_task(hold(settings, command, renewal_seconds=60))
    await _wait_for_lease(database)
    # As if the machine had slept: the lease ended, and the server collected.
    past = datetime.now(UTC) - timedelta(seconds=1)
    await database.write(
        lambda connection: connection.execute(leases.update(), {"expires_at": past})
    )
    assert await _collects(database)
    (tmp_path / "go").touch()
    assert (await held).was_interrupted


async def test_the_commands_own_end_is_told(settings: Settings, database: Database) -> None:
    for script, status in (("exit 3", 3), ("kill -9 $$", -9)):
        assert (await hold(settings, ("sh", "-c", script))).status == status
        assert await _collects(database)
    with pytest.raises(FileNotFoundError):
        await hold(settings, ("/nonexistent/command",))
    assert await _collects(database)


async def test_a_collection_that_does_not_end_is_told(
    settings: Settings, database: Database
) -> None:
    now = datetime.now(UTC)
    await database.write(
        lambda connection: server_leases.take(
            connection, server_leases.COLLECTOR, "server", now, now + timedelta(minutes=1)
        )
    )
    with pytest.raises(CollectorBusy):
        await hold(settings, ("false",), patience=timedelta(0))


async def test_a_folder_without_a_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoServerData):
        await hold(Settings(data_dir=tmp_path), ("false",))
