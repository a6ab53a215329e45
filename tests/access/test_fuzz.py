"""Whatever a client sends, no answer is a server error, and each has its interface's form.

The suite sends a few hundred requests to each interface. For a longer look:
`LAYOVER_FUZZ=20000 python -m pytest tests/access/test_fuzz.py`, the number of each.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

import anyio.from_thread
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from layover.http.oci.auth import basic_secret
from layover.http.oci.errors import InvalidRequest, UserNameRefused
from layover.http.oci.tokens import _scopes
from layover.identity.models import Unauthenticated
from tests.access.calls import HTTP, RPC, call
from tests.access.wire import Answer, Call
from tests.access.world import BUILD, PROJECT, opened_world

EXAMPLES = int(os.environ.get("LAYOVER_FUZZ", "300"))

# Deadlines are clocks.
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 1000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

CALLERS = (
    *("none", "bad", "pull-build", "build", "project", "org", "owner", "f-owner", "ci", "cookie"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get")

# What a server lets through of a path, a query and a header (RFC 9110, section 5.5).
_PIECES = (
    *(PROJECT, BUILD, "foreign", "..", ".", "", "uploads", "blobs", "manifests", "tags", "list"),
    *("latest", "referrers", "_catalog", f"sha256:{'0' * 64}", "sha256:", "sha512:00", "%00"),
    *("%2F", "%2e%2e", "%FF%FE", "%ED%A0%80", "a" * 300, "A", "é", "x:y", "{name}", "\\"),
)
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="?#"), max_size=30)
pieces = st.sampled_from(_PIECES) | _TEXT
_VALUES = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60
)
_NAMES = ("n", "last", "digest", "mount", "from", "tag", "scope", "artifactType", "to", "code")
queries = st.lists(st.tuples(st.sampled_from(_NAMES), pieces), max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
# A server frames bodies itself, and refuses what is no length: those headers say what is true.
_HEADERS = (
    *("accept", "accept-encoding", "authorization", "content-encoding", "content-range"),
    *("content-type", "connect-protocol-version", "connect-timeout-ms", "cookie", "expect", "host"),
    *("if-match", "if-none-match", "if-range", "origin", "range", "referer", "x-depot-org"),
    *("forwarded", "x-forwarded-for", "x-forwarded-host", "x-http-method-override", "x-request-id"),
)
_SAID = st.sampled_from(
    (
        *("bytes=0-1", "bytes=-5", "bytes=9-1", "0-3", "3-9", "bytes 0-3/4", "*", '"x"', 'W/"x"'),
        *("gzip", "identity", "br", "application/json", "application/proto", "1", "-1", "9" * 30),
        *("application/connect+json", "application/connect+proto", "application/grpc", "Basic"),
        *(
            "application/vnd.oci.image.manifest.v1+json",
            "Basic !",
            "Bearer a.b.c",
            "Bearer ",
            "\xe9",
        ),
        *(
            "Basic eC10b2tlbjo=",
            "Bearer eyJhbGciOiJub25lIn0.e30.",
            "text/html",
            "multipart/form-data",
        ),
    )
)
headers = st.lists(st.tuples(st.sampled_from(_HEADERS), _SAID | _VALUES), max_size=4).map(tuple)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
bodies = st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode())

Send = Callable[[str, Call], Answer]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Sends a request to a server that all the examples share, from a test that waits for it."""
    with anyio.from_thread.start_blocking_portal() as portal:
        manager = opened_world(tmp_path_factory.mktemp("fuzzed"))
        with portal.wrap_async_context_manager(manager) as world:
            yield lambda caller, request: portal.call(world.send, caller, request)


def check(answer: Answer, request: Call) -> None:
    """The form that clients of the interface read."""
    assert answer.status < 500 or answer.status in (501, 503), (request, answer)
    assert answer.status >= 100
    if 300 <= answer.status < 400 and answer.status != 304:
        # The pages lead from one to another, and nowhere else.
        assert not is_registry(request)
        location = answer.headers["location"]
        assert re.fullmatch(r"/(?![/\\])[\x21-\x7e]*", location), (request, location)
    assert "x-content-type-options" in answer.headers
    for name, value in answer.headers.items():
        assert "\n" not in value, name
        assert "\r" not in value, name
    if answer.status < 400 or request.method == "HEAD" or not is_registry(request):
        return
    (error,) = json.loads(answer.body)["errors"]
    assert set(error) == {"code", "message", "detail"}
    assert error["code"] == error["code"].upper()
    assert error["message"]


def is_registry(request: Call) -> bool:
    path = request.path.partition("?")[0]
    return path in ("/v2", "/token") or path.startswith("/v2/")


@fuzzed
@given(
    caller=st.sampled_from(CALLERS),
    method=st.sampled_from(METHODS),
    path=st.lists(pieces, min_size=1, max_size=6).map(lambda parts: "/v2/" + "/".join(parts)),
    query=queries,
    more=headers,
    body=bodies,
)
@example("owner", "GET", "/v2/mine/tags/list", "last=%00", (), b"")
@example("none", "GET", "/v2/%0A/mine", "", (), b"")
@example("owner", "GET", "/v2/mine/tags/list", "last=%ED%A0%80", (), b"")
@example("owner", "GET", "/v2/_catalog", "last=%00&n=1", (), b"")
@example("owner", "GET", f"/v2/mine/referrers/sha256:{'0' * 64}", "artifactType=%00", (), b"")
def test_the_registry_answers_anything_in_its_specifications_form(
    ask: Send,
    caller: str,
    method: str,
    path: str,
    query: str,
    more: tuple[tuple[str, str], ...],
    body: bytes,
) -> None:
    request = Call(method, f"{path}?{query}", body, more)
    check(ask(caller, request), request)


@fuzzed
@given(
    caller=st.sampled_from(CALLERS),
    row=st.sampled_from(sorted(HTTP)),
    names=st.fixed_dictionaries({}).flatmap(lambda _: st.lists(pieces, min_size=10, max_size=10)),
    more=headers,
    body=bodies,
)
def test_every_route_takes_anything_in_place_of_what_it_is_about(
    ask: Send,
    caller: str,
    row: str,
    names: list[str],
    more: tuple[tuple[str, str], ...],
    body: bytes,
) -> None:
    placed = dict(zip(_PLACED, names, strict=True))
    placed["project"] = PROJECT if len(names[0]) % 2 else names[0]
    asked = call(row, placed)
    request = Call(asked.method, asked.path, body or asked.body, (*asked.headers, *more))
    check(ask(caller, request), request)


_PLACED = (
    *("project", "tag", "build", "manifest", "unnamed", "blob", "layer", "upload", "organization"),
    "ended",
)


@fuzzed
@given(
    method=st.sampled_from(METHODS),
    form=st.lists(
        st.tuples(
            st.sampled_from(
                ("grant_type", "username", "password", "refresh_token", "scope", "service", "x")
            ),
            st.sampled_from(("password", "refresh_token", "x-token", "layover_x", "")) | pieces,
        ),
        max_size=6,
    ).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode()),
    query=queries,
    more=headers,
)
def test_the_token_endpoint_answers_anything_in_the_specifications_form(
    ask: Send, method: str, form: bytes, query: str, more: tuple[tuple[str, str], ...]
) -> None:
    request = Call(method, f"/token?{query}", form, more)
    check(ask("none", request), request)


_METHODS = sorted({name.partition(" ~")[0] for name in RPC})
_FIELDS = (
    *("buildId", "projectId", "organizationId", "userId", "tokenId", "policyId", "pageToken"),
    *("pageSize", "name", "role", "kind", "options", "retention", "statuses", "claims", "since"),
    *("dockerfiles", "buildSteps", "success", "error", "quotaBytes", "lifetime", "grants"),
    *("pushId", "destinations", "platforms", "target", "authorizations", "tag"),
)
_ODD = st.sampled_from(
    (BUILD, PROJECT, "\x00", "\ud800", "", "x" * 5000, "1e999s", "-1s", "9" * 30, -1, 2**63, 1.5)
)
messages = st.dictionaries(st.sampled_from(_FIELDS), _ODD | _json, max_size=5).map(
    lambda fields: json.dumps(fields).encode()
)
_KINDS = (
    *("application/json", "application/proto", "application/connect+json"),
    *("application/connect+proto", "application/grpc", "text/plain", ""),
)


@fuzzed
@given(
    caller=st.sampled_from(CALLERS),
    rpc=st.sampled_from(_METHODS),
    kind=st.sampled_from(_KINDS),
    body=messages | bodies,
    envelope=st.none() | st.integers(0, 255),
    more=headers,
)
@example(
    "owner",
    "layover.v1.ProjectsService/GetProject",
    _KINDS[0],
    b'{"projectId": "\\u0000"}',
    None,
    (),
)
@example(
    "owner",
    "layover.v1.ProjectsService/GetProject",
    _KINDS[0],
    b'{"projectId": "\\ud800"}',
    None,
    (),
)
def test_every_method_answers_any_message_with_an_error_that_is_not_the_servers(
    ask: Send,
    caller: str,
    rpc: str,
    kind: str,
    body: bytes,
    envelope: int | None,
    more: tuple[tuple[str, str], ...],
) -> None:
    if envelope is not None:
        body = bytes([envelope]) + len(body).to_bytes(4, "big") + body
    request = Call("POST", f"/{rpc}", body, (("content-type", kind), *more))
    answer = ask(caller, request)
    check(answer, request)
    assert b'"internal"' not in answer.body, (request, answer)


_BLOB_FIELDS = ("registryHost", "repositoryNamespace", "registryToken", "tokenScheme")
_BLOB_WORDS = st.sampled_from(
    (
        *("registry.example", "127.0.0.1:1", "[::1]", "a b", "../..", "acme/app", "a@b", "Basic"),
        *("bearer", "YTpi", "YQ==", "token", "a\r\nb: c", "\x00", "", "x" * 70_000),
    )
)


@fuzzed
@given(
    caller=st.sampled_from(CALLERS),
    # The build runs: nothing is sent anywhere.
    digest=st.sampled_from((f"sha256:{'0' * 64}", "latest")) | pieces,
    message=st.dictionaries(st.sampled_from(_BLOB_FIELDS), _BLOB_WORDS | _json, max_size=4),
)
def test_a_blob_is_sent_nowhere_whatever_is_said_of_where(
    ask: Send, caller: str, digest: str, message: dict[str, object]
) -> None:
    request = Call("POST", f"/blobs/{BUILD}/{digest}", json.dumps(message).encode())
    answer = ask(caller, request)
    check(answer, request)
    assert answer.status >= 400


_PAGES = st.sampled_from(("signin", "signout", "device", "join", "assets", "layover.css"))


@fuzzed
@given(
    caller=st.sampled_from(("none", "cookie")),
    method=st.sampled_from(METHODS),
    path=st.lists(_PAGES | pieces, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    query=queries,
    more=headers,
    body=bodies,
)
def test_every_other_path_answers_anything(
    ask: Send,
    caller: str,
    method: str,
    path: str,
    query: str,
    more: tuple[tuple[str, str], ...],
    body: bytes,
) -> None:
    request = Call(method, f"{path}?{query}", body, more)
    check(ask(caller, request), request)


# --- what is parsed before anybody is known ------------------------------------------------------


@fuzzed
@given(value=st.text(max_size=100) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_basic_credentials_are_read_or_refused(value: str) -> None:
    with contextlib.suppress(InvalidRequest, Unauthenticated, UserNameRefused):
        assert basic_secret(value)


@fuzzed
@given(
    words=st.lists(
        st.text(alphabet="repositygcalu:,*()/-_.0aZ é\x00", max_size=60)
        | st.from_regex(r"(repository|registry)(\([a-z]*\))?:[^ ]*:[a-z,*]*", fullmatch=True),
        max_size=5,
    )
)
def test_a_scope_covers_no_more_than_its_words_say(words: list[str]) -> None:
    for scope in _scopes(words):
        assert any(scope.name in word for word in words) or scope.name == "catalog"
        named = {action for word in words for action in word.rpartition(":")[2].split(",")}
        if "*" not in scope.actions:
            assert scope.actions <= named | {part.strip() for one in named for part in one.split()}
