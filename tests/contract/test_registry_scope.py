"""A pull token for one build opens what that build retains, and nothing else of its project."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from layover.builds.models import BuildStatus
from layover.identity.models import Principal, TokenKind
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_INDEX, OCI_MANIFEST
from tests.contract.registry_api import PULLER, USER, Answer, RegistryApi, builder
from tests.stores import (
    NOW,
    REPOSITORY,
    RETENTION,
    SAVES,
    Stores,
    descriptor,
    finish,
    image,
    index,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

BUILD, OTHER = "bcdefghijk", "cdefghijkl"
NEVER = "f" * 64
ATTESTATION = {"vnd.docker.reference.type": "attestation-manifest"}


def puller(build_id: str) -> Principal:
    """What `layover pull` gets: a token that pulls one build."""
    return Principal(
        f"pulls-{build_id}", TokenKind.PULL, "org", project_id="mine", build_id=build_id
    )


@pytest.fixture
def api(stores: Stores) -> RegistryApi:
    return RegistryApi(stores)


async def save(api: RegistryApi, build_id: str, *layers: bytes, tag: str | None = None) -> bytes:
    """Save an index of an image for one platform and its attestation, as BuildKit does."""
    config = f'{{"of": "{build_id}"}}'.encode()
    for content in (config, b"{}", *layers, b"statement"):
        await push_blob(api.stores, SAVES, content, api.now)
    child = image(*layers, config=config)
    attestation = image(b"statement", annotations=ATTESTATION)
    for body in (child, attestation):
        await put_manifest(api.stores, SAVES, body, None, build_id, api.now)
    body = index(child, attestation)
    await put_manifest(api.stores, SAVES, body, tag or build_id, build_id, api.now)
    return body


def paths_of(build_id: str, *layers: bytes) -> list[str]:
    """All that a client asks for to pull what `save` saved."""
    config = f'{{"of": "{build_id}"}}'.encode()
    child, attestation = image(*layers, config=config), image(b"statement", annotations=ATTESTATION)
    whole = index(child, attestation)
    return [
        f"/v2/mine/manifests/{build_id}",
        *(f"/v2/mine/manifests/{Digest.of(body)}" for body in (whole, child, attestation)),
        *(f"/v2/mine/blobs/{Digest.of(content)}" for content in (config, *layers, b"statement")),
    ]


def told(answer: Answer, *names: str) -> tuple[int, Mapping[str, str], str]:
    """All of an answer, but for what was asked for."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    text = answer.body.decode()
    for name in names:
        text = text.replace(name, "IT")
    headers.pop("content-length", None)
    return answer.status, headers, text


async def test_a_builds_pull_token_pulls_all_that_its_build_saved(api: RegistryApi) -> None:
    await save(api, BUILD, b"shared", b"own")
    await save(api, OTHER, b"shared", b"theirs")
    await finish(api.stores, BUILD)
    own = puller(BUILD)
    traded = await api.registry_token(own, "repository:mine:pull")
    for caller in (own, traded):
        for path in paths_of(BUILD, b"shared", b"own"):
            for method in ("GET", "HEAD"):
                answer = await api.call(caller, method, path)
                assert answer.status == 200, (method, path)
            part = await api.call(caller, "GET", path, headers={"Range": "bytes=0-1"})
            assert part.status == (206 if "/blobs/" in path else 200)


async def test_a_builds_pull_token_opens_nothing_of_another_build(api: RegistryApi) -> None:
    await save(api, BUILD, b"shared", b"own")
    await save(api, OTHER, b"shared", b"theirs")
    await finish(api.stores, BUILD, OTHER)
    # What was pushed beside the builds, and what lies there without a manifest, is theirs no more.
    await push_image(api.stores, SAVES, b"pushed", tag="v1")
    await push_image(api.stores, REPOSITORY, b"pushed", tag="v1")
    await push_blob(api.stores, SAVES, b"uploaded")
    shared = set(paths_of(BUILD, b"shared", b"own"))
    others = [path for path in paths_of(OTHER, b"shared", b"theirs") if path not in shared]
    others += [
        "/v2/mine/manifests/v1",
        f"/v2/mine/manifests/{Digest.of(image(b'pushed'))}",
        f"/v2/mine/blobs/{Digest.of(b'pushed')}",
        f"/v2/mine/blobs/{Digest.of(b'uploaded')}",
        f"/v2/{REPOSITORY}/manifests/v1",
        f"/v2/{REPOSITORY}/manifests/{Digest.of(image(b'pushed'))}",
        f"/v2/{REPOSITORY}/blobs/{Digest.of(b'pushed')}",
    ]
    assert len(others) >= 11
    own = puller(BUILD)
    traded = await api.registry_token(
        own, "repository:mine:pull,push", f"repository:{REPOSITORY}:pull,push"
    )
    for path in others:
        assert (await api.call(PULLER, "GET", path)).status == 200, path
        name = path.rpartition("/")[2].removeprefix("sha256:")
        never = path.replace(name, NEVER if len(name) == 64 else "never")
        for caller in (own, traded):
            for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"}, {"Accept": "*/*"}):
                for method in ("GET", "HEAD"):
                    found = await api.call(caller, method, path, headers=headers)
                    assert found.status == 404, (method, path, headers)
                    missing = await api.call(caller, method, never, headers=headers)
                    assert told(found, name) == told(missing, NEVER, "never"), (method, path)


async def test_what_another_build_shares_is_read_in_its_own_repository_alone(
    api: RegistryApi,
) -> None:
    await save(api, BUILD, b"shared")
    await push_image(api.stores, REPOSITORY, b"shared", tag="v1")
    blob = f"blobs/{Digest.of(b'shared')}"
    assert (await api.call(puller(BUILD), "GET", f"/v2/mine/{blob}")).status == 200
    assert (await api.call(puller(BUILD), "GET", f"/v2/{REPOSITORY}/{blob}")).status == 404


async def test_a_builds_pull_token_lists_what_is_its_builds_alone(api: RegistryApi) -> None:
    own_index = await save(api, BUILD, b"own")
    other_index = await save(api, OTHER, b"theirs")
    await put_manifest(api.stores, SAVES, own_index, f"{BUILD}-web", BUILD)
    await put_manifest(api.stores, SAVES, own_index, "saved", BUILD)
    await put_manifest(api.stores, SAVES, own_index, "theirs", OTHER)
    await put_manifest(api.stores, SAVES, own_index, "pushed")
    await push_image(api.stores, REPOSITORY, b"pushed", tag="v1")
    signatures = {}
    for build_id, body in ((BUILD, own_index), (OTHER, other_index)):
        signature = image(subject=descriptor(OCI_INDEX, body))
        signatures[build_id] = Digest.of(signature)
        await put_manifest(api.stores, SAVES, signature, None, build_id)
    await finish(api.stores, BUILD)
    own = puller(BUILD)
    for query, expected in (
        ("", [BUILD, f"{BUILD}-web", "saved"]),
        ("?n=2", [BUILD, f"{BUILD}-web"]),
        (f"?last={BUILD}-web", ["saved"]),
        ("?n=0", []),
    ):
        answer = await api.call(own, "GET", f"/v2/mine/tags/list{query}")
        assert answer.json() == {"name": "mine", "tags": expected}
    empty = await api.call(own, "GET", f"/v2/{REPOSITORY}/tags/list")
    missing = await api.call(own, "GET", "/v2/mine/nothing/tags/list")
    assert told(empty, REPOSITORY.value) == told(missing, "mine/nothing")

    async def referrers(body: bytes) -> list[str]:
        answer = await api.call(own, "GET", f"/v2/mine/referrers/{Digest.of(body)}")
        return [one["digest"] for one in answer.json()["manifests"]]

    assert await referrers(own_index) == [str(signatures[BUILD])]
    assert await referrers(other_index) == []
    catalog = await api.call(own, "GET", "/v2/_catalog")
    assert catalog.json() == {"repositories": ["mine"]}
    # A save tag that moved on is the other build's, and no more this one's.
    await put_manifest(api.stores, SAVES, other_index, "saved", OTHER)
    await finish(api.stores, OTHER)
    assert (await api.call(own, "GET", "/v2/mine/manifests/saved")).status == 404
    answer = await api.call(own, "GET", "/v2/mine/tags/list")
    assert answer.json()["tags"] == [BUILD, f"{BUILD}-web"]


async def test_a_builds_pull_token_mounts_pushes_and_deletes_nothing(api: RegistryApi) -> None:
    await save(api, BUILD, b"own")
    own = puller(BUILD)
    layer, target = Digest.of(b"own"), f"/v2/{REPOSITORY}/blobs/uploads/"
    for method, path in (
        ("POST", f"{target}?mount={layer}&from=mine"),
        ("POST", f"{target}?mount={layer}&from=mine/nothing"),
        ("POST", f"{target}?mount={layer}"),
        ("POST", target),
        ("PUT", f"/v2/mine/manifests/{BUILD}"),
        ("DELETE", f"/v2/mine/manifests/{BUILD}"),
        ("DELETE", f"/v2/mine/blobs/{layer}"),
    ):
        answer = await api.call(own, method, path)
        assert (answer.status, answer.code) == (403, "DENIED"), (method, path)


async def test_a_builds_pull_token_reads_what_its_build_retains_only_while_it_lives(
    api: RegistryApi,
) -> None:
    # The same image lives on as another build's: of that the token knows nothing, nor its end.
    body = await push_image(api.stores, SAVES, b"layer", tag=BUILD, build_id=BUILD)
    await push_image(api.stores, SAVES, b"layer", tag=OTHER, build_id=OTHER)
    await api.builds.end(BUILD, BuildStatus.FINISHED, None, api.now)
    paths = [
        f"/v2/mine/manifests/{BUILD}",
        f"/v2/mine/manifests/{Digest.of(body)}",
        f"/v2/mine/blobs/{Digest.of(b'layer')}",
    ]
    own = puller(BUILD)
    answer = await api.call(own, "GET", paths[1])
    assert answer.headers["sunset"] == "Thu, 08 Jan 2026 12:00:00 GMT"
    assert "sunset" not in (await api.call(PULLER, "GET", paths[1])).headers
    api.now = NOW + RETENTION - timedelta(seconds=1)
    assert {(await api.call(own, "GET", path)).status for path in paths} == {200}
    api.pass_by(timedelta(seconds=1))
    for path in paths:
        answer = await api.call(own, "GET", path)
        assert (answer.status, answer.detail) == (404, None)
    assert {(await api.call(PULLER, "GET", path)).status for path in paths[1:]} == {200}


async def test_what_a_builds_pull_token_pulls_extends_no_other_build(api: RegistryApi) -> None:
    await api.policy(extends_on_pull=True)
    for build_id in (BUILD, OTHER):
        await push_image(api.stores, SAVES, b"layer", tag=build_id, build_id=build_id)
        await api.builds.end(build_id, BuildStatus.FINISHED, None, api.now)
    api.now = NOW + RETENTION - timedelta(seconds=1)
    pulled = await api.call(puller(BUILD), "GET", f"/v2/mine/manifests/{BUILD}")
    assert pulled.headers["sunset"] == "Thu, 15 Jan 2026 11:59:59 GMT"
    api.pass_by(timedelta(seconds=1))
    assert (await api.call(PULLER, "HEAD", f"/v2/mine/manifests/{BUILD}")).status == 200
    assert (await api.call(PULLER, "HEAD", f"/v2/mine/manifests/{OTHER}")).status == 404


async def test_every_target_of_a_bake_is_pulled_with_the_builds_token(api: RegistryApi) -> None:
    bodies = {
        target: await save(api, BUILD, b"base", target.encode(), tag=f"{BUILD}-{target}")
        for target in ("web", "worker")
    }
    await finish(api.stores, BUILD)
    for target, body in bodies.items():
        answer = await api.call(puller(BUILD), "GET", f"/v2/mine/manifests/{BUILD}-{target}")
        assert (answer.status, answer.body) == (200, body)
        layer = await api.call(puller(BUILD), "GET", f"/v2/mine/blobs/{Digest.of(target.encode())}")
        assert layer.body == target.encode()


async def test_who_is_bound_to_no_build_reads_all_of_its_project(api: RegistryApi) -> None:
    await save(api, OTHER, b"theirs")
    signature = image(subject=descriptor(OCI_MANIFEST, image(b"theirs")))
    await put_manifest(api.stores, SAVES, signature, None, OTHER)
    await finish(api.stores, OTHER)
    for caller in (USER, PULLER, builder(BUILD)):
        for path in paths_of(OTHER, b"theirs"):
            assert (await api.call(caller, "GET", path)).status == 200
    listed = await api.call(PULLER, "GET", f"/v2/mine/referrers/{Digest.of(image(b'theirs'))}")
    assert len(listed.json()["manifests"]) == 1
