"""A collection by hand: it takes turns with the server, and a plan changes nothing."""

import time
from datetime import timedelta
from pathlib import Path

import pytest

from layover.adapters.sql.migrate import SchemaUnknown
from layover.maintenance.collect import CollectorBusy, Kind, NoServerData, collect, plan
from layover.retention.collector import LEASE_NAME
from layover.settings import Settings
from layover.startup import BACKUP_FILE, RESTORING_FILE
from tests.unit.maintenance.conftest import blobs, execute, tables

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    return Settings(data_dir=data_dir)


@pytest.fixture
def everything_is_over(data_dir: Path) -> None:
    """No time is left to anything, and nobody was told of anything lately."""
    execute(data_dir, "UPDATE builds SET status = 'finished', finished_at = 0")
    execute(data_dir, "UPDATE retentions SET expires_at = 1")
    execute(data_dir, "UPDATE manifests SET leased_until = NULL")
    execute(data_dir, "UPDATE repository_blobs SET leased_until = 0, shown_until = NULL")
    execute(data_dir, "UPDATE repository_blobs SET check_at = 0 WHERE check_at IS NOT NULL")


@pytest.mark.usefixtures("everything_is_over")
async def test_a_plan_names_what_a_collection_takes_and_changes_nothing(
    settings: Settings, data_dir: Path
) -> None:
    held = blobs(data_dir)
    before = tables(data_dir / "layover.db")
    builds = {build_id for (build_id,) in execute(data_dir, "SELECT id FROM builds")}
    planned = await plan(settings)
    before["server_keys"] = tables(data_dir / "layover.db")["server_keys"]
    assert tables(data_dir / "layover.db") == before
    assert {removal.reference for removal in planned if removal.kind is Kind.BUILD} == builds
    assert {removal.kind for removal in planned} == set(Kind)

    taken = sum(removal.kind is Kind.BLOB for removal in planned)
    done = await collect(settings)
    assert done.objects == taken == len(held)
    assert done.ended == len(before["retentions"])
    assert blobs(data_dir) == {}
    assert not any((data_dir / "blobs" / key).exists() for key in held)
    assert execute(data_dir, "SELECT id FROM builds") == []
    assert await plan(settings) == []
    assert execute(data_dir, "SELECT * FROM server_leases") == []


@pytest.mark.usefixtures("everything_is_over")
async def test_a_collection_waits_for_its_turn_and_gives_up_in_the_end(
    settings: Settings, data_dir: Path
) -> None:
    execute(
        data_dir,
        "INSERT INTO server_leases (name, holder, expires_at) VALUES (?, 'a backup', ?)",
        *(LEASE_NAME, int((time.time() + 60) * 1_000_000)),
    )
    held = blobs(data_dir)
    with pytest.raises(CollectorBusy, match="kept the collection to itself"):
        await collect(settings, patience=timedelta(seconds=0.3))
    assert blobs(data_dir) == held
    # Looking takes no turn.
    assert await plan(settings) != []
    execute(data_dir, "DELETE FROM server_leases")
    assert (await collect(settings)).objects == len(held)


async def test_what_is_no_servers_data_is_refused_and_left_as_it_is(
    settings: Settings, data_dir: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    for work in (plan, collect):
        with pytest.raises(NoServerData, match="no server's data folder"):
            await work(Settings(data_dir=nowhere))
    assert list(nowhere.iterdir()) == []
    for name in (RESTORING_FILE, BACKUP_FILE):
        (data_dir / name).touch()
        with pytest.raises(NoServerData, match="restore"):
            await collect(settings)
        (data_dir / name).unlink()
    (data_dir / "blobs").rename(tmp_path / "blobs")
    with pytest.raises(NoServerData, match="no folder of blobs"):
        await collect(settings)
    (tmp_path / "blobs").rename(data_dir / "blobs")
    execute(data_dir, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaUnknown):
        await collect(settings)
