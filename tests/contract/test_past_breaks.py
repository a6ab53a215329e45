"""The ways in which registries have been broken before, each by what has to hold instead.

docs/security.md names them, with their numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, Executable, delete, event, insert, update
from sqlalchemy.engine import Engine

from layover.adapters.sql.schema import memberships, projects, tokens, users
from layover.identity.models import Principal, Role, TokenKind
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from layover.oci.names import RepositoryName
from tests.contract.registry_api import FOREIGNER, PROJECT, PULLER, USER, Answer, RegistryApi
from tests.contract.registry_api import builder as build_token
from tests.stores import (
    FOREIGN,
    LEASE,
    NOW,
    REPOSITORY,
    SAVES,
    SIBLING,
    Stores,
    add_build,
    finish,
    image,
    push_blob,
    push_image,
)

pytestmark = pytest.mark.anyio

BUILD = "bcdefghijk"


@pytest.fixture
def api(stores: Stores) -> RegistryApi:
    return RegistryApi(stores)


def told(answer: Answer, *names: str) -> tuple[int, dict[str, str], str]:
    """All of an answer, but for what was asked for and the answer's own ID."""
    text = answer.body.decode()
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    for name in names:
        text = text.replace(name, "IT")
        headers = {key: value.replace(name, "IT") for key, value in headers.items()}
    return answer.status, headers, text


async def put(api: RegistryApi, caller: Principal, path: str, body: bytes) -> Answer:
    return await api.call(caller, "PUT", path, body, {"Content-Type": OCI_MANIFEST})


# --- bytes that are stored once -------------------------------------------------------------------


async def test_a_digest_opens_a_blob_through_no_repository_but_those_that_show_it(
    api: RegistryApi,
) -> None:
    # CVE-2024-39897.
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    layer = Digest.of(b"layer")
    for caller, repository in ((FOREIGNER, FOREIGN), (USER, SIBLING), (PULLER, SIBLING)):
        for path in (f"blobs/{layer}", f"manifests/{Digest.of(body)}", f"referrers/{layer}"):
            for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": f'"{layer}"'}):
                answer = await api.call(caller, "GET", f"/v2/{repository}/{path}", headers=headers)
                if path.startswith("referrers"):
                    assert answer.json()["manifests"] == []
                else:
                    assert answer.status == 404
        if caller is not PULLER:
            # Nor is it brought along by a manifest that names it.
            named = await put(api, caller, f"/v2/{repository}/manifests/mine", body)
            assert (named.status, named.code) == (400, "MANIFEST_BLOB_UNKNOWN")


async def test_a_deleted_blob_is_read_on_no_route_of_any_replica(api: RegistryApi) -> None:
    # CVE-2026-35172: there are no caches to be stale, however often it was read before.
    # Its layer goes with the manifest that needed it.
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    digest, layer = Digest.of(body), Digest.of(b"layer")
    paths = [f"/v2/{REPOSITORY}/{rest}" for rest in (f"blobs/{layer}", f"manifests/{digest}")]
    with api.stores.replica() as stores:
        other = RegistryApi(stores, secrets=api.secrets)
        for replica in (api, other, api, other):
            for path in paths:
                assert (await replica.call(PULLER, "GET", path)).status == 200
        assert (await api.call(USER, "DELETE", paths[1])).status == 202
        for replica in (api, other):
            for path in paths:
                etag = f'"{path.rpartition("/")[2]}"'
                for headers in ({}, {"Range": "bytes=0-0"}, {"If-None-Match": etag}):
                    for method in ("GET", "HEAD"):
                        answer = await replica.call(PULLER, method, path, headers=headers)
                        assert answer.status == 404, (method, path, headers)


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    found: list[str] = []

    def keep(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        # What was done is written down beside it, for several requests at once.
        if "audit" not in statement and not statement.startswith("BEGIN"):
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", keep)


async def test_a_mount_from_where_one_may_not_read_is_one_from_nowhere(api: RegistryApi) -> None:
    # In its status, its text, and in what the database is asked for it.
    secret = await push_blob(api.stores, FOREIGN, b"secret")
    never = Digest.of(b"never")
    uploads = f"/v2/{REPOSITORY}/blobs/uploads/?mount="
    # So that nobody's is the first of the repository.
    assert (await api.call(USER, "POST", f"{uploads}{never}")).status == 202
    seen = {}
    for name, path in {
        "there": f"{uploads}{secret}&from={FOREIGN}",
        "nowhere": f"{uploads}{never}&from={FOREIGN}",
        "no repository": f"{uploads}{secret}&from=foreign/nil",
        "no project": f"{uploads}{secret}&from=unknown/app",
    }.items():
        with statements() as asked:
            answer = await api.call(USER, "POST", path)
        assert answer.status == 202
        upload = answer.headers["docker-upload-uuid"]
        seen[name] = (told(answer, upload), asked)
    for each in seen.values():
        assert each == seen["there"]
    for caller in (USER, PULLER):
        blob = await api.call(caller, "GET", f"/v2/{REPOSITORY}/blobs/{secret}")
        assert blob.status == 404


# --- upload sessions ------------------------------------------------------------------------------


async def test_an_upload_session_is_its_repositorys_alone(api: RegistryApi) -> None:
    # CVE-2026-32589.
    started = await api.call(USER, "POST", f"/v2/{REPOSITORY}/blobs/uploads/")
    own, upload = started.headers["location"], started.headers["docker-upload-uuid"]
    assert (await api.call(USER, "PATCH", own, b"half")).status == 202
    whole = Digest.of(b"halfstolen")
    for caller, repository in ((FOREIGNER, FOREIGN), (FOREIGNER, REPOSITORY), (USER, SIBLING)):
        path = f"/v2/{repository}/blobs/uploads/"
        for method, query, body in (
            ("GET", "", b""),
            ("PATCH", "", b"stolen"),
            ("PUT", f"?digest={whole}", b"stolen"),
            ("DELETE", "", b""),
        ):
            answer = await api.call(caller, method, f"{path}{upload}{query}", body)
            assert answer.status == 404, (caller, repository, method)
            missing = await api.call(caller, method, f"{path}{'0' * len(upload)}{query}", body)
            assert told(answer, upload) == told(missing, "0" * len(upload))
    # As if nobody had been there.
    status = await api.call(USER, "GET", own)
    assert (status.status, status.headers["range"]) == (204, "0-3")
    digest = Digest.of(b"half and half")
    assert (await api.call(USER, "PUT", f"{own}?digest={digest}", b" and half")).status == 201


# --- rights that are gone -------------------------------------------------------------------------


async def add_user(api: RegistryApi, role: Role) -> Principal:
    """A member of the organization, with a token."""
    user = Principal(f"{role}-token", TokenKind.USER, user_id=f"user-{role}")
    await execute(
        api,
        insert(users).values(id=user.user_id, name=user.user_id, is_admin=False, created_at=NOW),
        insert(memberships).values(
            user_id=user.user_id, organization_id="org", role=role.value, created_at=NOW
        ),
    )
    return user


async def execute(api: RegistryApi, *statements: Executable) -> None:
    def work(connection: Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    await api.stores.database.write(work)


async def test_a_member_who_is_removed_has_lost_all_with_the_next_request(
    api: RegistryApi,
) -> None:
    # CVE-2025-23208. Also what a registry token got before, on every replica.
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    member = await add_user(api, Role.MEMBER)
    traded = await api.registry_token(member, f"repository:{REPOSITORY}:*", "registry:catalog:*")
    requests = [
        ("GET", f"/v2/{REPOSITORY}/manifests/v1"),
        ("GET", f"/v2/{REPOSITORY}/blobs/{Digest.of(b'layer')}"),
        ("GET", f"/v2/{REPOSITORY}/tags/list"),
        ("POST", f"/v2/{REPOSITORY}/blobs/uploads/"),
    ]
    with api.stores.replica() as stores:
        replicas = [api, RegistryApi(stores, secrets=api.secrets)]
        for replica in replicas:
            for caller in (member, traded):
                for method, path in requests:
                    assert (await replica.call(caller, method, path)).status < 300
        await execute(api, delete(memberships).where(memberships.c.user_id == member.user_id))
        for replica in replicas:
            for caller in (member, traded):
                for method, path in requests:
                    answer = await replica.call(caller, method, path)
                    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
                catalog = await replica.call(caller, "GET", "/v2/_catalog")
                assert catalog.json() == {"repositories": []}


async def test_a_revoked_token_opens_nothing_with_the_next_request_to_any_replica(
    api: RegistryApi,
) -> None:
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    traded = await api.registry_token(PROJECT, f"repository:{REPOSITORY}:*")
    path = f"/v2/{REPOSITORY}/manifests/v1"
    with api.stores.replica() as stores:
        replicas = [api, RegistryApi(stores, secrets=api.secrets)]
        for replica in replicas:
            for caller in (PROJECT, traded):
                assert (await replica.call(caller, "GET", path)).status == 200
        revoked = update(tokens).where(tokens.c.id == PROJECT.token_id)
        await execute(api, revoked.values(revoked_at=NOW))
        for replica in replicas:
            for caller in (PROJECT, traded):
                answer = await replica.call(caller, "GET", path)
                assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


async def test_a_member_who_became_a_viewer_pushes_no_more_with_what_it_was_given_before(
    api: RegistryApi,
) -> None:
    member = await add_user(api, Role.MEMBER)
    traded = await api.registry_token(member, f"repository:{REPOSITORY}:*")
    demoted = update(memberships).where(memberships.c.user_id == member.user_id)
    await execute(api, demoted.values(role=Role.VIEWER.value))
    for caller in (member, traded):
        answer = await api.call(caller, "POST", f"/v2/{REPOSITORY}/blobs/uploads/")
        assert (answer.status, answer.code) == (403, "DENIED")


async def test_a_token_that_outlives_its_project_opens_no_later_one_of_that_name(
    api: RegistryApi,
) -> None:
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    callers: list[Principal | str] = [PROJECT, PULLER, build_token(BUILD), USER]
    for caller in list(callers):
        assert isinstance(caller, Principal)
        callers.append(await api.registry_token(caller, "repository:mine/app:*"))
    gone = update(projects).where(projects.c.id == "mine").values(deleted_at=NOW)
    later = insert(projects).values(
        id="later",
        # By the name that the other one had, in the same organization.
        name="mine",
        organization_id="org",
        created_at=NOW,
        retention_seconds=3600,
        max_retention_seconds=3600,
        extends_on_pull=False,
    )
    await execute(api, gone, later)
    await push_image(api.stores, RepositoryName("later/app"), b"layer", tag="v1")
    for caller in callers:
        is_users = caller in (USER, callers[-1])
        for project_id, is_there in (("mine", False), ("later", is_users)):
            path = f"/v2/{project_id}/app/manifests/v1"
            if not isinstance(caller, str):
                answer = await api.call(caller, "GET", path)
                assert answer.status == (200 if is_there else 404), (caller, path)
            elif project_id == "mine":
                assert (await api.call(caller, "GET", path)).status == 404, path
    # No project gets an ID that another one had: the row of the one that is gone keeps it.


# --- tags -----------------------------------------------------------------------------------------


async def test_who_may_only_create_moves_no_tag_and_what_is_protected_by_tag_is_by_digest(
    api: RegistryApi,
) -> None:
    # CVE-2026-31801.
    await push_image(api.stores, SAVES, b"latest", tag="latest")
    latest = image(b"latest")
    await add_build(api.stores, SAVES, BUILD)
    own = build_token(BUILD)
    saved = await push_image(api.stores, SAVES, b"layer", tag=BUILD, build_id=BUILD)
    path = "/v2/mine/manifests"
    for target in (f"{path}/latest", f"{path}/{Digest.of(saved)}?tag=latest"):
        assert (await put(api, own, target, saved)).status == 403
    for has_ended, caller in product((False, True), (USER, PROJECT)):
        if has_ended:
            await finish(api.stores, BUILD)
        other = image(b"layer", annotations={"by": "another"})
        for target in (f"{path}/{BUILD}", f"{path}/{Digest.of(other)}?tag={BUILD}"):
            assert (await put(api, caller, target, other)).status == 403
        for reference in (BUILD, Digest.of(saved)):
            answer = await api.call(caller, "DELETE", f"{path}/{reference}")
            assert (answer.status, answer.code) == (403, "DENIED")
        # Nor does a tag of one's own on the same image open the way.
        assert (await put(api, caller, f"{path}/mine", saved)).status == 201
        answer = await api.call(caller, "DELETE", f"{path}/{Digest.of(saved)}")
        assert (answer.status, answer.code) == (403, "DENIED")
    for reference, body in (("latest", latest), (BUILD, saved), (str(Digest.of(saved)), saved)):
        assert (await api.call(PULLER, "GET", f"{path}/{reference}")).body == body


async def test_a_lease_on_what_was_deleted_shows_it_to_nobody(api: RegistryApi) -> None:
    # A push that was told of it may name it; a reader of the same repository sees nothing.
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    digest = Digest.of(body)
    path = f"/v2/{REPOSITORY}/manifests/{digest}"
    assert (await api.call(USER, "HEAD", path)).status == 200
    assert (await api.call(USER, "DELETE", path)).status == 202
    api.pass_by(LEASE - timedelta(seconds=1))
    for caller in (PULLER, USER):
        assert (await api.call(caller, "GET", path)).status == 404
