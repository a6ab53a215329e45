"""Time is enforced when read, on every route, whether or not anything was collected."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from layover.builds.models import BuildStatus
from layover.identity.models import Principal
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_INDEX, OCI_MANIFEST
from layover.oci.names import RepositoryName
from tests.contract.registry_api import FOREIGNER, PULLER, USER, Answer, RegistryApi, builder
from tests.stores import (
    NOW,
    REPOSITORY,
    RETENTION,
    SAVES,
    SIBLING,
    Stores,
    add_build,
    descriptor,
    image,
    index,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

BUILD = "bcdefghijk"
SECOND = timedelta(seconds=1)


@pytest.fixture
def api(stores: Stores) -> RegistryApi:
    return RegistryApi(stores)


def ways_to_read(repository: RepositoryName, body: bytes, tag: str) -> dict[str, str]:
    """Each way to ask for an image of b"{}" and b"layer", as METHOD: path."""
    digest, layer = Digest.of(body), Digest.of(b"layer")
    return {
        f"{method} {what}": f"/v2/{repository}/{path}"
        for method in ("GET", "HEAD")
        for what, path in {
            "tag": f"manifests/{tag}",
            "digest": f"manifests/{digest}",
            "layer": f"blobs/{layer}",
            "config": f"blobs/{Digest.of(b'{}')}",
        }.items()
    }


async def statuses(
    api: RegistryApi,
    caller: Principal | str,
    body: bytes,
    tag: str,
    headers: dict[str, str] | None = None,
) -> set[int]:
    """How each way to read the image is answered."""
    return {
        (await api.call(caller, way.split()[0], path, headers=headers)).status
        for way, path in ways_to_read(REPOSITORY, body, tag).items()
    }


async def test_an_image_is_read_to_the_last_moment_and_no_way_after(api: RegistryApi) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    api.now = NOW + RETENTION - timedelta(microseconds=1)
    assert await statuses(api, PULLER, body, "v1") == {200}
    api.pass_by(timedelta(microseconds=1))
    for caller in (PULLER, USER):
        assert await statuses(api, caller, body, "v1") == {404}
        for conditions in ({"Range": "bytes=0-1"}, {"If-None-Match": "*"}, {"Accept": "*/*"}):
            assert await statuses(api, caller, body, "v1", conditions) == {404}
    etag = f'"{Digest.of(body)}"'
    assert await statuses(api, PULLER, body, "v1", {"If-None-Match": etag}) == {404}


async def test_what_is_over_is_on_no_list(api: RegistryApi) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    await push_image(api.stores, REPOSITORY, b"other", tag="v2", now=NOW + SECOND)
    subject = Digest.of(body)
    signature = image(subject=descriptor(OCI_MANIFEST, body))
    await put_manifest(api.stores, REPOSITORY, signature)
    lists = {
        f"/v2/{REPOSITORY}/tags/list": "tags",
        f"/v2/{REPOSITORY}/tags/list?n=1": "tags",
        f"/v2/{REPOSITORY}/tags/list?last=v0": "tags",
        f"/v2/{REPOSITORY}/referrers/{subject}": "manifests",
        "/v2/_catalog": "repositories",
    }

    async def listed() -> list[int]:
        return [
            len((await api.call(PULLER, "GET", path)).json()[key]) for path, key in lists.items()
        ]

    api.now = NOW + RETENTION - SECOND
    assert await listed() == [2, 1, 2, 1, 1]
    api.pass_by(SECOND)
    assert await listed() == [1, 1, 1, 0, 1]
    api.pass_by(SECOND)
    assert await listed() == [0, 0, 0, 0, 0]


async def test_what_is_over_is_neither_mounted_nor_named(api: RegistryApi) -> None:
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    digest = Digest.of(b"layer")
    mounts = [
        f"/v2/{SIBLING}/blobs/uploads/?mount={digest}&from={REPOSITORY}",
        f"/v2/{SIBLING}/blobs/uploads/?mount={digest}",
    ]
    api.now = NOW + RETENTION
    for path in mounts:
        # An upload is begun in place of the mount.
        assert (await api.call(USER, "POST", path)).status == 202
    answer = await push(api, USER, image(b"layer", annotations={"new": "one"}), "v2")
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert set(answer.detail["missing"]) == {str(digest), str(Digest.of(b"{}"))}
    api.now = NOW + RETENTION - SECOND
    for path in mounts:
        assert (await api.call(USER, "POST", path)).status == 201


async def test_a_builds_images_are_over_with_it_and_named_from_its_end_on(api: RegistryApi) -> None:
    for content in (b"{}", b"layer"):
        await push_blob(api.stores, SAVES, content)
    body = image(b"layer")
    await put_manifest(api.stores, SAVES, body, BUILD, BUILD)
    await put_manifest(api.stores, SAVES, index(body), f"{BUILD}-all", BUILD)
    reads = [
        f"/v2/{SAVES}/manifests/{reference}"
        for reference in (BUILD, f"{BUILD}-all", Digest.of(body), Digest.of(index(body)))
    ]

    async def answers(caller: Principal = PULLER, paths: Sequence[str] = reads) -> set[int]:
        return {(await api.call(caller, "GET", path)).status for path in paths}

    api.now = NOW + RETENTION * 2
    # Its own token alone finds it by its tags.
    assert await answers(paths=reads[:2]) == {404}
    assert await answers(paths=reads[2:]) == await answers(builder(BUILD)) == {200}
    answer = await api.call(PULLER, "GET", reads[2])
    assert "sunset" not in answer.headers, "it runs, nobody knows yet"
    await api.builds.end(BUILD, BuildStatus.FINISHED, None, api.now)
    api.pass_by(RETENTION - SECOND)
    assert await answers() == {200}
    assert await api.builds.keep(BUILD, api.now + RETENTION, api.now)
    api.pass_by(RETENTION - SECOND)
    assert await answers() == {200}
    answer = await api.call(PULLER, "GET", reads[0])
    assert parsedate_to_datetime(answer.headers["sunset"]) == api.now + SECOND
    api.pass_by(SECOND)
    assert await answers() == {404}
    blob = f"/v2/{SAVES}/blobs/{Digest.of(b'layer')}"
    assert (await api.call(PULLER, "GET", blob)).status == 404


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_what_is_gone_says_since_when_to_who_sees_the_project_alone(
    api: RegistryApi, is_deleted: bool
) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    for tag in ("deleted", "v2"):
        await put_manifest(api.stores, REPOSITORY, body, tag)
    if is_deleted:
        deleted = await api.call(USER, "DELETE", f"/v2/{REPOSITORY}/manifests/{Digest.of(body)}")
        assert deleted.status == 202
        detail = {"deletedAt": "2026-01-01T12:00:00Z"}
    else:
        api.now = NOW + RETENTION + SECOND
        detail = {"expiredAt": "2026-01-08T12:00:00Z"}
    for reference in ("v1", str(Digest.of(body))):
        path = f"/v2/{REPOSITORY}/manifests/{reference}"
        for caller in (USER, PULLER):
            answer = await api.call(caller, "GET", path)
            assert (answer.status, answer.code, answer.detail) == (404, "MANIFEST_UNKNOWN", detail)
        # To everybody else it is what never was.
        never = f"/v2/{REPOSITORY}/manifests/never"
        for stranger in (FOREIGNER, None):
            told = await api.call(stranger, "GET", path)
            assert told == without_id(told, await api.call(stranger, "GET", never))
    answer = await api.call(USER, "GET", f"/v2/{REPOSITORY}/manifests/never")
    assert (answer.code, answer.detail) == ("MANIFEST_UNKNOWN", None)


def without_id(as_: Answer, answer: Answer) -> Answer:
    """`answer` with the request ID of another one, which is all that may differ."""
    headers = {**answer.headers, "x-request-id": as_.headers["x-request-id"]}
    return Answer(answer.status, headers, answer.body)


async def test_a_deleted_tag_says_so_until_it_is_pushed_again(api: RegistryApi) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    path = f"/v2/{REPOSITORY}/manifests/v1"
    assert (await api.call(USER, "DELETE", path)).status == 202
    assert (await api.call(USER, "GET", path)).detail == {"deletedAt": "2026-01-01T12:00:00Z"}
    assert (
        await api.call(USER, "GET", f"/v2/{REPOSITORY}/manifests/{Digest.of(body)}")
    ).status == (200)
    assert (await push(api, USER, body, "v1")).status == 201
    assert (await api.call(USER, "GET", path)).status == 200


async def test_an_answer_says_when_the_image_is_gone(api: RegistryApi) -> None:
    api.now = NOW + timedelta(milliseconds=1)
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1", now=api.now)
    for method in ("GET", "HEAD"):
        answer = await api.call(PULLER, method, f"/v2/{REPOSITORY}/manifests/v1")
        sunset = parsedate_to_datetime(answer.headers["sunset"])
        assert sunset == NOW + RETENTION + SECOND
    api.now = sunset - timedelta(microseconds=1)
    assert (await api.call(PULLER, "GET", f"/v2/{REPOSITORY}/manifests/v1")).status == 200
    api.now = sunset
    assert (await api.call(PULLER, "GET", f"/v2/{REPOSITORY}/manifests/v1")).status == 404


@pytest.mark.parametrize("extends", [False, True])
async def test_a_pull_extends_a_life_only_where_the_project_says_so(
    api: RegistryApi, extends: bool
) -> None:
    await api.policy(extends_on_pull=extends)
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    api.now = NOW + RETENTION - SECOND
    path = f"/v2/{REPOSITORY}/manifests/v1"
    looked = await api.call(PULLER, "HEAD", path)
    assert parsedate_to_datetime(looked.headers["sunset"]) == NOW + RETENTION
    pulled = await api.call(PULLER, "GET", path)
    until = api.now + RETENTION if extends else NOW + RETENTION
    assert parsedate_to_datetime(pulled.headers["sunset"]) == until
    api.now = until - SECOND
    assert (await api.call(PULLER, "HEAD", path)).status == 200
    api.now = until
    assert (await api.call(PULLER, "GET", path)).status == 404
    # What is over does not come back by being pulled.
    assert (await api.call(PULLER, "GET", path)).status == 404


async def test_a_registry_token_is_worth_what_its_token_is_worth(api: RegistryApi) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    puller = Principal("short", PULLER.kind, "org", project_id="mine")
    await api.token(puller, until=NOW + timedelta(minutes=1))
    token = await api.registry_token(puller, f"repository:{REPOSITORY}:pull")
    assert await statuses(api, token, body, "v1") == {200}
    api.now = NOW + timedelta(minutes=1)
    assert await statuses(api, token, body, "v1") == {401}
    assert (await api.call(puller, "GET", "/token")).status == 401


async def push(
    api: RegistryApi,
    caller: Principal | str,
    body: bytes,
    reference: str,
    repository: RepositoryName = REPOSITORY,
) -> Answer:
    """Push a manifest, as its type says."""
    kind = OCI_INDEX if b"manifests" in body else OCI_MANIFEST
    path = f"/v2/{repository}/manifests/{reference}"
    return await api.call(caller, "PUT", path, body, {"Content-Type": kind})


async def test_a_push_that_finds_the_manifest_counts_as_one(api: RegistryApi) -> None:
    # docker looks by HEAD with a registry token that may push, and sends nothing that is there.
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    scope = f"repository:{REPOSITORY}:pull"

    async def sunset_after(token: Principal | str, method: str) -> datetime:
        path = f"/v2/{REPOSITORY}/manifests/{Digest.of(body)}"
        answer = await api.call(token, method, path)
        return parsedate_to_datetime(answer.headers["sunset"])

    api.now = NOW + timedelta(days=1)
    pulls = await api.registry_token(USER, scope)
    pushes = await api.registry_token(USER, f"{scope},push")
    may_not = await api.registry_token(PULLER, f"{scope},push")
    for token, method in ((pulls, "HEAD"), (pushes, "GET"), (may_not, "HEAD"), (USER, "HEAD")):
        assert await sunset_after(token, method) == NOW + RETENTION
    assert await sunset_after(pushes, "HEAD") == api.now + RETENTION


async def test_a_build_that_ends_takes_nothing_more(api: RegistryApi) -> None:
    await add_build(api.stores, SAVES, BUILD)
    own = builder(BUILD)
    for content in (b"{}", b"layer"):
        await push_blob(api.stores, SAVES, content)
    assert (await push(api, own, image(b"layer"), BUILD, SAVES)).status == 201
    await api.builds.end(BUILD, BuildStatus.FINISHED, None, api.now)
    late = await push(api, own, image(b"layer", annotations={"late": "yes"}), BUILD, SAVES)
    assert (late.status, late.code) == (403, "DENIED")
