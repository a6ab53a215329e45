"""A blob arrives whole whatever happens to its upload, or the push is told why it cannot."""

import random
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layover.oci.digest import Digest
from layover.promotion.models import (
    Authorization,
    AuthorizationScheme,
    RegistryRefused,
    RegistryUnauthorized,
    RegistryUnavailable,
    SourceGone,
)
from layover.promotion.ports import Registry
from tests.certificates import make_certificates
from tests.unit.adapters.registries.fake import (
    Break,
    FakeRegistry,
    FakeTime,
    Reply,
    Silence,
    dialling,
    error,
    serving,
)

pytestmark = pytest.mark.anyio

CONTENT = random.Random(1).randbytes(3500)
DIGEST = Digest.of(CONTENT)


@dataclass
class Source:
    """A blob's content in pieces, which knows whether whoever read it closed it."""

    content: bytes = CONTENT
    piece_bytes: int = 300
    opened: int = 0
    closed: int = 0

    async def read(self, start: int) -> AsyncGenerator[bytes]:
        self.opened += 1
        try:
            while start < len(self.content):
                piece = self.content[start : start + self.piece_bytes]
                start += len(piece)
                yield piece
        finally:
            self.closed += 1


@dataclass
class Upload:
    """One that a test makes, and what it said of its way."""

    source: Source = field(default_factory=Source)
    sent: list[int] = field(default_factory=list)

    async def to(self, remote: FakeRegistry, registry: Registry) -> None:
        digest = Digest.of(self.source.content)
        try:
            await registry.send_blob(
                remote.place, digest, len(self.source.content), self.source.read, self.sent.append
            )
        finally:
            assert self.source.opened == self.source.closed


async def test_a_small_blob_goes_with_the_last_request_of_its_session() -> None:
    upload = Upload()
    async with serving() as remote, dialling(remote.host, chunk_bytes=5000) as registry:
        await upload.to(remote, registry)
    assert remote.blobs == {str(DIGEST): CONTENT}
    assert remote.methods() == ["POST", "PUT"]
    assert remote.heard[1].headers["content-length"] == "3500"
    assert "transfer-encoding" not in remote.heard[1].headers
    assert upload.sent == sorted(upload.sent)
    assert upload.sent[-1] == len(CONTENT)


async def test_a_large_blob_goes_in_chunks() -> None:
    upload = Upload()
    async with serving() as remote, dialling(remote.host) as registry:
        await upload.to(remote, registry)
    assert remote.blobs == {str(DIGEST): CONTENT}
    assert remote.methods() == ["POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"]
    ranges = [heard.headers.get("content-range") for heard in remote.heard[1:5]]
    assert ranges == ["0-999", "1000-1999", "2000-2999", "3000-3499"]
    assert upload.sent == sorted(upload.sent)


async def test_an_empty_blob_arrives() -> None:
    upload = Upload(Source(b""))
    async with serving() as remote, dialling(remote.host) as registry:
        await upload.to(remote, registry)
    assert remote.blobs == {str(Digest.of(b"")): b""}


async def test_chunks_are_no_smaller_than_the_registry_wants_them() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.least_chunk_bytes = 2000
        await Upload().to(remote, registry)
    assert [len(heard.body) for heard in remote.heard] == [0, 2000, 1500, 0]


@pytest.mark.parametrize("size", [1, 299, 300, 301, 999, 1000, 1001, 2000, 3499])
async def test_every_size_arrives(size: int) -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        await Upload(Source(CONTENT[:size])).to(remote, registry)
    assert list(remote.blobs.values()) == [CONTENT[:size]]


@settings(max_examples=30)
@given(
    breaks=st.lists(
        st.builds(
            Break,
            after_bytes=st.integers(0, 1200),
            is_kept=st.booleans(),
            is_answered=st.booleans(),
        ),
        max_size=6,
    ),
    pattern=st.sampled_from(["PATCH", "PUT", "P", "GET|PATCH", "POST|PUT"]),
    takes_chunks=st.booleans(),
    chunk_bytes=st.sampled_from([500, 1000, 4000]),
)
def test_wherever_connections_break_what_arrives_is_the_blob(
    breaks: list[Break], pattern: str, takes_chunks: bool, chunk_bytes: int
) -> None:
    upload = Upload()

    async def run() -> FakeRegistry:
        async with serving() as remote:
            remote.takes_chunks = takes_chunks
            remote.instead = [(pattern, one) for one in breaks]
            async with dialling(remote.host, chunk_bytes=chunk_bytes) as registry:
                await upload.to(remote, registry)
        return remote

    remote = anyio.run(run)
    assert remote.blobs == {str(DIGEST): CONTENT}
    assert upload.sent[-1] == len(CONTENT)


async def test_a_broken_chunk_goes_on_from_where_the_registry_says() -> None:
    upload = Upload()
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("PATCH", Break(700, is_kept=True))]
        await upload.to(remote, registry)
    assert remote.methods()[:4] == ["POST", "PATCH", "GET", "PATCH"]
    assert remote.heard[3].headers["content-range"] == "700-1699"
    assert remote.blobs == {str(DIGEST): CONTENT}


async def test_a_whole_upload_that_breaks_goes_on_in_chunks() -> None:
    async with serving() as remote, dialling(remote.host, chunk_bytes=5000) as registry:
        remote.instead = [("PUT", Break(3100, is_kept=True))]
        await Upload().to(remote, registry)
    assert remote.methods() == ["POST", "PUT", "HEAD", "GET", "PATCH", "PUT"]
    assert remote.heard[4].headers["content-range"] == "3100-3499"
    assert remote.blobs == {str(DIGEST): CONTENT}


async def test_a_lost_answer_to_the_last_request_sends_nothing_again() -> None:
    upload = Upload()
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("PUT", Break(is_answered=True))]
        await upload.to(remote, registry)
    assert remote.methods()[-2:] == ["PUT", "HEAD"]
    assert sum(len(heard.body) for heard in remote.heard) == len(CONTENT)
    assert upload.sent[-1] == len(CONTENT)


async def test_a_limit_is_not_spent_on_a_look_for_what_was_refused() -> None:
    async with serving() as remote, dialling(remote.host, chunk_bytes=5000) as registry:
        remote.instead = [("PUT", Reply(429, {"Retry-After": "1"}))]
        await Upload().to(remote, registry)
    assert remote.methods() == ["POST", "PUT", "GET", "PUT"]
    assert remote.blobs == {str(DIGEST): CONTENT}


@pytest.mark.parametrize("status", [400, 404, 405, 416, 501])
async def test_a_registry_without_chunks_is_sent_the_blob_whole(status: int) -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.takes_chunks, remote.status_of_chunk = False, status
        await Upload().to(remote, registry)
        assert remote.blobs == {str(DIGEST): CONTENT}
        before = len(remote.heard)
        other = Source(CONTENT[:2000])
        await Upload(other).to(remote, registry)
    # It was learned once.
    assert [heard.method for heard in remote.heard[before:]] == ["POST", "PUT"]


async def test_a_registry_that_forgets_its_chunks_is_sent_the_blob_whole() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        # It takes each chunk for all there is.
        remote.instead = [("PUT", error(400, "DIGEST_INVALID", "another digest"))]
        await Upload().to(remote, registry)
    assert remote.methods()[-2:] == ["POST", "PUT"]
    assert len(remote.heard[-1].body) == len(CONTENT)


async def test_a_proxy_that_takes_smaller_chunks_is_sent_smaller_ones() -> None:
    content = bytes(3 * 1024 * 1024)
    async with serving() as remote:
        remote.largest_bytes = 1024 * 1024
        async with dialling(remote.host, chunk_bytes=16 * 1024 * 1024) as registry:
            await Upload(Source(content, 256 * 1024)).to(remote, registry)
            assert list(remote.blobs.values()) == [content]
            remote.largest_bytes = 1024
            with pytest.raises(RegistryRefused, match=r"refused blob sha256.*\(413\)\. "):
                await Upload(Source(content[1:], 256 * 1024)).to(remote, registry)


async def test_chunks_become_smaller_where_nothing_is_left_of_one_that_broke() -> None:
    content = bytes(40 * 1024 * 1024)
    async with serving() as remote:
        remote.instead = [("PUT", Break(1000))]
        async with dialling(remote.host, chunk_bytes=64 * 1024 * 1024) as registry:
            await Upload(Source(content, 1024 * 1024)).to(remote, registry)
    mib = [len(heard.body) // 1024 // 1024 for heard in remote.heard if heard.method == "PATCH"]
    assert mib == [16, 16, 8]


async def test_a_relative_location_is_the_registrys_own() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        # Relative to each address that was asked for, /v2/acme/app/blobs/uploads/ at first.
        remote.location = lambda path: path.rpartition("/")[2]
        await Upload().to(remote, registry)
    assert remote.heard[1].target == "/v2/acme/app/blobs/uploads/session0?state=a%2Fb"
    assert remote.blobs == {str(DIGEST): CONTENT}


async def test_a_location_on_another_host_is_shown_no_authorization() -> None:
    authorization = Authorization(AuthorizationScheme.BEARER, "of-the-registry")
    async with serving() as remote, serving() as other:
        remote.secret = authorization.header
        other.sessions = remote.sessions
        other.blobs = remote.blobs
        remote.location = other.location = lambda path: f"http://{other.host}{path}"
        async with dialling(
            remote.host, other.host, authorization=lambda place: authorization
        ) as registry:
            await Upload().to(remote, registry)
    assert remote.blobs == {str(DIGEST): CONTENT}
    assert [heard.headers["authorization"] for heard in remote.heard] == [authorization.header]
    assert len(other.heard) == 5
    assert not [heard for heard in other.heard if "authorization" in heard.headers]


async def test_a_registry_that_does_not_know_of_its_tls_is_reached_with_it(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    authorization = Authorization(AuthorizationScheme.BEARER, "of-the-registry")
    async with serving(context=context) as remote:
        remote.secret = authorization.header
        remote.location = lambda path: f"http://{remote.host}{path}"
        async with dialling(
            authorization=lambda place: authorization, ca=certificates.ca
        ) as registry:
            await Upload().to(remote, registry)
    assert remote.blobs == {str(DIGEST): CONTENT}


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/",
        "http://user:password@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://[::1",
        "x" * 20_000,
    ],
)
async def test_a_location_that_is_none_is_told_as_the_registrys_fault(location: str) -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.location = lambda path: location
        with pytest.raises(RegistryRefused, match="names no upload session"):
            await Upload().to(remote, registry)


async def test_a_token_that_is_renewed_meanwhile_is_taken_in_the_middle_of_a_blob() -> None:
    authorizations = [
        Authorization(AuthorizationScheme.BEARER, secret) for secret in ("first", "second")
    ]
    upload = Upload()
    async with serving() as remote:
        remote.secret = authorizations[0].header

        def sent(size_bytes: int) -> None:
            # The registry's mind changes while a chunk is on its way.
            if size_bytes > 1000:
                remote.secret = authorizations[1].header

        def authorization(place: object) -> Authorization:
            return authorizations[-1 if remote.secret == authorizations[1].header else 0]

        async with dialling(remote.host, authorization=authorization) as registry:
            await registry.send_blob(remote.place, DIGEST, 3500, upload.source.read, sent)
    assert remote.blobs == {str(DIGEST): CONTENT}


async def test_an_upload_goes_on_with_another_authorization_where_it_stopped() -> None:
    shown = Authorization(AuthorizationScheme.BEARER, "first")
    upload = Upload()
    async with serving() as remote:
        remote.secret = shown.header
        async with dialling(remote.host, authorization=lambda place: shown) as registry:
            remote.instead = [("PATCH", error(401, "UNAUTHORIZED", "the token is over"))]
            with pytest.raises(RegistryUnauthorized, match="the token is over"):
                await upload.to(remote, registry)
            assert remote.methods() == ["POST", "PATCH"]
            shown = Authorization(AuthorizationScheme.BEARER, "second")
            remote.secret = shown.header
            await upload.to(remote, registry)
    assert remote.methods()[2:] == ["GET", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"]
    assert remote.blobs == {str(DIGEST): CONTENT}


async def test_a_registry_that_says_it_has_another_blob_is_not_believed() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        other = Digest.of(b"another")
        remote.instead = [("PUT", Reply(201, {"Docker-Content-Digest": str(other)}))]
        with pytest.raises(RegistryRefused, match=f"says that it has {other}"):
            await Upload().to(remote, registry)


async def test_a_registry_that_loses_every_upload_is_left_in_the_end() -> None:
    time = FakeTime()
    async with serving() as remote, dialling(remote.host, time=time) as registry:
        remote.instead = [("PATCH|PUT|GET", Reply(404)) for _ in range(200)]
        with pytest.raises(RegistryUnavailable, match="again and again"):
            await Upload().to(remote, registry)
    assert len(remote.heard) < 40


async def test_a_registry_that_never_has_more_is_left_in_the_end() -> None:
    time = FakeTime()
    async with serving() as remote, dialling(remote.host, time=time) as registry:
        remote.instead = [("PATCH", Break(500)) for _ in range(200)]
        with pytest.raises(RegistryUnavailable, match="broke the connection"):
            await Upload().to(remote, registry)
    assert remote.methods().count("PATCH") < 15


async def test_what_a_registry_claims_to_have_beyond_the_blob_is_sent_anew() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        location = "/v2/acme/app/blobs/uploads/session0?state=a%2Fb"
        remote.instead = [
            ("PATCH", Break(10)),
            ("GET", Reply(204, {"Location": location, "Range": "0-99999999"})),
        ]
        await Upload().to(remote, registry)
    assert remote.methods().count("POST") == 2
    assert remote.blobs == {str(DIGEST): CONTENT}


async def test_a_part_of_a_chunk_that_was_taken_is_not_sent_again() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.most_of_chunk = 600
        await Upload().to(remote, registry)
    ranges = [heard.headers.get("content-range") for heard in remote.heard[1:-1]]
    assert ranges[:2] == ["0-999", "600-1599"]
    assert remote.blobs == {str(DIGEST): CONTENT}


async def test_a_registry_that_takes_a_few_bytes_at_a_time_is_left_in_the_end() -> None:
    time = FakeTime()
    async with serving() as remote, dialling(remote.host, time=time) as registry:
        remote.most_of_chunk = 2  # 0-0 would be none
        with pytest.raises(RegistryUnavailable, match="it took 2 bytes of the 1000"):
            await Upload().to(remote, registry)
    assert remote.methods().count("PATCH") < 15


async def test_a_redirected_chunk_is_sent_where_it_leads() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        location = "/v2/acme/app/blobs/uploads/session0?state=a%2Fb"
        remote.instead = [("PATCH", Reply(307, {"Location": location}))]
        await Upload().to(remote, registry)
    assert remote.blobs == {str(DIGEST): CONTENT}


async def test_a_refusal_is_told_with_the_registrys_own_words() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("POST", error(403, "DENIED", "the repository is archived"))]
        with pytest.raises(RegistryRefused, match="DENIED: the repository is archived") as caught:
            await Upload().to(remote, registry)
    assert caught.value.status == 403


async def test_a_blob_that_is_shorter_than_it_should_be_is_told_as_ours() -> None:
    source = Source()

    async with serving() as remote, dialling(remote.host) as registry:
        with pytest.raises(SourceGone):
            await registry.send_blob(remote.place, DIGEST, 4000, source.read, lambda size: None)
    assert source.opened == source.closed
    assert not remote.blobs


async def test_an_upload_that_is_canceled_closes_what_it_reads() -> None:
    source = Source()
    async with serving() as remote, dialling(remote.host) as registry:
        with anyio.CancelScope() as scope:

            def reached(size_bytes: int) -> None:
                if size_bytes > 1500:
                    scope.cancel()

            await registry.send_blob(remote.place, DIGEST, 3500, source.read, reached)
        assert scope.cancelled_caught
    assert source.opened == source.closed


@pytest.mark.parametrize("method", ["POST", "PATCH", "GET", "PUT"])
async def test_a_registry_that_falls_silent_is_asked_again(method: str) -> None:
    time = FakeTime(answer_seconds=0.1, commit_seconds=0.1)
    async with serving() as remote, dialling(remote.host, time=time) as registry:
        remote.instead = [("PATCH", Break(100, is_kept=True)), (method, Silence(50))]
        await Upload().to(remote, registry)
    assert remote.blobs == {str(DIGEST): CONTENT}
