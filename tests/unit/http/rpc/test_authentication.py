from collections.abc import AsyncIterator

import pytest
from connectrpc.code import Code
from pyqwest import Client
from pyqwest.testing import ASGITransport

from layover.identity.ids import new_secret
from layover.identity.models import Unauthenticated
from layover.identity.throttle import Limits, LoginThrottle
from layover.rpc.depot.cli.v1 import build_pb as depot
from layover.rpc.depot.cli.v1beta1 import projects_pb as projects
from layover.rpc.layover.v1 import builds_pb as layover
from tests.unit.builds.world import PROJECT
from tests.unit.http.rpc.api import HOST, Api, bearer, make_api, refusal

pytestmark = pytest.mark.anyio

REFUSED = (Code.UNAUTHENTICATED, str(Unauthenticated()))

WRONG = {
    "no header": {},
    "wrong token": bearer(new_secret()),
    "no token of ours": bearer("wrong"),
    "another scheme": {"authorization": "Basic eC10b2tlbjp4"},
    "empty": {"authorization": "Bearer "},
}


async def one_request() -> AsyncIterator[depot.ReportStatusStreamRequest]:
    yield depot.ReportStatusStreamRequest(build_id="x")


async def read_log(api: Api, headers: dict[str, str]) -> None:
    request = layover.GetBuildLogRequest(build_id="x")
    async for _ in api.own.get_build_log(request, headers=headers):
        raise AssertionError("a log for nobody")


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
async def test_every_call_needs_a_valid_token(headers: dict[str, str]) -> None:
    api = await make_api()
    builds, own = api.builds, api.own
    calls = [
        builds.create_build(depot.CreateBuildRequest(), headers=headers),
        builds.get_build(depot.GetBuildRequest(), headers=headers),
        builds.finish_build(depot.FinishBuildRequest(), headers=headers),
        builds.get_build_kit_connection(depot.GetBuildKitConnectionRequest(), headers=headers),
        builds.report_timings(depot.ReportTimingsRequest(), headers=headers),
        builds.report_status(depot.ReportStatusRequest(), headers=headers),
        builds.report_status_stream(one_request(), headers=headers),
        builds.report_build_context(depot.ReportBuildContextRequest(), headers=headers),
        builds.list_builds(depot.ListBuildsRequest(), headers=headers),
        builds.get_pull_info(depot.GetPullInfoRequest(), headers=headers),
        builds.get_pull_token(depot.GetPullTokenRequest(), headers=headers),
        api.projects.list_projects(projects.ListProjectsRequest(), headers=headers),
        own.list_builds(layover.ListBuildsRequest(), headers=headers),
        own.get_build(layover.GetBuildRequest(), headers=headers),
        read_log(api, headers),
        own.delete_build(layover.DeleteBuildRequest(), headers=headers),
    ]
    for call in calls:
        assert await refusal(call) == REFUSED


@pytest.mark.parametrize("name", ["no header", "no token of ours", "another scheme", "empty"])
async def test_health_needs_what_looks_like_a_token(name: str) -> None:
    api = await make_api()
    request = depot.ReportBuildHealthRequest(build_id="x")
    assert await refusal(api.builds.report_build_health(request, headers=WRONG[name])) == REFUSED


async def test_health_tells_every_dead_token_to_stop_whatever_the_build() -> None:
    api = await make_api()
    created = await api.create()
    own = bearer(created.build_token)
    await api.own.delete_build(
        layover.DeleteBuildRequest(build_id=created.build_id), headers=api.user
    )
    living = await api.create()
    for headers, build_id in (
        (own, created.build_id),
        (own, living.build_id),
        (bearer(new_secret()), "unknown"),
    ):
        response = await api.builds.report_build_health(
            depot.ReportBuildHealthRequest(build_id=build_id), headers=headers
        )
        assert response.has_field("cancels_at")
    # It said "stop" to those who asked, and did nothing.
    assert not (await api.world.status(living.build_id)).has_ended


async def test_guessing_tokens_ends_in_resource_exhausted_and_a_valid_one_passes_all_the_same() -> (
    None
):
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    api = await make_api(throttle=LoginThrottle(Limits(failures=3), lambda: 0.0, sleep))
    request = layover.ListBuildsRequest(project_id=PROJECT)
    for _ in range(3):
        call = api.own.list_builds(request, headers=bearer(new_secret()))
        assert await refusal(call) == REFUSED
    assert len(waits) == 3
    calls = (
        api.own.list_builds(request, headers=bearer(new_secret())),
        read_log(api, bearer(new_secret())),
    )
    for refused in calls:
        code, message = await refusal(refused)
        assert code is Code.RESOURCE_EXHAUSTED
        assert "try again in 10 s" in message
    raw = await Client(ASGITransport(api.app)).post(
        f"https://{HOST}/layover.v1.BuildsService/ListBuilds",
        headers={"content-type": "application/json", **bearer(new_secret())},
        content=b"{}",
    )
    assert (raw.status, raw.headers["retry-after"]) == (429, "10")
    await api.own.list_builds(request, headers=api.user)
    assert len(waits) == 3


async def test_who_asks_whether_to_stop_does_not_guess() -> None:
    api = await make_api(throttle=LoginThrottle(Limits(failures=1), lambda: 0.0))
    dead = bearer(new_secret())
    for _ in range(3):
        request = depot.ReportBuildHealthRequest(build_id="x")
        response = await api.builds.report_build_health(request, headers=dead)
        assert response.has_field("cancels_at")
    for _ in range(3):
        call = api.own.list_builds(layover.ListBuildsRequest(), headers={})
        assert await refusal(call) == REFUSED


async def test_a_call_without_a_token_is_refused_before_its_message_is_read() -> None:
    api = await make_api()
    response = await Client(ASGITransport(api.app)).post(
        f"https://{HOST}/depot.cli.v1.BuildService/CreateBuild",
        headers={"content-type": "application/json"},
        content=b"no JSON at all",
    )
    assert response.status == 401


async def test_a_message_above_the_limit_is_refused() -> None:
    api = await make_api()
    request = depot.ReportBuildContextRequest(
        build_id="x", dockerfiles=[depot.Dockerfile(contents="x" * 9_000_000)]
    )
    code, _ = await refusal(api.builds.report_build_context(request, headers=api.user))
    assert code is Code.RESOURCE_EXHAUSTED
