"""What every ProjectStore does, on every database; and that nothing of a deleted project stays."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import insert, select

from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.push_source import SqlPushSource
from layover.adapters.sql.pushes import SqlPushStore
from layover.adapters.sql.retention import SqlRetentionStore
from layover.adapters.sql.schema import blobs, manifests, tags, trust_policies
from layover.builds.models import BuildStatus
from layover.identity.models import (
    OrganizationUnknown,
    Project,
    ProjectPolicy,
    TokenKind,
)
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName, Tag
from layover.oci.references import Destination, Place
from layover.promotion.models import Push, PushStatus
from layover.registry.models import Upload
from layover.retention.collector import Collector
from layover.retention.receipts import ReceiptService
from tests.contract.tenants import Tenants, owner
from tests.stores import FOREIGN, NOW, REPOSITORY, SIBLING, Stores, push_blob, push_image

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@pytest.fixture
async def tenants(stores: Stores) -> Tenants:
    tenants = Tenants(stores)
    await tenants.add_users()
    return tenants


def project(project_id: str, organization_id: str = "org") -> Project:
    policy = ProjectPolicy(HOUR, 2 * HOUR, extends_on_pull=True, quota_bytes=1 << 40)
    return Project(project_id, "A name", organization_id, organization_id, NOW, policy)


async def clear(tenants: Tenants, now: datetime = NOW, limit: int = 100) -> int:
    count = 0
    while cleared := await tenants.projects.clear_project("mine", now, limit):
        count += cleared
    return count


async def collect(stores: Stores, now: datetime = NOW) -> None:
    retention = SqlRetentionStore(stores.database)
    collector = Collector(
        retention,
        stores.blobs,
        ReceiptService(retention, b"k" * 32, lambda: now, HOUR),
        lambda: now,
        "a test",
        HOUR,
        timedelta(seconds=1),
    )
    assert await collector.run_once()


async def test_a_project_is_found_as_it_was_made(tenants: Tenants) -> None:
    assert await tenants.projects.count_projects("org") == 1
    new = project("new")
    await tenants.projects.add_project(new)
    assert await tenants.stores.identity.find_project("new") == new
    assert await tenants.projects.count_projects("org") == 2
    assert await tenants.projects.count_projects("unknown") == 0


async def test_a_project_is_renamed_with_its_policy(tenants: Tenants) -> None:
    store = tenants.stores.identity
    renamed = await store.change_policy("mine", lambda policy: policy, "Called this")
    assert renamed is not None
    assert renamed.name == "Called this"
    kept = await store.change_policy("mine", lambda policy: policy)
    assert kept == renamed == await store.find_project("mine")


async def test_no_project_is_made_in_a_deleted_organization(tenants: Tenants) -> None:
    await tenants.projects.delete_project("mine", NOW)
    await tenants.organizations.delete_organization("org", owner(), NOW)
    for organization_id in ("org", "unknown"):
        with pytest.raises(OrganizationUnknown):
            await tenants.projects.add_project(project("new", organization_id))


async def test_a_deleted_project_is_gone_at_once_with_its_tokens_policies_and_builds(
    tenants: Tenants,
) -> None:
    stores = tenants.stores
    await tenants.token("project", TokenKind.PROJECT, project_id="mine", created_by="owner")
    await tenants.token("build", TokenKind.BUILD, project_id="mine", build_id="build")
    await tenants.token("organization", TokenKind.ORGANIZATION, created_by="owner")
    with stores.database.engine.begin() as connection:
        for project_id in ("mine", "foreign"):
            connection.execute(
                insert(trust_policies).values(
                    id=f"of-{project_id}",
                    project_id=project_id,
                    name="ci",
                    provider="generic",
                    issuer="https://issuer.example",
                    audience="layover",
                    claims="{}",
                    grants="pull",
                    created_at=NOW,
                )
            )
    await push_image(stores, REPOSITORY, b"layer", build_id="build")
    assert await tenants.projects.delete_project("mine", NOW)
    assert not await tenants.projects.delete_project("mine", NOW)
    assert not await tenants.projects.delete_project("unknown", NOW)
    assert await stores.identity.find_project("mine") is None
    assert await stores.identity.list_projects(["org"]) == []
    assert await tenants.projects.count_projects("org") == 0
    assert await stores.identity.change_policy("mine", lambda policy: policy, "x") is None
    assert await tenants.projects.deleted_projects() == [("mine", NOW)]
    assert not await tenants.lives("project")
    assert not await tenants.lives("build")
    assert await tenants.lives("organization")
    build = await SqlBuildStore(stores.database).find("build")
    assert build is not None
    assert (build.status, build.error) == (BuildStatus.CANCELED, "its project was deleted")
    with stores.database.engine.begin() as connection:
        assert connection.scalars(select(trust_policies.c.id)).all() == ["of-foreign"]


async def test_the_collector_frees_all_that_was_in_a_deleted_project_and_nothing_else(
    tenants: Tenants,
) -> None:
    stores = tenants.stores
    await push_image(stores, REPOSITORY, b"layer", build_id="build")
    await push_image(stores, SIBLING, b"another", b"shared", tag="latest")
    await push_image(stores, FOREIGN, b"theirs", b"shared", tag="latest")
    # Brought a moment ago, and named by nothing yet: leased to whoever brought it.
    await push_blob(stores, REPOSITORY, b"unnamed")
    upload = Upload("session", REPOSITORY, NOW + HOUR, places=frozenset({"place"}))
    await stores.uploads.create_upload(upload, NOW)
    await tenants.projects.delete_project("mine", NOW)
    # The build, the push, the session; then what is leased.
    assert await clear(tenants, limit=1) > 3
    assert await clear(tenants) == 0
    assert await stores.uploads.find_upload(REPOSITORY, "session", NOW) is None
    assert await stores.uploads.expired_uploads(NOW) == {"session"}
    await collect(stores)
    with stores.database.engine.begin() as connection:
        kept = connection.scalars(select(blobs.c.size_bytes)).all()
        assert sorted(kept) == sorted(len(each) for each in (b"{}", b"theirs", b"shared"))
        assert len(connection.scalars(select(manifests.c.digest)).all()) == 1
        assert len(connection.scalars(select(tags.c.name)).all()) == 1
    assert await SqlBuildStore(stores.database).find("build") is None


async def test_what_comes_into_a_deleted_project_afterwards_goes_too(tenants: Tenants) -> None:
    stores = tenants.stores
    await tenants.projects.delete_project("mine", NOW)
    assert await clear(tenants) == 0
    # By a request that was authorized before.
    await push_image(stores, RepositoryName("mine/late"), b"late", tag="latest", now=NOW)
    assert await clear(tenants) > 0
    await collect(stores)
    with stores.database.engine.begin() as connection:
        assert connection.scalars(select(blobs.c.digest)).all() == []


async def test_a_project_that_is_not_deleted_is_not_cleared_by_anothers_end(
    tenants: Tenants,
) -> None:
    await push_image(tenants.stores, FOREIGN, b"theirs", tag="latest")
    await tenants.projects.delete_project("mine", NOW)
    await clear(tenants)
    await collect(tenants.stores)
    with tenants.stores.database.engine.begin() as connection:
        assert len(connection.scalars(select(blobs.c.digest)).all()) == 2


async def test_pushes_from_a_deleted_project_stop_and_hold_up_nothing(tenants: Tenants) -> None:
    stores = tenants.stores
    store = SqlPushStore(stores.database)
    source = SqlPushSource(stores.database, stores.blobs)
    body = await push_image(stores, REPOSITORY, b"layer", tag="v1")
    content = REPOSITORY, [Digest.of(body)], [Digest.of(b"layer"), Digest.of(b"{}")]
    for push_id in ("runs", "waits"):
        await store.add(_push(push_id), 10)
        await store.keep_sealed(push_id, {_PLACE: b"sealed"})
    await store.add(_push("theirs", "foreign"), 10)
    claim = await store.claim("server", NOW, NOW + HOUR, 1)
    assert claim is not None and claim.push.id == "runs"
    assert await source.keep(*content, NOW, HOUR)
    await tenants.projects.delete_project("mine", NOW)
    runs, waits, theirs = [await store.find(one) for one in ("runs", "waits", "theirs")]
    assert runs and waits and theirs
    assert (runs.status, runs.is_canceled) == (PushStatus.RUNNING, True)
    assert (waits.status, waits.is_canceled) == (PushStatus.CANCELED, True)
    assert await store.sealed("waits") == {}
    assert not theirs.is_canceled
    # By a request that was authorized before.
    await store.add(_push("late"), 10)
    assert await clear(tenants, limit=1) > 0
    late = await store.find("late")
    assert late and late.is_canceled
    # Its server does not know yet that it is to stop.
    assert not await source.keep(*content, NOW, HOUR)
    assert await clear(tenants) == 0
    await collect(stores)
    with stores.database.engine.begin() as connection:
        assert connection.scalars(select(blobs.c.digest)).all() == []
    assert await store.end("runs", "server", PushStatus.CANCELED, None, NOW)
    assert await store.sealed("runs") == {}


_PLACE = Place("registry.example", RepositoryName("acme/app"))


def _push(push_id: str, project_id: str = "mine") -> Push:
    return Push(
        id=push_id,
        project_id=project_id,
        build_id="build",
        target="",
        source=Digest.of(b"image"),
        destinations=(Destination(_PLACE, Tag("v1")),),
        created_at=NOW,
        created_by="Ann",
    )
