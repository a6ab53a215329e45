"""The registry's routes as clients meet them: who sees what, and how a refusal reads."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from layover.identity.ids import new_secret
from layover.identity.models import Principal, TokenKind
from layover.identity.registry_tokens import LIFETIME
from layover.identity.throttle import Limits, LoginThrottle
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_INDEX, OCI_MANIFEST
from layover.oci.names import RepositoryName, Tag
from tests.contract.registry_api import (
    FOREIGNER,
    PROJECT,
    PULLER,
    USER,
    Answer,
    RegistryApi,
    builder,
)
from tests.stores import (
    FOREIGN,
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
    opened,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

BUILD = "bcdefghijk"
OTHER_BUILD = "cdefghijkl"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(tmp_path) as stores:
        yield stores


@pytest.fixture
def api(stores: Stores) -> RegistryApi:
    return RegistryApi(stores)


def but_for_its_id(answer: Answer) -> str:
    """All of an answer that may not tell one thing from another."""
    headers = [item for item in sorted(answer.headers.items()) if item[0] != "x-request-id"]
    return f"{answer.status} {headers} {answer.body.decode()}"


async def put(
    api: RegistryApi, caller: Principal | str, path: str, body: bytes, kind: str = OCI_MANIFEST
) -> Answer:
    return await api.call(caller, "PUT", path, body, {"Content-Type": kind})


# --- the catalog --------------------------------------------------------------------------------


async def test_the_catalog_has_what_the_caller_may_pull_and_nothing_else(api: RegistryApi) -> None:
    for repository in (SIBLING, REPOSITORY, FOREIGN, SAVES):
        await push_image(api.stores, repository, b"layer", tag="v1")
    # There, and nothing to show.
    await push_blob(api.stores, RepositoryName("mine/blobs"), b"alone")
    mine = ["mine", "mine/app", "mine/other"]
    for caller, expected in (
        *((caller, mine) for caller in (USER, PROJECT, PULLER, builder(BUILD))),
        (FOREIGNER, ["foreign/app"]),
    ):
        answer = await api.call(caller, "GET", "/v2/_catalog")
        assert (answer.status, answer.json()) == (200, {"repositories": expected})
        assert "link" not in answer.headers
    api.now = NOW + RETENTION
    assert (await api.call(USER, "GET", "/v2/_catalog")).json() == {"repositories": []}


async def test_the_catalog_comes_in_pages_that_miss_none(api: RegistryApi) -> None:
    names = [f"mine/{letter}" for letter in "abcde"]
    for name in reversed(names):
        await push_image(api.stores, RepositoryName(name), b"layer", tag="v1")
    seen: list[str] = []
    path: str | None = "/v2/_catalog?n=2"
    pages = 0
    while path is not None:
        answer = await api.call(USER, "GET", path)
        seen += answer.json()["repositories"]
        pages += 1
        link = answer.headers.get("link")
        path = link and link.partition("<")[2].partition(">")[0]
        assert link is None or link.endswith('; rel="next"')
    assert (seen, pages) == (names, 3)
    answer = await api.call(USER, "GET", "/v2/_catalog?last=mine/bb")
    assert answer.json()["repositories"] == names[2:]
    assert (await api.call(USER, "GET", "/v2/_catalog?n=0")).json() == {"repositories": []}
    refused = await api.call(USER, "GET", "/v2/_catalog?n=-1")
    assert (refused.status, refused.code) == (400, "UNSUPPORTED")


async def test_a_registry_token_reads_the_catalog_only_when_it_was_got_for_it(
    api: RegistryApi,
) -> None:
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    narrow = await api.registry_token(USER, f"repository:{REPOSITORY}:*")
    refused = await api.call(narrow, "GET", "/v2/_catalog")
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
    assert 'scope="registry:catalog:*"' in refused.headers["www-authenticate"]
    wide = await api.registry_token(USER, "registry:catalog:*")
    answer = await api.call(wide, "GET", "/v2/_catalog")
    assert answer.json() == {"repositories": [REPOSITORY.value]}
    # And it reads nothing else.
    tags = await api.call(wide, "GET", f"/v2/{REPOSITORY}/tags/list")
    assert (tags.status, tags.code) == (401, "UNAUTHORIZED")
    nobody = await api.call(None, "GET", "/v2/_catalog")
    assert (nobody.status, nobody.code) == (401, "UNAUTHORIZED")


# --- tag parameters ---------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_manifest_is_pushed_with_many_tags_at_once(
    api: RegistryApi, algorithm: str
) -> None:
    for content in (b"{}", b"layer"):
        await push_blob(api.stores, REPOSITORY, content)
    body = image(b"layer")
    digest = Digest.of(body, algorithm)
    tags = [f"v{number}" for number in range(100)]
    query = "&".join(f"tag={tag}" for tag in [*tags, "v0"])
    path = f"/v2/{REPOSITORY}/manifests/{digest}?{query}"
    answer = await put(api, USER, path, body)
    assert (answer.status, answer.headers["oci-tag"]) == (201, ", ".join(tags))
    assert answer.headers["docker-content-digest"] == str(digest)
    for tag in ("v0", "v99"):
        found = await api.call(PULLER, "GET", f"/v2/{REPOSITORY}/manifests/{tag}")
        assert found.headers["docker-content-digest"] == str(digest)
    too_many = await put(api, USER, f"{path}&tag=more", body)
    assert (too_many.status, too_many.code) == (414, "UNSUPPORTED")
    answer = await put(api, USER, f"/v2/{REPOSITORY}/manifests/{digest}", body)
    assert "oci-tag" not in answer.headers


async def test_one_bad_tag_stores_nothing_at_all(api: RegistryApi) -> None:
    await add_build(api.stores, SAVES, BUILD)
    await push_image(api.stores, SAVES, b"layer", tag=BUILD, build_id=BUILD)
    body = image(b"layer", annotations={"new": "one"})
    path = f"/v2/{SAVES}/manifests/{Digest.of(body)}?tag=good&tag="
    for caller, tag, status, code in (
        (USER, "-bad", 400, "MANIFEST_INVALID"),
        (USER, "", 400, "MANIFEST_INVALID"),
        (USER, BUILD, 403, "DENIED"),
        (builder(BUILD), BUILD, 403, "DENIED"),
        (PULLER, "fine", 403, "DENIED"),
    ):
        answer = await put(api, caller, path + tag, body)
        assert (answer.status, answer.code) == (status, code)
        for reference in (Tag("good"), Digest.of(body)):
            assert await api.stores.registry.find_manifest(SAVES, reference, NOW) is None


# --- mounts ------------------------------------------------------------------------------------


async def test_a_mount_without_a_source_stays_within_the_project(api: RegistryApi) -> None:
    own = await push_blob(api.stores, SIBLING, b"own")
    secret = await push_blob(api.stores, FOREIGN, b"secret")
    uploads = f"/v2/{REPOSITORY}/blobs/uploads/"
    mounted = await api.call(USER, "POST", f"{uploads}?mount={own}")
    assert (mounted.status, mounted.headers["location"]) == (201, f"/v2/{REPOSITORY}/blobs/{own}")
    assert (await api.call(PULLER, "GET", f"/v2/{REPOSITORY}/blobs/{own}")).body == b"own"
    for path in (f"{uploads}?mount={secret}", f"{uploads}?mount={secret}&from={FOREIGN}"):
        never = path.replace(secret.hex, "0" * 64)
        answers = [await api.call(USER, "POST", one) for one in (path, never)]
        assert [answer.status for answer in answers] == [202, 202]
        assert answers[0].headers.keys() == answers[1].headers.keys()
        assert answers[0].body == answers[1].body == b""
    assert (await api.call(USER, "HEAD", f"/v2/{REPOSITORY}/blobs/{secret}")).status == 404
    denied = await api.call(PULLER, "POST", f"{uploads}?mount={own}")
    assert (denied.status, denied.code) == (403, "DENIED")


# --- strangers -----------------------------------------------------------------------------------


async def test_a_stranger_cannot_tell_what_is_there_from_what_never_was(api: RegistryApi) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    digest, layer = Digest.of(body), Digest.of(b"layer")
    await put_manifest(api.stores, REPOSITORY, image(subject=descriptor(OCI_MANIFEST, body)))
    requests = [
        *(("GET", path) for path in ("tags/list", f"referrers/{digest}")),
        *(("POST", f"blobs/uploads/{query}") for query in ("", f"?mount={layer}")),
        ("POST", f"blobs/uploads/?mount={layer}&from={SIBLING}"),
        *((method, "blobs/uploads/0123456789abcdef") for method in ("GET", "PATCH", "DELETE")),
        *((method, f"blobs/{layer}") for method in ("GET", "HEAD", "DELETE")),
        *(
            (method, f"manifests/{reference}")
            for method in ("GET", "HEAD", "PUT", "DELETE")
            for reference in ("v1", digest)
        ),
    ]
    # As long as each other, as their answers have to be; the last is in no project that there is.
    names = (REPOSITORY.value, "mine/nil", "nope/app")
    traded = await api.registry_token(
        FOREIGNER, *(f"repository:{name}:*" for name in (*names, SIBLING))
    )
    for caller in (FOREIGNER, traded, None):
        for method, path in requests:
            told = set()
            for name in names:
                answer = await api.call(caller, method, f"/v2/{name}/{path}", body)
                assert answer.status == (401 if caller is None else 404), (method, path)
                # It is told the name that it asked for, and no more.
                text = but_for_its_id(answer).replace(name, "NAME")
                told.add(text.replace(f"'{name[:4]}'", "'PROJECT'"))
            assert len(told) == 1, (method, path, told)


# --- a running build's token ---------------------------------------------------------------------


async def test_a_builds_token_writes_its_own_and_deletes_nothing(api: RegistryApi) -> None:
    await add_build(api.stores, SAVES, BUILD)
    own = builder(BUILD)
    body = await push_image(api.stores, SAVES, b"layer", tag="v1")
    path = f"/v2/{SAVES}/manifests"
    for tag, status in ((BUILD, 201), (f"{BUILD}-web", 201), ("saved", 201), ("v1", 403)):
        assert (await put(api, own, f"{path}/{tag}", body)).status == status
        by_parameter = f"{path}/{Digest.of(body)}?tag={tag}"
        assert (await put(api, own, by_parameter, body)).status == status
    for repository in ("mine/app", "mine/app/sub"):
        target = f"/v2/{repository}/manifests/{BUILD}"
        assert (await put(api, own, target, body)).status == 403
    assert (await put(api, own, "/v2/foreign/app/manifests/x", body)).status == 404
    for method, target in (
        ("DELETE", f"{path}/{BUILD}"),
        ("DELETE", f"{path}/v1"),
        ("DELETE", f"{path}/{Digest.of(body)}"),
        ("DELETE", f"/v2/{SAVES}/blobs/{Digest.of(b'layer')}"),
    ):
        answer = await api.call(own, method, target)
        assert (answer.status, answer.code) == (403, "DENIED")
    assert (await api.call(own, "GET", f"{path}/v1")).status == 200


async def test_an_untagged_push_of_a_build_takes_no_image_from_another(api: RegistryApi) -> None:
    # By digest a build's token may write anything: it names nothing, and changes nothing there.
    body = await push_image(api.stores, SAVES, b"layer", tag="v1")
    await add_build(api.stores, SAVES, BUILD)
    own = builder(BUILD)
    assert (await put(api, own, f"/v2/{SAVES}/manifests/{Digest.of(body)}", body)).status == 201
    await api.builds.delete(BUILD, NOW)
    for reference in ("v1", Digest.of(body)):
        answer = await api.call(PULLER, "GET", f"/v2/{SAVES}/manifests/{reference}")
        assert answer.status == 200


# --- refusals ------------------------------------------------------------------------------------


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO")
ZEROS = f"sha256:{'0' * 64}"


@pytest.mark.parametrize("caller", [USER, None], ids=["user", "nobody"])
async def test_every_refusal_has_the_specifications_form(
    api: RegistryApi, caller: Principal | None
) -> None:
    refused = 0
    for method in METHODS:
        for path in (
            *("/v2", "/v2/", "/v2//", "/v2/x", "/v2/_catalog", "/v2/_catalog/", "/token"),
            *("/v2/mine/app/tags/list", "/v2/mine/app/tags", "/v2/mine/app/tags/list?n=x"),
            *("/v2/mine/app/manifests/", "/v2/mine/app/manifests/a:b"),
            *("/v2/MINE/manifests/v1", "/v2/mine//app/manifests/v1", "/v2/../manifests/v1"),
            *("/v2/mine/app/blobs/", "/v2/mine/app/blobs/x", "/v2/mine/app/blobs/sha256:00"),
            *("/v2/mine/app/blobs/uploads", "/v2/mine/app/blobs/uploads/"),
            *("/v2/mine/app/blobs/uploads/x", "/v2/mine/app/blobs/uploads/?mount=x"),
            *("/v2/mine/app/referrers/", "/v2/mine/app/referrers/x"),
            f"/v2/mine/app/blobs/uploads/?mount={ZEROS}&from=NOT",
        ):
            answer = await api.call(caller, method, path)
            assert answer.status < 500, (method, path)
            assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
            if answer.status < 400:
                continue
            refused += 1
            if method == "HEAD":
                assert answer.headers["content-type"] == "application/json"
                continue
            assert answer.code and answer.json()["errors"][0]["message"], (method, path)
            if answer.status == 405:
                assert answer.code == "UNSUPPORTED"
                assert method not in answer.headers["allow"].split(", ")
    assert refused > 150


# --- guessing ------------------------------------------------------------------------------------


async def tries(api: RegistryApi, secret: str, how: str) -> Answer:
    """A request with a token, in each of the ways that tokens come in."""
    match how:
        case "basic":
            credentials = base64.b64encode(f"x-token:{secret}".encode()).decode()
            headers = {"Authorization": f"Basic {credentials}"}
            return await api.call(None, "GET", "/v2/mine/app/tags/list", headers=headers)
        case "form":
            form = f"grant_type=password&username=x-token&password={secret}"
            return await api.call(None, "POST", "/token", form.encode())
        case "refresh":
            form = f"grant_type=refresh_token&refresh_token={secret}"
            return await api.call(None, "POST", "/token", form.encode())
        case _:
            return await api.call(secret, "GET", how)


@pytest.mark.parametrize("how", ["basic", "form", "refresh", "/v2/", "/token", "/v2/_catalog"])
async def test_guessing_tokens_ends_in_429_and_a_valid_one_passes_all_the_same(
    stores: Stores, how: str
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    api = RegistryApi(stores, throttle=LoginThrottle(Limits(failures=3), lambda: 0.0, sleep))
    valid = await api.token(USER)
    for _ in range(3):
        refused = await tries(api, new_secret(), how)
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
    assert waits == sorted(waits)
    assert len(waits) == 3
    refused = await tries(api, new_secret(), how)
    assert (refused.status, refused.code) == (429, "TOOMANYREQUESTS")
    assert refused.headers["retry-after"] == "10"
    assert "www-authenticate" not in refused.headers
    answer = await tries(api, valid, how)
    assert answer.status in (200, 404), answer.body
    assert len(waits) == 3


async def test_who_brings_no_token_or_an_expired_registry_token_does_not_guess(
    stores: Stores,
) -> None:
    api = RegistryApi(stores, throttle=LoginThrottle(Limits(failures=1), lambda: 0.0))
    expired = await api.registry_token(USER, "repository:mine/app:pull")
    api.pass_by(LIFETIME)
    for caller in (None, expired, None, expired):
        answer = await api.call(caller, "GET", "/v2/mine/app/tags/list")
        assert answer.status == 401
        assert "www-authenticate" in answer.headers
    # One that we have not signed is a guess.
    forged = ".".join([*expired.split(".")[:2], "A" * 43])
    assert (await api.call(forged, "GET", "/v2/")).status == 401
    assert (await api.call(forged, "GET", "/v2/")).status == 429
    assert (await api.call(expired, "GET", "/v2/")).status == 401


async def test_wrong_expired_and_revoked_tokens_are_refused_alike(stores: Stores) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    api = RegistryApi(stores, throttle=LoginThrottle(Limits(), lambda: 0.0, sleep))
    expired = await api.token(builder(BUILD), until=NOW + timedelta(seconds=1))
    api.pass_by(timedelta(seconds=1))
    revoked = await api.token(builder(OTHER_BUILD))
    await stores.identity.revoke_build_tokens(OTHER_BUILD, TokenKind.BUILD, NOW)
    told = {
        but_for_its_id(await tries(api, secret, "/v2/"))
        for secret in (expired, revoked, new_secret())
    }
    assert len(told) == 1
    assert len(waits) == 3


# --- browsers ------------------------------------------------------------------------------------


async def test_what_was_pushed_does_nothing_in_a_browser_whatever_it_says_it_is(
    api: RegistryApi,
) -> None:
    page = b"<script>alert(1)</script>"
    digest = await push_blob(api.stores, REPOSITORY, page)
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    for path, stored in (
        (f"/v2/{REPOSITORY}/blobs/{digest}", True),
        (f"/v2/{REPOSITORY}/manifests/v1", True),
        (f"/v2/{REPOSITORY}/manifests/v2", False),
        (f"/v2/{REPOSITORY}/tags/list", False),
        ("/token", False),
        ("/nowhere", False),
    ):
        answer = await api.call(USER, "GET", path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].endswith("; sandbox")
        assert not answer.headers.get("content-type", "").startswith("text/html")
        assert answer.headers.get("cache-control") == (None if stored else "no-store"), path


async def test_an_index_that_names_what_is_not_there_is_taken(api: RegistryApi) -> None:
    child = await push_image(api.stores, REPOSITORY, b"layer")
    body = index(child, image(b"missing"))
    answer = await put(api, USER, f"/v2/{REPOSITORY}/manifests/v1", body, OCI_INDEX)
    assert answer.status == 201
    missing = f"/v2/{REPOSITORY}/manifests/{Digest.of(image(b'missing'))}"
    refused = await api.call(PULLER, "GET", missing)
    assert (refused.status, refused.code, refused.detail) == (404, "MANIFEST_UNKNOWN", None)
