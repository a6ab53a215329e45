import json

import pytest
from starlette.routing import Route

from layover.errors import StorageFull, StorageUnavailable
from layover.http.health import health_routes
from tests.unit.http.oci.requests import request

pytestmark = pytest.mark.anyio


async def works() -> None:
    pass


async def is_away() -> None:
    raise StorageUnavailable


async def answer(routes: list[Route], path: str) -> tuple[int, object]:
    route = next(route for route in routes if route.path == path)
    response = await route.endpoint(request(path=path))
    return response.status_code, json.loads(response.body)


async def test_a_server_whose_parts_work_is_ready() -> None:
    routes = health_routes({"database": works, "blobs": works})
    assert await answer(routes, "/readyz") == (
        200,
        {"status": "ok", "checks": {"database": "ok", "blobs": "ok"}},
    )


async def test_a_server_with_a_part_away_is_alive_and_says_which_it_is() -> None:
    routes = health_routes({"database": works, "blobs": is_away})
    assert await answer(routes, "/healthz") == (200, {"status": "ok"})
    assert await answer(routes, "/readyz") == (
        503,
        {
            "status": "unavailable",
            "checks": {"database": "ok", "blobs": str(StorageUnavailable())},
        },
    )


async def test_a_full_disk_is_not_ready_either() -> None:
    async def is_full() -> None:
        raise StorageFull

    status, _ = await answer(health_routes({"blobs": is_full}), "/readyz")
    assert status == 503
