"""What the public client says of pushes that it drives, over the API."""

import pytest
from connectrpc.code import Code

from layover.audit.models import Result
from layover.rpc.depot.cli.v1 import push_pb as depot
from layover.rpc.layover.v1 import pushes_pb as pb
from tests.unit.builds.world import PROJECT
from tests.unit.http.rpc.api import refusal
from tests.unit.http.rpc.push_api import PushApi, make_push_api
from tests.unit.promotion.world import DESTINATION

pytestmark = pytest.mark.anyio


async def start(api: PushApi, build_id: str) -> str:
    request = depot.StartPushRequest(tag=DESTINATION, build_id=build_id)
    return (await api.driven.start_push(request, headers=api.user)).push_id


async def test_how_a_push_ended_is_listed() -> None:
    api = await make_push_api()
    build_id = await api.world.world.finished()
    for error in (None, "denied"):
        api.world.world.clock.advance(seconds=1)
        request = depot.FinishPushRequest(push_id=await start(api, build_id), build_id=build_id)
        if error is not None:
            request.error = error
        await api.driven.finish_push(request, headers=api.user)
    page = await api.pushes.list_pushes(pb.ListPushesRequest(project_id=PROJECT), headers=api.user)
    assert [(push.status, push.error, list(push.destinations)) for push in page.pushes] == [
        (pb.PushStatus.FAILED, "denied", [DESTINATION]),
        (pb.PushStatus.DONE, "", [DESTINATION]),
    ]


async def test_both_are_in_the_audit_log() -> None:
    api = await make_push_api()
    build_id = await api.world.world.finished()
    push_id = await start(api, build_id)
    request = depot.FinishPushRequest(push_id=push_id, build_id=build_id, error="denied")
    await api.driven.finish_push(request, headers=api.user)
    started, finished = await api.events()
    for event in (started, finished):
        assert (event.project_id, event.subject, event.result) == (PROJECT, build_id, Result.DONE)
    assert (started.action, started.details["tag"]) == ("pushes.start", DESTINATION)
    assert (finished.action, finished.details["error"]) == ("pushes.finish", "denied")


async def test_who_may_not_is_told_so() -> None:
    api = await make_push_api()
    build_id = await api.world.world.finished()
    request = depot.StartPushRequest(tag=DESTINATION, build_id=build_id)
    assert (await refusal(api.driven.start_push(request, headers=api.viewer)))[0] is (
        Code.PERMISSION_DENIED
    )
    assert await refusal(api.driven.start_push(request, headers=api.stranger)) == (
        Code.NOT_FOUND,
        f"unknown build {build_id!r}",
    )
    ended = depot.FinishPushRequest(push_id="made up", build_id=build_id)
    assert (await refusal(api.driven.finish_push(ended, headers=api.user)))[0] is Code.NOT_FOUND
