"""What a stranger says is read within bounds and shown without harm."""

import base64
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layover.adapters.registries.answers import Answer, cleaned, read_bounded
from layover.oci.digest import Digest
from layover.promotion.models import Authorization, AuthorizationScheme

ASKED = httpx.URL("https://registry.test/v2/acme/app/blobs/uploads/")


def answer(body: bytes = b"", **headers: str) -> Answer:
    sent = httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return Answer(400, sent, ASKED, is_foreign=False, body=body)


def test_the_errors_of_the_specification_are_told_with_code_and_message() -> None:
    errors = [{"code": "DENIED", "message": "not here"}, {"code": "UNKNOWN"}, "odd", {"message": 1}]
    assert answer(json.dumps({"errors": errors}).encode()).told == "DENIED: not here; UNKNOWN"


def test_plain_text_is_told_and_a_page_is_not() -> None:
    assert answer(b"read only today\n", content_type="text/plain; x=y").told == "read only today"
    assert answer(b"<h1>502</h1>", content_type="text/html").told == ""


@given(body=st.binary(max_size=200) | st.text().map(str.encode))
@example(b"[" * 100_000)
@example(b'{"errors": {"code": 1}}')
@example(b'{"errors": [null, [], {}]}')
@example(b"9" * 10_000)
def test_no_body_makes_more_than_a_line_of_text(body: bytes) -> None:
    told = answer(body, content_type="text/plain").told
    assert told.isprintable()
    assert len(told) <= 400


@given(text=st.text())
def test_what_is_told_drives_no_terminal(text: str) -> None:
    assert cleaned(f"\x1b[2J{text}\u202e\r\n").isprintable()


def test_a_secret_that_a_registry_repeats_is_not_told() -> None:
    message = "bad header Authorization: Bearer abcdef0123456789abcdef"
    body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": message}]}).encode()
    told = answer(body).told
    assert "abcdef" not in told
    assert told.startswith("UNAUTHORIZED: bad header")


@pytest.mark.parametrize(
    ("scheme", "secret", "echoed"),
    [
        (AuthorizationScheme.BEARER, "ghp_token", "ghp_token"),
        (AuthorizationScheme.BASIC, "YW5uOnA0c3M6dw==", "YW5uOnA0c3M6dw=="),
        (AuthorizationScheme.BASIC, "YW5uOnA0c3M6dw==", "p4ss:w"),
    ],
)
def test_what_a_registry_was_shown_is_told_to_nobody(
    scheme: AuthorizationScheme, secret: str, echoed: str
) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": f"no {echoed} here"}]}).encode()
    headers = httpx.Headers({"docker-content-digest": f"sha256:{echoed}"})
    shown = Authorization(scheme, secret)
    said = Answer(403, headers, ASKED, is_foreign=False, body=body, shown=shown)
    assert (said.told, said.digest) == ("", "")
    digest = Digest.of(b"blob")
    short = Authorization(AuthorizationScheme.BASIC, base64.b64encode(b"ann:a").decode())
    headers = httpx.Headers({"docker-content-digest": str(digest)})
    assert Answer(200, headers, ASKED, is_foreign=False, shown=short).digest == str(digest)
    other = Answer(403, headers, ASKED, is_foreign=False, body=body)
    assert other.told.startswith("DENIED: no ") and other.digest


def test_nothing_of_another_host_is_told() -> None:
    sent = httpx.Headers({"content-type": "text/plain"})
    assert Answer(500, sent, ASKED, is_foreign=True, body=b"of the inside").told == ""


def test_a_long_message_is_cut() -> None:
    told = answer(b"x " * 10_000, content_type="text/plain").told
    assert len(told) == 400
    assert told.endswith("…")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/v2/a/blobs/uploads/1?x=%2F", "https://registry.test/v2/a/blobs/uploads/1?x=%2F"),
        ("1?x=y", "https://registry.test/v2/acme/app/blobs/uploads/1?x=y"),
        ("//other.test/1", "https://other.test/1"),
        ("https://other.test:8443/1#part", "https://other.test:8443/1"),
    ],
)
def test_a_location_is_read_from_where_it_was_told(location: str, expected: str) -> None:
    assert str(answer(location=location).location) == expected


@given(location=st.text(st.characters(min_codepoint=32, max_codepoint=126)))
@example("file:///etc/passwd")
@example("https://user:secret@registry.test/")
@example("https://registry.test:0/")
@example("https://registry.test:65536/")
@example("\\\\other")
def test_no_location_is_anything_but_a_web_address(location: str) -> None:
    found = answer(location=location).location
    if found is not None:
        assert found.scheme in ("http", "https")
        assert found.host
        assert not found.userinfo
        assert found.port is None or 0 < found.port < 65536


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("0-0", 0),
        ("0-41", 42),
        ("bytes=0-41", 42),
        ("100-41", 42),
        ("", None),
        ("0-", None),
        ("-5", None),
        ("0--5", None),
        ("0-99999999999999999999", None),
        ("0-4\u0661", None),
    ],
)
def test_a_range_says_how_much_there_is_or_nothing(text: str, end: int | None) -> None:
    assert Answer(204, httpx.Headers([(b"range", text.encode())]), ASKED, False).end == end


def test_only_another_digest_of_the_same_kind_is_another_blob() -> None:
    mine, other = Digest.of(b"mine"), Digest.of(b"other")
    assert answer(docker_content_digest=str(other)).denies(mine)
    assert answer(docker_content_digest="sha256:nonsense").denies(mine)
    for silent in ("", str(mine), str(Digest.of(b"mine", "sha512"))):
        assert not answer(docker_content_digest=silent).denies(mine)


@pytest.mark.anyio
async def test_no_more_is_read_than_was_asked_for() -> None:
    given_out = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given_out
        while True:
            given_out += 1000
            yield b"x" * 1000

    content, is_cut = await read_bounded(httpx.Response(500, content=endless()), 64_000)
    assert (len(content), is_cut) == (64_000, True)
    assert given_out == 65_000


@pytest.mark.anyio
async def test_what_is_compressed_is_not_unpacked() -> None:
    response = httpx.Response(
        500, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"x")
    )
    assert await read_bounded(response, 100) == (b"", True)
