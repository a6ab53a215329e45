"""Each request goes where it may, shows what it must, and its answer means what it says."""

import ssl
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from layover.adapters.registries.requests import Body
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.oci.references import Place
from layover.promotion.models import (
    Authorization,
    AuthorizationScheme,
    RegistryForbidden,
    RegistryRefused,
    RegistryUnauthorized,
    RegistryUnavailable,
    SourceGone,
)
from tests.certificates import make_certificates
from tests.unit.adapters.registries.fake import (
    Break,
    FakeTime,
    Reply,
    Silence,
    dialling,
    error,
    serving,
    showing,
)

pytestmark = pytest.mark.anyio

CONTENT = b"a blob"
DIGEST = Digest.of(CONTENT)
BEARER = Authorization(AuthorizationScheme.BEARER, "of-the-registry")


@pytest.mark.parametrize(
    "instead",
    [Break(), Break(is_answered=True), Reply(408), Reply(429), Reply(500), Reply(502), Reply(503)],
    ids=str,
)
async def test_what_may_pass_is_asked_again(instead: Reply | Break) -> None:
    time = FakeTime()
    async with serving() as remote, dialling(remote.host, time=time) as registry:
        remote.blobs[str(DIGEST)] = CONTENT
        remote.instead = [("HEAD", instead), ("HEAD", instead)]
        assert await registry.has_blob(remote.place, DIGEST, len(CONTENT))
    assert time.slept == [0.25, 0.5]


@pytest.mark.parametrize("status", [400, 402, 403, 405, 409, 451, 501])
async def test_what_is_refused_is_asked_once(status: int) -> None:
    time = FakeTime()
    async with serving() as remote, dialling(remote.host, time=time) as registry:
        remote.instead = [("HEAD", Reply(status))]
        with pytest.raises(RegistryRefused, match=rf"\({status}\)"):
            await registry.has_blob(remote.place, DIGEST, 1)
    assert len(remote.heard) == 1
    assert time.slept == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7), ("Thu, 01 Jan 2026 00:00:42 GMT", 42), ("later", 0)]
)
async def test_a_registry_says_itself_when_it_wants_to_be_asked_again(
    text: str, seconds: int
) -> None:
    time = FakeTime()
    assert time.time().now() == datetime(2026, 1, 1, tzinfo=UTC)
    async with serving() as remote, dialling(remote.host, time=time) as registry:
        remote.instead = [("HEAD", Reply(429, {"Retry-After": text}))]
        assert not await registry.has_blob(remote.place, DIGEST, 1)
    assert time.slept == [seconds + 0.25]


async def test_one_that_never_answers_well_is_told_with_its_last_words() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("GET", error(503, "UNAVAILABLE", "in maintenance"))] * 100
        with pytest.raises(RegistryUnavailable, match="503: UNAVAILABLE: in maintenance"):
            await registry.read_manifest(remote.place, DIGEST)


async def test_one_that_is_not_there_is_told_so() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        place = remote.place
    async with dialling(place.host) as registry:
        with pytest.raises(RegistryUnavailable, match="does not accept a connection"):
            await registry.has_blob(place, DIGEST, 1)


async def test_an_authorization_is_asked_for_before_each_request() -> None:
    secrets = iter(("one", "two"))

    def authorization(place: Place) -> Authorization:
        return Authorization(AuthorizationScheme.BASIC, next(secrets))

    async with serving() as remote, dialling(remote.host, authorization=authorization) as registry:
        for _ in range(2):
            await registry.has_blob(remote.place, DIGEST, 1)
    assert [heard.headers["authorization"] for heard in remote.heard] == ["Basic one", "Basic two"]


async def test_one_that_was_renewed_meanwhile_is_shown_at_once() -> None:
    time, secrets = FakeTime(), iter(("old", "new", "new"))

    def authorization(place: Place) -> Authorization:
        return Authorization(AuthorizationScheme.BEARER, next(secrets))

    async with serving() as remote:
        remote.secret = "Bearer new"
        async with dialling(remote.host, authorization=authorization, time=time) as registry:
            assert not await registry.has_blob(remote.place, DIGEST, 1)
    assert time.slept == []


@pytest.mark.parametrize(
    "reply",
    [
        error(401, "UNAUTHORIZED", "it is over"),
        Reply(403, {"WWW-Authenticate": 'Bearer realm="https://x"'}, b""),
    ],
)
async def test_one_that_is_not_enough_is_told_to_whoever_can_renew_it(reply: Reply) -> None:
    async with (
        serving() as remote,
        dialling(remote.host, authorization=showing(BEARER)) as registry,
    ):
        remote.instead = [("GET", reply)]
        with pytest.raises(RegistryUnauthorized, match="docker login") as caught:
            await registry.read_manifest(remote.place, DIGEST)
    assert caught.value.told in ("", "UNAUTHORIZED: it is over")


async def test_a_redirect_is_followed_and_shown_nothing_on_another_host() -> None:
    async with serving() as remote, serving() as store:
        store.blobs[str(DIGEST)] = CONTENT
        url = f"http://{store.host}/v2/acme/app/blobs/{DIGEST}?signature=x"
        async with dialling(remote.host, store.host, authorization=showing(BEARER)) as registry:
            for status in (301, 302, 303, 307, 308):
                remote.instead = [("HEAD", Reply(status, {"Location": url}))]
                assert await registry.has_blob(remote.place, DIGEST, len(CONTENT))
    assert all("authorization" in heard.headers for heard in remote.heard)
    assert not any("authorization" in heard.headers for heard in store.heard)


async def test_another_name_of_the_same_address_is_another_host() -> None:
    async with serving() as remote:
        other = f"localhost:{remote.host.rpartition(':')[2]}"
        url = f"http://{other}/v2/acme/app/blobs/{DIGEST}"
        async with dialling(remote.host, other, authorization=showing(BEARER)) as registry:
            remote.instead = [("HEAD", Reply(307, {"Location": url}))]
            assert not await registry.has_blob(remote.place, DIGEST, 1)
    assert ["authorization" in heard.headers for heard in remote.heard] == [True, False]


async def test_redirects_have_an_end() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        here = {"Location": f"/v2/acme/app/blobs/{DIGEST}"}
        remote.instead = [("HEAD", Reply(307, here))] * 50
        with pytest.raises(RegistryRefused, match="leads elsewhere"):
            await registry.has_blob(remote.place, DIGEST, 1)
    assert len(remote.heard) == 6


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "http://127.0.0.1:1/",
    ],
)
async def test_no_address_that_the_rules_forbid_is_reached_by_a_redirect(url: str) -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("HEAD", Reply(302, {"Location": url}))]
        with pytest.raises(RegistryForbidden, match="this server may not push to") as caught:
            await registry.has_blob(remote.place, DIGEST, 1)
        assert "outbound_" in str(caught.value)


async def test_a_host_that_is_not_listed_is_never_reached_without_tls() -> None:
    async with serving() as remote, dialling() as registry:
        with pytest.raises(RegistryForbidden, match="does not speak TLS"):
            await registry.has_blob(remote.place, DIGEST, 1)
    assert remote.heard == []


async def test_a_certificate_of_an_unknown_authority_is_not_taken(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    async with serving(context=context) as remote, dialling() as registry:
        with pytest.raises(RegistryForbidden, match="outbound_ca_cert"):
            await registry.has_blob(remote.place, DIGEST, 1)


async def test_a_huge_error_is_not_read_to_its_end() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        huge = b'{"errors": [' + b" " * 50_000_000
        remote.instead = [("GET", Reply(400, {"Content-Type": "application/json"}, huge))]
        with pytest.raises(RegistryRefused) as caught:
            await registry.read_manifest(remote.place, DIGEST)
    assert caught.value.told == ""


async def test_a_registry_sees_no_cookie_that_it_set_for_another_push() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("HEAD", Reply(404, {"Set-Cookie": "session=of-one-user; Path=/"}))]
        for _ in range(2):
            await registry.has_blob(remote.place, DIGEST, 1)
    assert "cookie" not in remote.heard[1].headers


async def test_a_name_that_is_no_host_is_told_so() -> None:
    async with dialling() as registry:
        for name in ("a..b", "x" * 300, "registry.test:99999"):
            with pytest.raises((RegistryForbidden, RegistryUnavailable)):
                await registry.has_blob(Place(name, RepositoryName("acme/app")), DIGEST, 1)


async def test_one_that_does_not_answer_is_left_in_the_end() -> None:
    time = FakeTime(answer_seconds=0.05)
    async with serving() as remote, dialling(remote.host, time=time) as registry:
        remote.instead = [("HEAD", Silence())]
        assert not await registry.has_blob(remote.place, DIGEST, 1)
        remote.instead = [("HEAD", Silence())] * 50
        with pytest.raises(RegistryUnavailable, match="did not answer in time"):
            await registry.has_blob(remote.place, DIGEST, 1)


async def pieces(*sizes: int) -> AsyncGenerator[bytes]:
    for size in sizes:
        yield bytes(size)


async def body_of(
    size_bytes: int, *sizes: int, seconds: float = 0.0
) -> tuple[list[int], list[int]]:
    """The sizes of what is handed on, each of which takes so long, and what is told of it."""
    now, told = 0.0, list[int]()
    handed_on = []
    body = Body(pieces(*sizes), size_bytes, told.append, lambda: now)
    async for piece in body:
        handed_on.append(len(piece))
        now += seconds
    return handed_on, told


async def test_a_body_has_the_size_that_it_was_said_to_have() -> None:
    assert await body_of(0) == ([], [])
    assert await body_of(10, 4, 4, 4) == ([4, 4, 2], [4, 8, 10])
    assert await body_of(8, 4, 0, 4, 4) == ([4, 4], [4, 8])
    for sizes in ((), (4, 4), (9, 0)):
        with pytest.raises(SourceGone):
            await body_of(10, *sizes)


async def test_a_slow_registry_is_sent_small_pieces_so_that_each_has_its_time() -> None:
    handed_on, told = await body_of(500_000, 250_000, 250_000, seconds=6)
    assert handed_on[0] == 250_000
    assert set(handed_on[1:-1]) == {65_536}
    assert told[-1] == sum(handed_on) == 500_000
    assert (await body_of(500_000, 250_000, 250_000, seconds=4))[0] == [250_000, 250_000]
