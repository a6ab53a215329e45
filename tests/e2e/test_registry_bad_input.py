"""What no client should send: each with its status and code, and never a server error."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.registry import (
    CONFIG_TYPE,
    LAYER_TYPE,
    OCI_MANIFEST,
    Registry,
    code,
    descriptor,
    digest_of,
    image,
    location,
    raw,
)
from tests.e2e.server import LayoverServer

pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)

ZEROS = "sha256:" + "0" * 64


@pytest.fixture
def registry(server: LayoverServer) -> Registry:
    return Registry(server, f"{server.project_id}/bad-input", server.basic_auth)


@pytest.fixture(autouse=True)
def no_bug(server: LayoverServer) -> Iterator[None]:
    """Whatever a test sends, the server takes none of it for a bug of its own."""
    start = len(server.process.log())
    yield
    log = server.process.log()[start:]
    assert "Traceback" not in log
    assert "request_failed" not in log
    assert server.process.is_running


# --- names ------------------------------------------------------------------------------------

BAD_NAMES = [
    "UPPER",
    "a/../b",
    "../a",
    "..",
    ".",
    "a//b",
    "a/",
    "-a",
    "a_",
    "a..b",
    "%2e%2e/a",
    "a%2f..%2fb",
    "a%00b",
    "a%20b",
    "a%ff",
    "a%c3%a9",
    "%0d%0aX-Injected:%20yes",
    "a%0d%0aSet-Cookie:%20a=b",
    "a%22b",
    "a%5cb",
    "a" * 300,
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: name[:30])
def test_a_bad_repository_name_is_refused_and_never_echoed_into_a_header(
    registry: Registry, name: str
) -> None:
    project = registry.server.project_id
    for method, path in (
        ("GET", "manifests/main"),
        ("PUT", "manifests/main"),
        ("GET", "tags/list"),
        ("GET", f"blobs/{ZEROS}"),
        ("POST", "blobs/uploads/"),
        ("PATCH", "blobs/uploads/0"),
        ("GET", f"referrers/{ZEROS}"),
    ):
        for repository in (name, f"{project}/{name}"):
            answer = raw(
                registry.server,
                f"{method} /v2/{repository}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization:"
                f" {registry.credentials['Authorization']}\r\nContent-Length: 0\r\n"
                "Connection: close\r\n\r\n".encode(),
            )
            head, _, body = answer.partition(b"\r\n\r\n")
            status = int(head.split()[1])
            # With a line feed it is the path of no endpoint.
            expected = (405, "UNSUPPORTED") if "%0a" in name else (400, "NAME_INVALID")
            told = json.loads(body)["errors"][0]["code"]
            assert (status, told) == expected, (method, path, answer)
            assert b"injected" not in head.lower()
            assert b"set-cookie" not in head.lower()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("manifests/.hidden", "MANIFEST_INVALID"),
        ("manifests/-a", "MANIFEST_INVALID"),
        ("manifests/" + "a" * 129, "MANIFEST_INVALID"),
        ("manifests/a%20b", "MANIFEST_INVALID"),
        ("manifests/a%00b", "MANIFEST_INVALID"),
        ("manifests/%ff", "MANIFEST_INVALID"),
        ("manifests/sha256:abc", "DIGEST_INVALID"),
        ("manifests/md5:" + "0" * 32, "DIGEST_INVALID"),
        ("manifests/sha256:" + "A" * 64, "DIGEST_INVALID"),
        ("manifests/sha512:" + "0" * 64, "DIGEST_INVALID"),
        ("manifests/:", "DIGEST_INVALID"),
        ("blobs/main", "DIGEST_INVALID"),
        ("blobs/sha256:..%2f", "UNSUPPORTED"),
        ("blobs/sha256:" + "0" * 65, "DIGEST_INVALID"),
        ("referrers/main", "DIGEST_INVALID"),
        (f"referrers/{ZEROS}?last=x", "DIGEST_INVALID"),
        ("tags/list?n=-1", "UNSUPPORTED"),
        ("tags/list?n=many", "UNSUPPORTED"),
        ("tags/list?n=", "UNSUPPORTED"),
        ("tags/list?n=1.5", "UNSUPPORTED"),
        ("tags/list?n=%D9%A1", "UNSUPPORTED"),
    ],
)
def test_a_bad_reference_digest_or_number_is_refused(
    registry: Registry, path: str, expected: str
) -> None:
    answer = registry("GET", path)
    assert (answer.status, code(answer)) == (
        405 if expected == "UNSUPPORTED" and "blobs" in path else 400,
        expected,
    )


@pytest.mark.parametrize(
    "query",
    [
        "n=" + "9" * 5000,
        "n=0" + "0" * 5000,
        "last=%00",
        "last=%ff",
        "last=" + "a" * 5000,
        "n=1&n=2",
    ],
)
def test_odd_pages_are_pages_all_the_same(registry: Registry, query: str) -> None:
    assert registry("GET", f"tags/list?{query}").status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "manifests/main", "DELETE, GET, HEAD, PUT"),
        ("PATCH", f"blobs/{ZEROS}", "DELETE, GET, HEAD"),
        ("PUT", "tags/list", "GET, HEAD"),
        ("GET", "blobs/uploads/", "POST"),
        ("POST", "blobs/uploads/0", "DELETE, GET, HEAD, PATCH, PUT"),
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "/v2/_catalog", "GET, HEAD"),
        ("OPTIONS", "/v2/", "GET, HEAD"),
        ("PUT", "/token", "GET, HEAD, POST"),
        ("GET", "nonsense", ""),
        ("POST", "blobs/uploads", "DELETE, GET, HEAD"),
    ],
)
def test_what_the_registry_does_not_do_is_told_with_what_it_does(
    registry: Registry, method: str, path: str, allowed: str
) -> None:
    answer = registry(method, path)
    assert (answer.status, code(answer)) == (405, "UNSUPPORTED")
    assert answer.headers["Allow"] == allowed


# --- manifests --------------------------------------------------------------------------------

MALFORMED = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"schemaVersion":2,"layers":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b"1" * 100_000,
    image(extra=float("nan")),
    image(extra="\ud800"),
    image(annotations={"a": "\ud800"}),
    image(artifactType="\udfff"),
    image(artifactType="a\0b"),
    image(schemaVersion=1),
    image(schemaVersion=2.0),
    image(config=None),
    image(config=[]),
    image(config=descriptor(CONFIG_TYPE, b"{}", size=2.0)),
    image(config=descriptor(CONFIG_TYPE, b"{}", size=-1)),
    image(config=descriptor(CONFIG_TYPE, b"{}", size=2**70)),
    image(config=descriptor(CONFIG_TYPE, b"{}", size="2")),
    image(config=descriptor(CONFIG_TYPE, b"{}", digest="sha256:short")),
    image(config=descriptor(CONFIG_TYPE, b"{}", digest=["sha256"])),
    image(layers={}),
    image(layers=[None]),
    image(manifests=[]),
    image(subject="subject"),
    image(annotations={"a": 1}),
    image(mediaType="text/plain"),
    image().replace(b'"layers"', b'"layers": [], "layers"'),
    image(layers=[descriptor(LAYER_TYPE, b"x")] * 10_001),
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:40]))
def test_what_is_no_manifest_is_refused(registry: Registry, body: bytes) -> None:
    registry.push_blob(b"{}")
    for reference in ("malformed", digest_of(body)):
        answer = registry("PUT", f"manifests/{reference}", body, {"Content-Type": OCI_MANIFEST})
        assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID")
        assert code(registry("GET", f"manifests/{reference}")) == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json", "\xe9", ";", "a" * 10_000]
)
def test_a_manifest_under_another_type_is_refused_or_its_own(
    registry: Registry, content_type: str
) -> None:
    registry.push_blob(b"{}")
    answer = registry("PUT", "manifests/typed", image(), {"Content-Type": content_type})
    if content_type in ("", ";"):
        assert answer.status == 201
    else:
        assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID")


def test_a_manifest_of_another_digest_is_refused(registry: Registry) -> None:
    registry.push_blob(b"{}")
    for digest in (digest_of(b"other"), digest_of(b"other", "sha512")):
        answer = registry.push_manifest(digest, image())
        assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")


def test_a_manifest_that_names_a_missing_blob_is_refused(registry: Registry) -> None:
    # Invariant 2.
    registry.push_blob(b"{}")
    answer = registry.push_manifest("missing", image(b"never pushed"))
    assert (answer.status, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    (error,) = answer.json()["errors"]
    assert "sha256:" in error["message"]
    assert error["detail"] == {"missing": [digest_of(b"never pushed")]}
    assert registry("GET", "manifests/missing").status == 404


def test_a_manifest_over_the_limit_is_refused_whether_it_says_so_or_not(
    registry: Registry,
) -> None:
    registry.push_blob(b"{}")
    body = image()
    largest = body + b" " * ((4 << 20) - len(body))
    assert registry.push_manifest("large", largest).status == 201
    answer = registry.push_manifest("larger", largest + b" ")
    assert (answer.status, code(answer)) == (413, "SIZE_INVALID")
    head = (
        f"PUT /v2/{registry.repository}/manifests/larger HTTP/1.1\r\nHost: x\r\nAuthorization:"
        f" {registry.credentials['Authorization']}\r\nContent-Type: {OCI_MANIFEST}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    assert raw(registry.server, head.encode(), *[chunk] * 8, b"0\r\n\r\n").startswith(
        b"HTTP/1.1 413"
    )
    assert registry("GET", "manifests/larger").status == 404


# --- uploads ----------------------------------------------------------------------------------


def test_a_blob_of_another_digest_is_refused_and_its_session_is_over(registry: Registry) -> None:
    digest = digest_of(b"other")
    answer = registry("POST", f"blobs/uploads/?digest={digest}", b"content")
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    session = registry.start()
    answer = registry("PUT", f"{session}?digest={digest}", b"content")
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    assert code(registry("GET", session)) == "BLOB_UPLOAD_UNKNOWN"
    assert registry("HEAD", f"blobs/{digest}").status == 404


@pytest.mark.parametrize("digest", ["", "sha256:", "md5:" + "0" * 32, "sha256:%00", "%ff"])
def test_a_bad_digest_is_refused_wherever_it_stands(registry: Registry, digest: str) -> None:
    session = registry.start()
    for method, path in (
        ("POST", f"blobs/uploads/?digest={digest}"),
        ("POST", f"blobs/uploads/?mount={digest}&from={registry.repository}"),
        ("PUT", f"{session}?digest={digest}"),
    ):
        answer = registry(method, path, b"content")
        assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    answer = registry("PUT", session, b"content")
    assert (answer.status, code(answer)) == (400, "UNSUPPORTED")
    # The session is what it was, and ends well.
    assert registry("PUT", f"{session}?digest={digest_of(b'x')}", b"x").status == 201


def test_a_mount_from_a_bad_name_is_refused(registry: Registry) -> None:
    answer = registry("POST", f"blobs/uploads/?mount={ZEROS}&from=../etc")
    assert (answer.status, code(answer)) == (400, "NAME_INVALID")


def test_chunks_out_of_order_are_refused_and_change_nothing(registry: Registry) -> None:
    session = registry.start()
    assert registry("PATCH", session, b"first", {"Content-Range": "0-4"}).status == 202
    for content_range in ("0-4", "4-8", "6-10", "99999999999999990-99999999999999994"):
        answer = registry("PATCH", session, b"other", {"Content-Range": content_range})
        assert (answer.status, code(answer)) == (416, "BLOB_UPLOAD_INVALID")
    assert registry("GET", session).headers["Range"] == "0-4"
    digest = digest_of(b"first last")
    pushed = registry("PUT", f"{session}?digest={digest}", b" last", {"Content-Range": "5-9"})
    assert pushed.status == 201


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "x",
        "-5",
        "5",
        "0-",
        "4-0",
        "0-9",
        "-1-4",
        "0.0-4.0",
        "0-4,5-9",
        "0-\xb2",
        "0-" + "9" * 5000,
    ],
)
def test_a_bad_content_range_is_refused(registry: Registry, content_range: str) -> None:
    session = registry.start()
    answer = registry("PATCH", session, b"other", {"Content-Range": content_range})
    assert (answer.status, code(answer)) == (400, "UNSUPPORTED")


@pytest.mark.parametrize(
    "upload_id", ["0", "..%2f..%2flayover.db", "a" * 5000, "%00", "%ff", "list"]
)
def test_a_session_that_never_was_is_unknown(registry: Registry, upload_id: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        answer = registry(method, f"blobs/uploads/{upload_id}", b"x" if method == "PATCH" else None)
        assert answer.status == (405 if "%2f" in upload_id else 404)
        assert code(answer) in ("BLOB_UPLOAD_UNKNOWN", "UNSUPPORTED")


# --- requests that are hardly any -------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v2/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /v2/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v2/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n",
        b"PUT /v2/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"PUT /v2/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"PUT /v2/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PATCH /v2/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nBad\x00Header: y\r\n\r\n",
    ],
    ids=lambda request_: repr(request_[:50]),
)
def test_what_is_no_request_is_a_bad_one(server: LayoverServer, request_: bytes) -> None:
    answer = raw(server, request_)
    assert answer.split()[1] in (b"400", b"401"), answer


@pytest.mark.parametrize("host", [b"", b"[", b"a b", b"]", b"x:port", b"\xff"])
def test_an_odd_host_is_nobodys_business(server: LayoverServer, host: bytes) -> None:
    for path in (b"/v2/", b"/v2/x/nonsense", b"/token/", b"/nowhere/"):
        answer = raw(
            server,
            b"GET "
            + path
            + b" HTTP/1.1\r\nHost: "
            + host
            + b"\r\nAuthorization: "
            + server.basic_auth["Authorization"].encode()
            + b"\r\nConnection: close\r\n\r\n",
        )
        assert answer.split()[1] in (b"200", b"307", b"400", b"404", b"405"), answer


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND"])
def test_a_method_that_nobody_asked_for_is_refused(registry: Registry, method: str) -> None:
    assert registry(method, "manifests/main").status == 405


def test_headers_and_queries_of_any_length_are_none_of_our_bugs(registry: Registry) -> None:
    long = "a" * 60_000
    assert registry("GET", "/v2/", headers={"X-Long": long}).status == 200
    assert registry("GET", "/v2/", headers={"Authorization": f"Bearer {long}"}).status == 401
    assert registry("GET", f"/v2/?q={long}").status == 200
    nested = json.dumps({"a": "b"}) * 10_000
    assert registry("GET", "/token?" + "scope=repository:a:pull&" * 1000).status == 200
    assert registry.as_({})("POST", "/token", nested.encode()).status == 400
    assert location(registry("POST", "blobs/uploads/?" + "x=y&" * 5000))
