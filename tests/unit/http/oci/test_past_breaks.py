"""The ways in which registries have been broken before, of those that no store has a part in.

The others are in tests/contract/test_past_breaks.py; docs/security.md names them all.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from layover.http.oci.paths import MAX_PAGE
from layover.identity.models import Principal
from layover.identity.registry_tokens import KEY_BYTES
from layover.oci.digest import Digest
from layover.oci.manifests import DOCKER_MANIFEST, OCI_MANIFEST
from tests.contract.registry_api import PULLER, USER, RegistryApi
from tests.contract.test_past_breaks import told
from tests.stores import (
    CONFIG_TYPE,
    REPOSITORY,
    descriptor,
    image,
    opened,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio

# The key that RegistryApi signs registry tokens with.
KEY = b"k" * KEY_BYTES


@pytest.fixture
def api(tmp_path: Path) -> Iterator[RegistryApi]:
    with opened(tmp_path) as stores:
        yield RegistryApi(stores)


# --- registry tokens ------------------------------------------------------------------------------


def segment(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def signed(claims: object) -> str:
    """A token with these claims, by our key."""
    return jwt.PyJWS().encode(json.dumps(claims).encode(), KEY, "HS256")


async def claims_of(api: RegistryApi, principal: Principal) -> dict[str, Any]:
    await api.token(principal)
    issued = await api.registry_token(principal, f"repository:{REPOSITORY}:pull,push,delete")
    claims: dict[str, Any] = jwt.decode(issued, options={"verify_signature": False})
    return claims


async def test_a_registry_token_is_traded_for_no_other(api: RegistryApi) -> None:
    # Narrowed to one repository and over soon, it could make itself wide and last for ever.
    await api.token(USER)
    narrow = await api.registry_token(USER, f"repository:{REPOSITORY}:pull")
    for scope in (f"repository:{REPOSITORY}:push", f"repository:{REPOSITORY}:pull"):
        answer = await api.call(narrow, "GET", f"/token?scope={scope}")
        assert answer.status == 401
    form = f"grant_type=refresh_token&refresh_token={narrow}&scope=repository:{REPOSITORY}:push"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await api.call(None, "POST", "/token", form.encode(), headers)
    assert answer.status == 401


async def test_a_registry_token_is_verified_by_our_key_and_by_nothing_that_it_brings(
    api: RegistryApi,
) -> None:
    # CVE-2025-24976, and the confusions of algorithms before it.
    claims = await claims_of(api, USER)
    mine = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own_jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(mine.public_key()))
    shared = {"kty": "oct", "k": base64.urlsafe_b64encode(b"o" * 32).decode().rstrip("=")}
    brought: dict[str, Any] = {"jku": "https://evil.example", "x5u": "https://evil.example"}
    forged = [
        f"{segment({'alg': 'none', 'typ': 'JWT'})}.{segment(claims)}.",
        f"{segment({'alg': 'none'})}.{segment(claims)}.c2lnbmVk",
        f"{segment({'alg': 'HS256'})}.{segment(claims)}.",
        jwt.encode(claims, b"o" * 32, "HS256"),
        jwt.encode(claims, b"o" * 32, "HS256", headers={"jwk": shared}),
        jwt.encode(claims, b"o" * 32, "HS256", headers={"kid": "../../../../dev/null", **brought}),
        jwt.encode(claims, mine, "RS256", headers={"jwk": own_jwk}),
        jwt.encode(claims, mine, "RS256", headers={"x5c": ["AAAA"], **brought}),
        jwt.encode(claims, mine, "PS512", headers={"jwk": own_jwk, **brought}),
        jwt.encode(claims, KEY * 2, "HS512"),
    ]
    path = f"/v2/{REPOSITORY}/tags/list"
    genuine = jwt.encode(claims, KEY, "HS256")
    assert (await api.call(genuine, "GET", path)).status == 200
    answers = {repr(told(await api.call(token, "GET", path))) for token in forged}
    assert len(answers) == 1
    assert answers.pop().startswith("(<HTTPStatus.UNAUTHORIZED: 401>")


ODD: tuple[Any, ...] = (None, True, -1, 1e300, 2**64, "", "x", [], [[]], {}, {"x": {}}, [None])


@pytest.mark.parametrize("claim", ["iat", "sub", "exp", "access", "nbf", "aud", "iss", "jti"])
async def test_a_registry_token_with_an_odd_claim_is_refused_or_does_what_it_says(
    api: RegistryApi, claim: str
) -> None:
    # Signed by our key, which says nothing of what another release of ours writes.
    claims = await claims_of(api, USER)
    for odd in (*ODD, ...):
        changed = {key: value for key, value in claims.items() if key != claim}
        if odd is not ...:
            changed[claim] = odd
        token = signed(changed)
        for method, path in (
            ("GET", f"/v2/{REPOSITORY}/tags/list"),
            ("POST", f"/v2/{REPOSITORY}/blobs/uploads/"),
            ("GET", "/v2/_catalog"),
            ("GET", "/token"),
        ):
            answer = await api.call(token, method, path)
            assert answer.status < 500, (claim, odd, path)
            is_asked = claim in ("sub", "exp", "access") and odd not in (1e300, 2**64)
            if is_asked and path != "/token":
                assert answer.status == 401, (claim, odd, path)


@pytest.mark.parametrize("key", ["type", "name", "actions"])
async def test_a_registry_token_with_an_odd_scope_opens_nothing(api: RegistryApi, key: str) -> None:
    claims = await claims_of(api, USER)
    for odd in (*ODD, ...):
        access = dict(claims["access"][0])
        del access[key]
        if odd is not ...:
            access[key] = odd
        token = signed({**claims, "access": [access]})
        answer = await api.call(token, "GET", f"/v2/{REPOSITORY}/tags/list")
        assert answer.status == 401, (key, odd)


# --- what a client says ---------------------------------------------------------------------------

SIZES = {
    **dict.fromkeys(("0", "1", "10000", "10001", "9" * 40, "9" * 5000, "007"), 200),
    **dict.fromkeys(("-1", "1e9", "0x10", "NaN", "", " 1", "1.0", "%D9%A1", "%00", "1,2"), 400),
}


async def test_a_page_of_the_largest_size_is_all_that_is_read(
    api: RegistryApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    list_tags = api.stores.registry.list_tags

    async def listing(repository: Any, limit: int | None, *rest: Any) -> Any:
        asked.append(limit)
        return await list_tags(repository, limit, *rest)

    monkeypatch.setattr(api.stores.registry, "list_tags", listing)
    for size in ("9" * 40, "10001", str(MAX_PAGE)):
        await api.call(USER, "GET", f"/v2/{REPOSITORY}/tags/list?n={size}")
    await api.call(USER, "GET", f"/v2/{REPOSITORY}/tags/list")
    assert asked == [MAX_PAGE] * 4


@pytest.mark.parametrize("size", SIZES)
async def test_a_page_is_bounded_whatever_size_is_asked_for(api: RegistryApi, size: str) -> None:
    # CVE-2023-2253.
    await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    for path in (f"/v2/{REPOSITORY}/tags/list", "/v2/_catalog"):
        answer = await api.call(USER, "GET", f"{path}?n={size}")
        assert answer.status == SIZES[size], (path, size)
        assert SIZES[size] == 200 or answer.code == "UNSUPPORTED"


async def test_addresses_in_a_descriptor_lead_nobody_anywhere(api: RegistryApi) -> None:
    # CVE-2020-15157 and the like: a client that follows them does so of its own, without what it
    # got from us; the server neither asks there nor sends anybody there.
    urls = ["https://evil.example/layer", "http://169.254.169.254/latest/meta-data"]
    layer, config = b"somewhere else", b"{}"
    await push_blob(api.stores, REPOSITORY, config)
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(CONFIG_TYPE, config, urls=urls),
            "layers": [descriptor(kind, layer, urls=urls)],
        }
    ).encode()
    path = f"/v2/{REPOSITORY}/manifests/v1"
    pushed = await api.call(USER, "PUT", path, body, {"Content-Type": DOCKER_MANIFEST})
    assert pushed.status == 201
    assert (await api.call(PULLER, "GET", path)).body == body
    blob = f"/v2/{REPOSITORY}/blobs/{Digest.of(layer)}"
    missing = await api.call(PULLER, "GET", blob)
    assert (missing.status, missing.code) == (404, "BLOB_UNKNOWN")
    assert b"evil" not in missing.body
    await push_blob(api.stores, REPOSITORY, layer)
    for answer in (missing, await api.call(PULLER, "GET", blob)):
        assert "location" not in answer.headers
        assert not any("evil" in value for value in answer.headers.values())


HOSTS: tuple[dict[str, str], ...] = (
    {"Host": "evil.example"},
    {"Host": "evil.example\\@registry.example"},
    {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "evil"},
    {"Forwarded": "host=evil.example;proto=evil"},
    {"X-Original-Url": "//evil.example", "X-Rewrite-Url": "//evil.example"},
)


@pytest.mark.parametrize("headers", HOSTS)
async def test_no_host_that_a_client_names_is_one_that_others_are_sent_to(
    api: RegistryApi, headers: dict[str, str]
) -> None:
    refused = await api.call(None, "GET", "/v2/", headers=headers)
    challenge = refused.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="http://registry.example/token",')
    assert 'service="registry.example"' in challenge
    await push_blob(api.stores, REPOSITORY, b"{}")
    manifest = {**headers, "Content-Type": OCI_MANIFEST}
    for method, path, body, kind in (
        ("POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"", headers),
        ("POST", f"/v2/{REPOSITORY}/blobs/uploads/?digest={Digest.of(b'x')}", b"x", headers),
        ("PUT", f"/v2/{REPOSITORY}/manifests/v1", image(), manifest),
    ):
        answer = await api.call(USER, method, path, body, kind)
        assert answer.headers["location"].startswith(f"/v2/{REPOSITORY}/"), path
        assert "evil" not in repr(answer)
    for tag in ("v2", "v3"):
        await put_manifest(api.stores, REPOSITORY, image(), tag)
    page = await api.call(USER, "GET", f"/v2/{REPOSITORY}/tags/list?n=1", headers=headers)
    assert page.headers["link"].startswith(f"</v2/{REPOSITORY}/tags/list?")


@pytest.mark.parametrize(
    "path",
    [
        *("//evil.example", "//evil.example/v2/", "/\\evil.example", "/%2F%2Fevil.example/"),
        *("/v2//evil.example/", "/v2/..//evil.example", "/healthz/", "/token/", "/v2/mine/tags/"),
        *("http://evil.example/v2/", "//evil.example/%2e%2e/", "/.//evil.example"),
    ],
)
async def test_no_path_is_answered_with_a_way_elsewhere(api: RegistryApi, path: str) -> None:
    for caller in (USER, None):
        for method in ("GET", "POST", "HEAD"):
            answer = await api.call(caller, method, path)
            assert not 300 <= answer.status < 400, (method, path)
            assert "location" not in answer.headers
