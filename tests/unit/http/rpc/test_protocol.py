import json
from collections.abc import AsyncIterator, Mapping

import pytest
from connectrpc._server_shared import EndpointUnary
from hypothesis import given
from hypothesis import strategies as st
from pyqwest import Client
from pyqwest.testing import ASGITransport
from starlette.routing import Route

from layover.http.rpc import MAX_MESSAGE_BYTES
from layover.http.rpc.protocol import (
    CODECS,
    MAX_FIELDS,
    MAX_JSON_BYTES,
    MAX_JSON_DEPTH,
    ConnectOnly,
    depth_exceeds,
    fields_exceed,
)
from layover.rpc.depot.cli.v1 import build_pb as pb
from layover.rpc.moby.buildkit.v1.control_pb import StatusResponse, Vertex, VertexLog
from tests.unit.http.rpc.api import HOST, Api, make_api

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
)


def depth_of(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    if isinstance(value, Mapping):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 0


@given(JSON, st.integers(0, 10), st.booleans())
def test_the_depth_of_json_is_what_a_reader_finds(
    value: object, limit: int, ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert depth_exceeds(text, limit) == (depth_of(value) > limit)


@pytest.mark.parametrize(
    "text", ['["\\"[[[[", "]"]', '{"[": "\\\\", "a": "{"}', '["' + "[" * 1000 + '"]']
)
def test_brackets_in_strings_are_text(text: str) -> None:
    json.loads(text)
    assert not depth_exceeds(text.encode(), 1)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        # Each of these once ended in a traceback, the first one in the end of the process.
        ({"content-type": "application/json"}, b'{"options":' + b"[" * 100_000, 400),
        ({"content-type": "application/grpc"}, b"", 415),
        ({"content-type": "application/grpc-web+proto"}, b"", 415),
        ({"content-type": "application/json"}, b" " * (MAX_JSON_BYTES + 1), 400),
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/proto"}, b"\xff\xff\xff", 400),
        ({"content-type": "application/proto"}, b"\x7b" * 1_000 + b"\x7c" * 1_000, 400),
        ({"content-type": "application/json", "connect-timeout-ms": "x"}, b"{}", 400),
    ],
)
async def test_a_request_that_the_protocol_does_not_allow_is_the_clients_error(
    headers: dict[str, str], body: bytes, status: int
) -> None:
    api = await make_api()
    response = await Client(ASGITransport(api.app)).post(
        f"https://{HOST}/depot.cli.v1.BuildService/CreateBuild",
        headers={**api.user, **headers},
        content=body,
    )
    assert response.status == status


@pytest.mark.anyio
async def test_a_header_that_is_not_utf_8_is_the_clients_error() -> None:
    api = await make_api()
    statuses: list[object] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(event: dict[str, object]) -> None:
        statuses.append(event.get("status"))

    path = "/depot.cli.v1.BuildService/CreateBuild"
    headers = [(b"content-type", b"application/json"), (b"x-name", b"\xff")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "root_path": ""}
    await api.app(scope, receive, send)  # type: ignore[arg-type]  # a plain ASGI server's values
    assert statuses[0] == 400


def test_the_limit_lets_every_message_of_the_api_through() -> None:
    assert not depth_exceeds(b"[" * MAX_JSON_DEPTH, MAX_JSON_DEPTH)
    assert depth_exceeds(b"[" * (MAX_JSON_DEPTH + 1), MAX_JSON_DEPTH)


REPORTS = st.builds(
    pb.ReportStatusRequest,
    build_id=st.text(min_size=1),
    statuses=st.lists(
        st.builds(
            StatusResponse,
            vertexes=st.lists(
                st.builds(Vertex, inputs=st.lists(st.text(), max_size=3), cached=st.just(True)),
                max_size=3,
            ),
            logs=st.lists(
                st.builds(VertexLog, stream=st.integers(1, 2**63 - 1), msg=st.binary(min_size=1)),
                max_size=3,
            ),
        ),
        max_size=3,
    ),
)


@given(REPORTS)
def test_the_fields_of_a_message_are_counted_at_every_depth(report: pb.ReportStatusRequest) -> None:
    fields = 1 + sum(
        1 + sum(2 + len(vertex.inputs) for vertex in status.vertexes) + sum(3 for _ in status.logs)
        for status in report.statuses
    )
    data = report.to_binary()
    assert not fields_exceed(data, report.desc(), fields)
    assert fields_exceed(data, report.desc(), fields - 1)


@given(st.binary())
def test_counting_the_fields_of_anything_ends(data: bytes) -> None:
    fields_exceed(data, pb.ReportStatusRequest.desc(), 1_000)


def test_a_message_that_ends_badly_is_counted_as_far_as_it_is_read() -> None:
    report = pb.ReportStatusRequest(statuses=[StatusResponse(vertexes=[Vertex()] * 100)])
    assert fields_exceed(report.to_binary() + b"\x12\xff", report.desc(), 100)


def test_a_small_message_cannot_become_millions_of_objects() -> None:
    binary = next(codec for codec in CODECS if codec.name() == "proto")
    binary.decode(b"\x12\x00" * MAX_FIELDS, pb.ReportStatusRequest)
    with pytest.raises(ValueError, match="fields"):
        binary.decode(b"\x12\x00" * (MAX_FIELDS + 1), pb.ReportStatusRequest)


# --- every method of every service, as the application has them ----------------------------------


def methods(api: Api) -> Mapping[str, bool]:
    """The path of each method, and whether it is a stream."""
    found = {}
    for route in api.app.routes:
        assert isinstance(route, Route)
        assert isinstance(route.endpoint, ConnectOnly)
        served = route.endpoint._app
        for path, endpoint in served._endpoints(served._service).items():
            found[path] = not isinstance(endpoint, EndpointUnary)
    assert len(found) > 20
    return found


@pytest.mark.anyio
async def test_a_method_is_called_by_post_and_by_nothing_else() -> None:
    api = await make_api()
    client = Client(ASGITransport(api.app))
    for path in methods(api):
        for verb in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            answer = await client.execute(verb, f"https://{HOST}{path}", headers=api.user)
            assert (answer.status, answer.headers["allow"]) == (405, "POST"), (verb, path)
    unknown = await client.post(f"https://{HOST}/layover.v1.BuildsService/Nope", headers=api.user)
    assert unknown.status == 404


@pytest.mark.anyio
async def test_no_method_reads_a_message_beyond_the_limit() -> None:
    api = await make_api()
    client = Client(ASGITransport(api.app))
    piece = bytes(1 << 20)
    # "Connect Protocol Reference", "Streaming-Request": a flag and the message's length.
    envelope = b"\x00" + (100 << 20).to_bytes(4, "big")
    for path, is_stream in methods(api).items():
        sent: list[bytes] = []

        async def content(sent: list[bytes], start: bytes) -> AsyncIterator[bytes]:
            yield start
            while len(sent) < 100:
                sent.append(piece)
                yield piece

        answer = await client.post(
            f"https://{HOST}{path}",
            headers={
                **api.user,
                "content-type": "application/connect+proto" if is_stream else "application/proto",
            },
            content=content(sent, envelope if is_stream else b"\x00"),
        )
        assert answer.status == (200 if is_stream else 429), path
        assert b"resource_exhausted" in bytes(answer.content), path
        assert len(sent) * len(piece) <= 2 * MAX_MESSAGE_BYTES, path
