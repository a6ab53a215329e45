"""Every route, RPC and page of the server answers every kind of caller as the table says."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from layover.http.rpc.protocol import ConnectOnly
from tests.access.calls import HTTP, RPC, call, template
from tests.access.table import COLUMNS, STANDS_FOR, Row, rows
from tests.access.wire import Answer
from tests.access.world import World, filled, missing, opened_world

pytestmark = pytest.mark.anyio

ROWS = rows()

STRANGERS = ("f-user", "f-token", "f-ci", "admin")

# What of a request says where it asks.
PLACES = frozenset({"organization", "project"})

# What may differ between two answers that say the same.
_NEVER_ALIKE = {"x-request-id", "date"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened_world(tmp_path_factory.mktemp("world")) as world:
        yield world


def routes_of(app: Starlette) -> set[str]:
    """All that a client can ask the application for."""
    found = set[str]()
    for route in app.routes:
        assert isinstance(route, Route), route
        if isinstance(route.endpoint, ConnectOnly):
            found |= methods_of(route.endpoint)
        else:
            # Of a route with GET, HEAD is its answer without the body.
            methods = set(route.methods or "*") - (
                {"HEAD"} if "GET" in (route.methods or ()) else set()
            )
            found |= {f"{method} {route.path}" for method in methods}
    return found


def methods_of(service: ConnectOnly) -> set[str]:
    """What the service implements; the rest answers that it does not."""
    application: Any = service._app
    implementation = application._service
    (generated,) = (base for base in type(implementation).__mro__ if "desc" in vars(base))
    endpoints = application._endpoints(implementation)
    return {
        path.lstrip("/")
        for path, endpoint in endpoints.items()
        if getattr(endpoint.function, "__func__", None)
        is not vars(generated).get(endpoint.function.__name__)
    }


async def test_every_route_has_a_row_and_every_row_a_route(world: World) -> None:
    there = routes_of(world.app)
    assert {row.route for row in ROWS} == there
    assert {row.name for row in ROWS} == HTTP.keys() | RPC.keys()
    assert len({row.name for row in ROWS}) == len(ROWS)
    # And every caller has a column.
    columns = {name for column in COLUMNS for name in STANDS_FOR.get(column, (column,))}
    assert columns == world.secrets.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_each_caller_is_answered_as_the_table_says(world: World, row: Row) -> None:
    told: dict[str, str] = {}
    wanted = template(row.name)
    for column in COLUMNS:
        is_stranger = column in STRANGERS
        for caller in STANDS_FOR.get(column, (column,)):
            names = await world.names(wanted)
            answer = await world.send(caller, call(row.name, names))
            told[caller] = answer.verdict
            if row.name.startswith("GET /"):
                looked = await world.send(caller, replace(call(row.name, names), method="HEAD"))
                assert looked.status == answer.status, caller
            if answer.verdict == "404":
                # Told of what is there as of what never was: in the project, and without it.
                for kept in (PLACES, frozenset[str]()) if is_stranger else (PLACES,):
                    other = missing(names, kept)
                    never = await world.send(caller, call(row.name, other))
                    assert but_for(answer, names) == but_for(never, other), (row.name, caller)
            if is_stranger:
                assert_tells_nothing(world, answer, filled(wanted, names))
    expected = {
        caller: row.expected[column]
        for column in COLUMNS
        for caller in STANDS_FOR.get(column, (column,))
    }
    assert told == expected


def but_for(answer: Answer, names: dict[str, str]) -> tuple[int, dict[str, str], str]:
    """All of an answer but for what was asked for."""
    text = answer.body.decode()
    headers = {name: value for name, value in answer.headers.items() if name not in _NEVER_ALIKE}
    for name, value in sorted(names.items(), key=lambda item: -len(item[1])):
        word = re.compile(rf"(?<![\w-]){re.escape(value)}(?![\w-])")
        text = word.sub(f"<{name}>", text)
        headers = {key: word.sub(f"<{name}>", told) for key, told in headers.items()}
    return answer.status, headers, text


def assert_tells_nothing(world: World, answer: Answer, asked: str) -> None:
    """Of this organization's things a stranger is told nothing but what it said itself."""
    text = f"{answer.headers} {answer.body.decode('latin-1')}"
    for value in world.ids.values():
        if value not in asked:
            assert re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", text) is None, value
