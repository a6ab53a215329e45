import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyqwest import Client
from pyqwest.testing import ASGITransport

from layover.http.rpc.protocol import MAX_JSON_BYTES, MAX_JSON_DEPTH, depth_exceeds
from tests.unit.http.rpc.api import HOST, make_api

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
