"""How SQLite finds what is asked for: by an index, whatever else a database holds."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from layover.adapters.sql.audit_places import SqlAuditPlaces
from layover.adapters.sql.projects import SqlProjectStore
from layover.adapters.sql.push_source import SqlPushSource
from layover.adapters.sql.pushes import SqlPushStore
from layover.audit.models import AuditQuery, PageKey
from layover.audit.ports import Named
from layover.builds.models import BuildStatus
from layover.oci.digest import Digest
from layover.oci.names import Tag
from layover.oci.references import Destination, Place
from layover.promotion.models import Push, PushStatus, Transfer
from layover.registry.manifests import Audience
from tests.contract.test_audit_store import EVENT
from tests.contract.test_collection import BUILD, World
from tests.stores import (
    NOW,
    REPOSITORY,
    RETENTION,
    SAVES,
    SIBLING,
    descriptor,
    image,
    opened,
    push_image,
)
from tests.stores import put_manifest as put

pytestmark = pytest.mark.anyio

# Tables that grow with what is kept.
LARGE = (
    "audit_events",
    "blobs",
    "build_logs",
    "builds",
    "manifest_references",
    "manifests",
    "push_authorizations",
    "push_transfers",
    "pushes",
    "receipts",
    "repository_blobs",
    "retained_manifests",
    "retentions",
    "staged_tags",
    "tags",
    "tokens",
    "tombstones",
)
FAILED = "failedbuil"

SCAN = re.compile(rf"SCAN (?:{'|'.join(LARGE)})\b")
# All that one repository holds is as much as all.
WIDE = re.compile(
    r"SEARCH (?:manifests|manifest_references|repository_blobs|retained_manifests)\b"
    r".*\(repository_id=\?\)"
)

# Nearly all rows have none: that index has to be of those that do.
LIVE = re.compile(r"\((?:ended_at|revoked_at)=\?\)")


@contextmanager
def plans() -> Iterator[dict[str, list[str]]]:
    """The plan of every statement that is executed meanwhile."""
    found: dict[str, list[str]] = {}

    def explain(
        connection: Connection,
        _cursor: object,
        statement: str,
        parameters: Any,
        _context: object,
        is_many: bool,
    ) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")) and statement not in found:
            driver: Any = connection.connection.driver_connection
            rows = driver.execute(
                f"EXPLAIN QUERY PLAN {statement}", parameters[0] if is_many else parameters
            )
            found[statement] = [row[3] for row in rows]

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


async def test_what_is_pushed_read_and_collected_is_found_by_an_index(tmp_path: Path) -> None:
    with opened(tmp_path) as stores:
        world = World(stores)
        with plans() as found:
            await push_image(stores, SAVES, b"layer", tag=BUILD, build_id=BUILD)
            body = await push_image(stores, REPOSITORY, b"layer", tag=BUILD, build_id=BUILD)
            await push_image(stores, REPOSITORY, b"layer", tag=FAILED, build_id=FAILED)
            for audience in Audience:
                if audience is not Audience.READER:
                    await world.manifests.find(REPOSITORY, Tag(BUILD), audience, BUILD)
            await push_image(stores, REPOSITORY, b"layer", b"other", tag="v1")
            subject = descriptor("application/vnd.oci.image.manifest.v1+json", body)
            await put(stores, REPOSITORY, image(subject=subject))
            for audience in Audience:
                for reference in (Tag("v1"), Digest.of(body)):
                    await world.manifests.find(REPOSITORY, reference, audience)
            for may_push in (True, False):
                await world.blobs.find(REPOSITORY, Digest.of(b"layer"), may_push=may_push)
            # What a caller asks that sees one build alone.
            reader = Audience.READER
            await world.manifests.find(REPOSITORY, Digest.of(body), reader, of_build=BUILD)
            await world.blobs.find(REPOSITORY, Digest.of(b"layer"), may_push=False, of_build=BUILD)
            await world.manifests.extend_pulled(REPOSITORY, Digest.of(body), BUILD)
            await world.manifests.list_referrers(REPOSITORY, Digest.of(body), None, None, BUILD)
            await world.manifests.list_repositories(["mine"], 10, None, BUILD)
            with plans() as listed:
                await world.manifests.list_tags(REPOSITORY, 10, None, BUILD)
            ((_, plan),) = listed.items()
            assert any("ix_tags_retention_id" in line for line in plan), plan
            for source in (REPOSITORY, None):
                await world.blobs.mount(source, SIBLING, Digest.of(b"layer"))
            await world.manifests.list_referrers(REPOSITORY, Digest.of(body), None, None)
            await world.builds.end(FAILED, BuildStatus.FAILED, None, world.clock.now)
            await world.end(BUILD)
            await world.manifests.find(REPOSITORY, Tag(BUILD), reader, of_build=BUILD)
            await world.builds.keep(BUILD, world.clock.now + RETENTION * 2, world.clock.now)
            world.clock.pass_by(RETENTION)
            await world.collect()
            assert not await world.shows(Tag("v1"))
            for time, is_known in ((RETENTION, True), (timedelta(days=400), False)):
                world.clock.pass_by(time)
                await world.collect()
                assert bool(await world.builds.find_buried(BUILD)) is is_known
            assert await world.retention.find_receipt(BUILD) is None, "forgotten after a year"
        assert len(found) > 50
        bad = {
            statement: plan
            for statement, plan in found.items()
            if any(bad.search(line) for bad in (SCAN, WIDE, LIVE) for line in plan)
        }
        assert bad == {}


@pytest.mark.parametrize(
    "query", [AuditQuery("org"), AuditQuery(project_id="mine"), AuditQuery()], ids=repr
)
async def test_the_audit_log_is_read_in_the_order_of_an_index(
    tmp_path: Path, query: AuditQuery
) -> None:
    with opened(tmp_path) as stores:
        await stores.audit.add([EVENT])
        with plans() as found:
            for narrower in (
                query,
                replace(query, since=NOW, until=NOW + RETENTION),
                replace(query, action="tokens", actor_id="u1"),
            ):
                for after in (None, PageKey(NOW, 5)):
                    await stores.audit.list_page(narrower, after, 100)
        assert len(found) == 6
        for plan in found.values():
            (line,) = plan
            assert "SEARCH audit_events USING INDEX ix_audit_events_" in line
            assert "_id_at_id (" in line


async def test_whose_log_it_is_and_what_is_old_in_it_are_found_by_an_index(tmp_path: Path) -> None:
    with opened(tmp_path) as stores:
        places = SqlAuditPlaces(stores.database)
        with plans() as found:
            await stores.audit.delete_before(NOW, 100)
            for named in Named:
                await places.find_place(named, "x")
            await places.find_holder(b"x")
        assert len(found) == 2 + len(Named)
        assert not [line for plan in found.values() for line in plan if line.startswith("SCAN")]
        assert any("ix_audit_events_at " in line for plan in found.values() for line in plan)


async def test_pushes_to_other_registries_are_found_by_an_index(tmp_path: Path) -> None:
    with opened(tmp_path) as stores:
        store = SqlPushStore(stores.database)
        source = SqlPushSource(stores.database, stores.blobs)
        place = Place("registry.example", REPOSITORY)
        transfer = Transfer(place, Digest.of(b"layer"), 5)
        until = NOW + timedelta(seconds=10)
        body = await push_image(stores, REPOSITORY, b"layer", tag="v1")
        with plans() as found:
            for push_id in ("a", "b", "c"):
                await store.add(_push(push_id), 10)
                await store.keep_sealed(push_id, {place: b"sealed"})
            await store.claim("server", NOW, until, 2)
            for _ in range(2):
                await store.report("a", "server", NOW, until, transfers=[transfer])
            await store.claim("server", until, until, 2)
            await store.cancel("b", NOW)
            await store.sealed("a")
            await store.end("a", "server", PushStatus.DONE, None, NOW)
            for after in (None, (NOW, "b")):
                assert (await store.list_page("mine", after, 10)).pushes
            assert await store.forget_ended(until, 10) == 2
            digests = [Digest.of(body)], [Digest.of(b"layer")]
            assert await source.keep(REPOSITORY, *digests, NOW, RETENTION)
            await source.manifest(REPOSITORY, Digest.of(body))
            await source.blob(REPOSITORY, Digest.of(b"layer"))
            await source.referrers(REPOSITORY, Digest.of(body), NOW)
            await SqlProjectStore(stores.database).delete_project("mine", NOW)
        bad = {
            statement: plan
            for statement, plan in found.items()
            if any(bad.search(line) for bad in (SCAN, WIDE, LIVE) for line in plan)
        }
        assert bad == {}
        pages = [
            " ".join(plan)
            for statement, plan in found.items()
            if statement.startswith("SELECT pushes.id") and "ORDER BY" in statement
        ]
        # What is next is read in the order of an index: nothing is sorted.
        assert len(pages) == 4
        assert not any("TEMP B-TREE FOR ORDER BY" in page for page in pages)


def _push(push_id: str) -> Push:
    destination = Destination(Place("registry.example", REPOSITORY), Tag("v1"))
    return Push(
        id=push_id,
        project_id="mine",
        build_id=BUILD,
        target="",
        source=Digest.of(b"image"),
        destinations=(destination,),
        created_at=NOW,
        created_by="Ann",
    )
