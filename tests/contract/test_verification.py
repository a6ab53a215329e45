"""What a verification finds in real stores that were damaged, and what its repair does."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import from_url
from sqlalchemy import Connection, Table, delete, insert, select, update

from layover.adapters.blobs.objects import Bucket
from layover.adapters.blobs.quarantine import FileQuarantine, ObjectQuarantine
from layover.adapters.sql import schema
from layover.adapters.sql.retention import SqlRetentionStore
from layover.adapters.sql.verification import SqlVerificationStore
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST, parse_manifest
from layover.oci.names import Tag
from layover.registry.models import Part, StoredManifest, Upload
from layover.retention.findings import Finding, FindingKind, Progress, Verification
from layover.retention.verify import Verifier
from tests.stores import (
    FOREIGN,
    LEASE,
    NOW,
    REPOSITORY,
    RETENTION,
    SIBLING,
    Stores,
    descriptor,
    finish,
    image,
    index,
    opened,
    pieces,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

LAYER = b"a layer of some length"
LAYER_DIGEST = str(Digest.of(LAYER))


def verifier(
    stores: Stores,
    now: datetime | Callable[[], datetime] = NOW,
    *,
    may_miss_blobs: bool = False,
) -> Verifier:
    bucket = stores.bucket
    quarantine = ObjectQuarantine(bucket) if bucket else FileQuarantine(stores.folder / "blobs")
    store = SqlVerificationStore(stores.database, may_miss_blobs=may_miss_blobs)
    return Verifier(store, stores.blobs, quarantine, now if callable(now) else lambda: now, LEASE)


async def found(stores: Stores, now: datetime = NOW, **options: Any) -> list[Finding]:
    return list((await verifier(stores, now).run(**options)).findings)


async def kinds(stores: Stores, now: datetime = NOW, **options: Any) -> list[FindingKind]:
    return [finding.kind for finding in await found(stores, now, **options)]


async def change(stores: Stores, *statements: Any) -> None:
    """Damage the database: no key is checked."""

    def work(connection: Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    with stores.database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys=OFF")
            with connection.begin():
                work(connection)
            driver.execute("PRAGMA foreign_keys=ON")
        else:
            with connection.begin():
                # As a superuser may; keys are triggers there.
                connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
                work(connection)


async def rows(stores: Stores, table: Table, *conditions: Any) -> list[Any]:
    query = select(table).where(*conditions)
    return await stores.database.read(lambda connection: list(connection.execute(query)))


async def key_of(stores: Stores, digest: str) -> str:
    (row,) = await rows(stores, schema.blobs, schema.blobs.c.digest == digest)
    return str(row.key)


def bucket_store(bucket: Bucket) -> Any:
    config: Any = bucket.config()
    return from_url(bucket.url, config=config, client_options={"allow_http": True})


async def overwrite(stores: Stores, key: str, content: bytes | None) -> None:
    """Put other bytes under a key, or none."""
    if stores.bucket is not None:
        store = bucket_store(stores.bucket)
        if content is None:
            await obstore.delete_async(store, key)
        else:
            await obstore.put_async(store, key, content)
        return
    path = stores.folder / "blobs" / key
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


async def set_aside(stores: Stores, key: str) -> bytes | None:
    """The bytes of a key as the quarantine has them."""
    if stores.bucket is not None:
        try:
            answer = await obstore.get_async(bucket_store(stores.bucket), f"quarantine/{key}")
        except FileNotFoundError:
            return None
        return bytes(await answer.bytes_async())
    path = stores.folder / "quarantine" / key
    return path.read_bytes() if path.exists() else None


async def push_much(stores: Stores) -> None:
    """An index of two images under a tag, a referrer of it, a build, and a blob of nobody."""
    one = await push_image(stores, REPOSITORY, LAYER)
    two = await push_image(stores, REPOSITORY, b"another layer")
    both = index(one, two)
    await put_manifest(stores, REPOSITORY, both, "latest")
    await push_blob(stores, REPOSITORY, b"signature")
    referrer = image(b"signature", subject=descriptor(OCI_MANIFEST, both))
    await put_manifest(stores, REPOSITORY, referrer)
    await push_image(stores, SIBLING, LAYER, tag="build-1", build_id="build-1")
    await finish(stores, "build-1")
    await push_blob(stores, SIBLING, b"named by nothing")


# --- when all is well -----------------------------------------------------------------------------


async def test_nothing_is_found_in_what_was_pushed(stores: Stores) -> None:
    await push_much(stores)
    told: list[Progress] = []
    result = await verifier(stores).run(report=told.append, is_served=True)
    assert result.findings == () and result.is_well
    assert {name: result.counts[name] for name in ("tags", "manifests", "blobs", "builds")} == {
        "tags": 2,
        "manifests": 5,
        "blobs": 5,
        "builds": 1,
    }
    total = sum(map(len, (b"{}", LAYER, b"another layer", b"signature", b"named by nothing")))
    assert result.counts["bytes"] == total
    blobs = [progress for progress in told if progress.total_bytes]
    assert blobs[-1].done_bytes == blobs[-1].total_bytes == total


async def test_nothing_is_found_and_nothing_mended_at_any_step_of_a_collection(
    stores: Stores,
) -> None:
    await push_much(stores)
    now = NOW + RETENTION + timedelta(minutes=1)
    store = SqlRetentionStore(stores.database)
    for step in (
        store.end_due,
        store.release_ended,
        store.collect_manifests,
        store.collect_links,
    ):
        while await step(now, 1):
            assert await found(stores, now, repair=True) == []
    doomed = await store.doomed("", 100)
    assert doomed
    for one in doomed:
        await stores.blobs.delete([one.key])
        assert await found(stores, now, repair=True) == []
    await store.forget_doomed([one.key for one in doomed])
    assert await found(stores, now, repair=True) == []


async def test_an_upload_under_way_is_no_finding(stores: Stores) -> None:
    upload_id = "ab" * 16
    key = stores.blobs.place(upload_id)
    expires_at = NOW + timedelta(hours=1)
    upload = Upload(upload_id, REPOSITORY, expires_at, places=frozenset({key}))
    await stores.uploads.create_upload(upload, NOW)
    parts = await stores.blobs.append((), key, pieces(b"some of it"), [])
    # The store's clock is the machine's: its object is older than any grace time from here on.
    later = datetime.now(NOW.tzinfo) + timedelta(days=1)
    await change(stores, update(schema.uploads).values(expires_at=later + timedelta(hours=1)))
    assert await found(stores, later, repair=True) == []
    (row,) = await rows(stores, schema.uploads)
    after = Upload(upload_id, REPOSITORY, row.expires_at, parts, None, frozenset({key}))
    await stores.uploads.resize_upload(upload, after, NOW)
    assert await found(stores, later, repair=True) == []
    assert await stores.blobs.size(key) == len(b"some of it")


# --- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"A layer of some length", FindingKind.BLOB_DAMAGED),
        (LAYER[:-1], FindingKind.BLOB_DAMAGED),
        (LAYER + b"\0", FindingKind.BLOB_DAMAGED),
        (b"", FindingKind.BLOB_DAMAGED),
        (None, FindingKind.BLOB_MISSING),
    ],
    ids=["flipped", "truncated", "longer", "empty", "missing"],
)
async def test_a_blob_whose_bytes_are_wrong_is_hidden_until_it_is_pushed_again(
    stores: Stores, content: bytes | None, kind: FindingKind
) -> None:
    await push_image(stores, SIBLING, LAYER, tag="build-1", build_id="build-1")
    key = await key_of(stores, LAYER_DIGEST)
    await overwrite(stores, key, content)

    (finding,) = await found(stores)
    assert (finding.kind, finding.reference) == (kind, LAYER_DIGEST)
    assert (finding.project_id, finding.repository) == ("mine", SIBLING.value)
    assert finding.builds == ("build-1",)
    assert await stores.registry.find_blob(SIBLING, Digest.parse(LAYER_DIGEST), NOW)

    assert await kinds(stores, repair=True) == [kind]
    assert await stores.registry.find_blob(SIBLING, Digest.parse(LAYER_DIGEST), NOW) is None
    assert await stores.blobs.size(key) is None
    assert await set_aside(stores, key) == content

    # Repaired twice is repaired once; and it is told as long as it is needed and not there.
    for repair in (True, False):
        result = await verifier(stores).run(repair=repair)
        assert [finding.kind for finding in result.findings] == [FindingKind.BLOB_QUARANTINED]
        assert not result.is_well

    await push_blob(stores, SIBLING, LAYER)
    shown = await stores.registry.find_blob(SIBLING, Digest.parse(LAYER_DIGEST), NOW)
    assert shown is not None and shown.key != key
    assert await found(stores, repair=True) == []
    assert await set_aside(stores, key) == content


async def test_a_repair_that_was_cut_off_behind_the_row_is_finished_by_the_next(
    stores: Stores,
) -> None:
    await push_image(stores, REPOSITORY, LAYER, tag="latest")
    key = await key_of(stores, LAYER_DIGEST)
    await overwrite(stores, key, b"damaged")
    await change(
        stores,
        update(schema.blobs).where(schema.blobs.c.key == key).values(quarantined_at=NOW),
    )
    assert await kinds(stores, repair=True) == [FindingKind.BLOB_QUARANTINED]
    assert await set_aside(stores, key) == b"damaged"


async def test_a_size_that_only_the_row_has_wrong_is_corrected(stores: Stores) -> None:
    await push_image(stores, REPOSITORY, LAYER, tag="latest")
    await change(
        stores,
        update(schema.blobs)
        .where(schema.blobs.c.digest == LAYER_DIGEST)
        .values(size_bytes=len(LAYER) + 1),
    )
    assert await kinds(stores) == [FindingKind.BLOB_SIZE]
    result = await verifier(stores).run(repair=True)
    assert result.is_well and len(result.findings) == 1
    assert await found(stores) == []


async def test_a_blob_that_cannot_be_read_is_told_and_left_alone(stores: Stores) -> None:
    await push_image(stores, REPOSITORY, LAYER, tag="latest")
    key = await key_of(stores, LAYER_DIGEST)
    await change(
        stores,
        # What no store takes for a key of its own.
        update(schema.blobs).where(schema.blobs.c.key == key).values(key="../elsewhere"),
    )
    assert FindingKind.BLOB_UNREADABLE in await kinds(stores, repair=True)
    (row,) = await rows(stores, schema.blobs, schema.blobs.c.digest == LAYER_DIGEST)
    assert row.quarantined_at is None


async def test_a_blob_that_was_collected_or_replaced_meanwhile_is_no_finding(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push_image(stores, REPOSITORY, LAYER, tag="latest")
    key = await key_of(stores, LAYER_DIGEST)
    size = stores.blobs.size
    replaced = False

    async def late(asked: str) -> int | None:
        nonlocal replaced
        if asked == key and not replaced:
            replaced = True
            await overwrite(stores, key, None)
            await change(
                stores,
                update(schema.blobs)
                .where(schema.blobs.c.digest == LAYER_DIGEST)
                .values(key="data/ff/another"),
            )
            await overwrite(stores, "data/ff/another", LAYER)
        return await size(asked)

    monkeypatch.setattr(stores.blobs, "size", late)
    assert await found(stores, repair=True) == []


async def test_many_blobs_are_all_read(stores: Stores) -> None:
    layers = [f"layer {number}".encode() for number in range(30)]
    await push_image(stores, REPOSITORY, *layers, tag="latest")
    damaged = sorted(str(Digest.of(layer)) for layer in layers[::3])
    for digest in damaged:
        await overwrite(stores, await key_of(stores, digest), b"x")
    assert [finding.reference for finding in await found(stores)] == damaged


# --- manifests and rows --------------------------------------------------------------------------


async def test_a_manifest_whose_bytes_are_wrong_is_told_until_it_is_pushed_again(
    stores: Stores,
) -> None:
    body = await push_image(stores, SIBLING, LAYER, tag="build-1", build_id="build-1")
    (before,) = await rows(stores, schema.manifests)
    damaged = {"body": body[:-1] + b"\0", "media_type": "un/known", "subject": LAYER_DIGEST}
    await change(stores, update(schema.manifests).values(damaged))
    (finding,) = await found(stores, repair=True)
    assert (finding.kind, finding.builds) == (FindingKind.MANIFEST_DAMAGED, ("build-1",))
    assert not finding.is_repaired
    await put_manifest(stores, SIBLING, body, tag="build-1", build_id="build-1")
    assert await rows(stores, schema.manifests) == [before]
    assert await found(stores) == []


async def test_what_is_recorded_of_a_manifest_is_put_right_by_its_bytes(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, LAYER, tag="latest")
    await push_blob(stores, REPOSITORY, b"not of it")
    references = schema.manifest_references
    before = {(row.digest, row.kind) for row in await rows(stores, references)}
    await change(
        stores,
        delete(references).where(references.c.digest == LAYER_DIGEST),
        insert(references).values(
            repository_id=1,
            manifest_digest=str(Digest.of(body)),
            digest=str(Digest.of(b"not of it")),
            kind="blob",
        ),
        update(schema.repository_blobs).values(check_at=None),
        update(schema.manifests).values(subject=LAYER_DIGEST, annotations='{"a": "b"}'),
    )
    assert FindingKind.MANIFEST_MISREAD in await kinds(stores)
    assert (await verifier(stores).run(repair=True)).is_well
    assert {(row.digest, row.kind) for row in await rows(stores, references)} == before
    (manifest,) = await rows(stores, schema.manifests)
    assert (manifest.subject, json.loads(manifest.annotations)) == (None, {})
    assert await found(stores) == []


async def test_a_link_that_is_gone_is_told_and_made_by_a_push_alone(stores: Stores) -> None:
    await push_image(stores, REPOSITORY, LAYER, tag="latest")
    links = schema.repository_blobs
    await change(stores, delete(links).where(links.c.digest == LAYER_DIGEST))
    (finding,) = await found(stores, repair=True)
    assert (finding.kind, finding.reference) == (FindingKind.LINK_MISSING, LAYER_DIGEST)
    assert finding.repository == REPOSITORY.value and not finding.is_repaired
    # Another project's bytes are nobody's to give: who names them has to bring them.
    assert len(await rows(stores, links)) == 1
    assert await stores.blobs.size(await key_of(stores, LAYER_DIGEST)) == len(LAYER)
    await push_blob(stores, REPOSITORY, LAYER)
    assert await found(stores) == []


async def test_images_without_blobs_are_no_finding_where_they_are_taken(stores: Stores) -> None:
    await push_blob(stores, FOREIGN, LAYER)
    body = image(LAYER, b"nowhere")
    stored = StoredManifest(Digest.of(body), OCI_MANIFEST, body)
    manifest = parse_manifest(body, None)
    await stores.registry.put_manifest(
        REPOSITORY, stored, manifest, [Tag("sparse")], None, NOW, may_miss_blobs=True
    )
    sparse = verifier(stores, may_miss_blobs=True)
    assert (await sparse.run(repair=True)).findings == ()
    assert set(await kinds(stores)) == {FindingKind.LINK_MISSING, FindingKind.BLOB_LOST}


async def test_a_blob_without_its_row_is_told(stores: Stores) -> None:
    await push_image(stores, SIBLING, LAYER, tag="build-1", build_id="build-1")
    await change(stores, delete(schema.blobs).where(schema.blobs.c.digest == LAYER_DIGEST))
    (finding,) = await found(stores, repair=True)
    assert finding.kind is FindingKind.BLOB_LOST and finding.builds == ("build-1",)
    # Its bytes are kept: they are new, and could be somebody's.
    await push_blob(stores, SIBLING, LAYER)
    assert await found(stores) == []


async def test_a_manifest_that_is_gone_is_told_with_its_tag(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, LAYER, tag="latest")
    references = schema.manifest_references
    await change(
        stores,
        delete(references).where(references.c.manifest_digest == str(Digest.of(body))),
        delete(schema.manifests),
    )
    assert set(await kinds(stores)) >= {FindingKind.TAG_LOST, FindingKind.MANIFEST_LOST}


async def test_references_of_a_manifest_that_is_gone_are_forgotten(stores: Stores) -> None:
    await push_blob(stores, REPOSITORY, LAYER)
    references, links = schema.manifest_references, schema.repository_blobs
    await change(
        stores,
        insert(references).values(
            repository_id=1,
            manifest_digest=str(Digest.of(b"gone")),
            digest=LAYER_DIGEST,
            kind="blob",
        ),
        update(links).values(check_at=None),
    )
    assert await kinds(stores) == [FindingKind.REFERENCE_STRAY]
    assert (await verifier(stores).run(repair=True)).is_well
    assert await rows(stores, references) == []
    (link,) = await rows(stores, links)
    assert link.check_at is not None


@pytest.mark.parametrize("missing", ["child", "referrer", "tag"])
async def test_what_belongs_to_a_retention_is_retained_again(stores: Stores, missing: str) -> None:
    child = await push_image(stores, REPOSITORY, LAYER)
    parent = index(child)
    await put_manifest(stores, REPOSITORY, parent, "latest")
    await push_blob(stores, REPOSITORY, b"signature")
    referrer = image(b"signature", subject=descriptor(OCI_MANIFEST, parent))
    await put_manifest(stores, REPOSITORY, referrer, "signature")
    body = {"child": child, "referrer": referrer, "tag": parent}[missing]
    retained, (tag,) = (
        schema.retained_manifests,
        await rows(stores, schema.tags, schema.tags.c.name == "latest"),
    )
    before = {tuple(row) for row in await rows(stores, retained)}
    await change(
        stores,
        delete(retained).where(
            retained.c.digest == str(Digest.of(body)),
            retained.c.retention_id == tag.retention_id,
        ),
    )
    assert FindingKind.RETAINED_INCOMPLETELY in await kinds(stores)
    assert (await verifier(stores).run(repair=True)).is_well
    assert {tuple(row) for row in await rows(stores, retained)} == before
    assert await found(stores) == []


async def test_what_nobody_would_ever_collect_is_given_to_the_collector(stores: Stores) -> None:
    await push_image(stores, REPOSITORY, LAYER, tag="latest")
    await push_blob(stores, SIBLING, b"named by nothing")
    retained, links = schema.retained_manifests, schema.repository_blobs
    await change(
        stores,
        delete(schema.tags),
        delete(retained),
        delete(schema.retentions),
        update(links).values(check_at=None),
    )
    assert set(await kinds(stores)) == {
        FindingKind.MANIFEST_FORGOTTEN,
        FindingKind.LINK_FORGOTTEN,
    }
    assert (await verifier(stores).run(repair=True)).is_well
    assert await found(stores) == []
    (manifest,) = await rows(stores, schema.manifests)
    assert manifest.check_at == NOW


async def test_bytes_that_no_repository_shows_are_set_aside(stores: Stores) -> None:
    await push_blob(stores, REPOSITORY, LAYER)
    key = await key_of(stores, LAYER_DIGEST)
    await change(stores, delete(schema.repository_blobs))
    assert await kinds(stores) == [FindingKind.BLOB_UNLINKED]
    assert (await verifier(stores).run(repair=True)).is_well
    assert await rows(stores, schema.blobs) == []
    assert await set_aside(stores, key) == LAYER
    assert await found(stores) == []


async def test_retentions_and_builds_that_contradict_each_other_are_told(stores: Stores) -> None:
    await push_image(stores, REPOSITORY, LAYER, tag="build-1", build_id="build-1")
    await push_image(stores, SIBLING, b"other", tag="build-2", build_id="build-2")
    await push_image(stores, SIBLING, b"third", tag="build-3", build_id="build-3")
    await push_image(stores, SIBLING, b"fourth", tag="latest")
    retentions, builds = schema.retentions, schema.builds
    await change(
        stores,
        delete(builds).where(builds.c.id == "build-1"),
        update(builds).where(builds.c.id == "build-2").values(status="finished"),
        update(retentions).where(retentions.c.build_id == "build-3").values(build_id="build-4"),
        update(retentions).where(retentions.c.build_id.is_(None)).values(digest=None),
    )
    told = {(finding.kind, finding.reference) for finding in await found(stores, repair=True)}
    assert {reference for kind, reference in told if kind is FindingKind.RETENTION_ENDLESS} == {
        "build-2"
    }
    assert [kind for kind, _ in told].count(FindingKind.RETENTION_UNFOUNDED) == 3
    assert (FindingKind.BUILD_UNRETAINED, "build-3") in told


async def test_what_waits_for_a_builds_end_is_read_too(stores: Stores) -> None:
    for build_id in ("build1", "build2", "build3"):
        await push_image(stores, SIBLING, LAYER, tag=build_id, build_id=build_id)
    builds, staged_tags = schema.builds, schema.staged_tags
    assert await found(stores) == []
    await change(
        stores,
        update(builds).where(builds.c.id == "build1").values(status="failed"),
        update(schema.retentions)
        .where(schema.retentions.c.build_id == "build1")
        .values(expires_at=NOW + RETENTION),
        update(staged_tags).where(staged_tags.c.build_id == "build2").values(digest="sha256:none"),
    )
    told = {(finding.kind, finding.reference) for finding in await found(stores)}
    assert told == {(FindingKind.TAG_STRAY, "build1"), (FindingKind.TAG_LOST, "build2")}
    await verifier(stores).run(repair=True)
    assert {row.build_id for row in await rows(stores, staged_tags)} == {"build2", "build3"}


async def test_a_row_that_names_nothing_is_told(tmp_path: Path) -> None:
    # Of SQLite's rows alone: PostgreSQL never stops checking them.
    with opened(tmp_path) as stores:
        await push_image(stores, REPOSITORY, LAYER, tag="latest")
        await change(stores, update(schema.tags).values(retention_id=99))
        assert await kinds(stores) == [FindingKind.ROW_DANGLING]


async def test_a_damaged_database_is_told_and_nothing_else_relied_on(tmp_path: Path) -> None:
    with opened(tmp_path) as stores:
        await push_much(stores)
        name = "ix_tags_build_id"
        with stores.database.engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA writable_schema=ON")
            connection.exec_driver_sql(
                "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master"
                f" WHERE name = 'ix_retentions_ended_at') WHERE name = '{name}'"
            )
    with opened(tmp_path) as stores:
        result: Verification = await verifier(stores).run(repair=True)
        assert {finding.kind for finding in result.findings} == {FindingKind.DATABASE_DAMAGED}
        assert result.counts == {} and not result.is_well


# --- objects -------------------------------------------------------------------------------------


async def test_an_object_that_nothing_names_is_set_aside_once_it_is_old(stores: Stores) -> None:
    await push_much(stores)
    key = stores.blobs.place("cd" * 16)
    await overwrite(stores, key, b"of nobody")
    machine_now = datetime.now(NOW.tzinfo)
    # New: its row may be on its way.
    assert FindingKind.OBJECT_ORPHANED not in await kinds(stores, machine_now)
    later = machine_now + LEASE + timedelta(minutes=1)
    assert [
        finding.reference
        for finding in await found(stores, later)
        if finding.kind is FindingKind.OBJECT_ORPHANED
    ] == [key]
    (finding,) = [
        finding
        for finding in await found(stores, later, repair=True)
        if finding.kind is FindingKind.OBJECT_ORPHANED
    ]
    assert finding.is_repaired
    assert await stores.blobs.size(key) is None
    assert await set_aside(stores, key) == b"of nobody"
    assert FindingKind.OBJECT_ORPHANED not in await kinds(stores, later)
    assert await stores.registry.find_manifest(REPOSITORY, Tag("latest"), NOW)


async def test_an_upload_whose_acknowledged_bytes_are_gone_is_told(stores: Stores) -> None:
    upload_id = "ab" * 16
    key = stores.blobs.place(upload_id)
    parts = (Part(key, 5),)
    upload = Upload(upload_id, REPOSITORY, NOW + timedelta(hours=1), parts, None, frozenset({key}))
    await stores.uploads.create_upload(upload, NOW)
    (finding,) = await found(stores, repair=True)
    assert (finding.kind, finding.reference) == (FindingKind.UPLOAD_INCOMPLETE, upload_id)
    assert finding.repository == REPOSITORY.value


async def test_what_waits_for_the_collector_for_long_is_told_where_a_server_is_at_work(
    stores: Stores,
) -> None:
    await push_image(stores, REPOSITORY, LAYER, tag="latest")
    over = NOW + RETENTION
    assert await kinds(stores, over + timedelta(minutes=1), is_served=True) == []
    late = over + LEASE + timedelta(minutes=11)
    assert await kinds(stores, late) == []
    findings = await found(stores, late, is_served=True)
    assert {finding.kind for finding in findings} == {FindingKind.COLLECTION_LATE}
