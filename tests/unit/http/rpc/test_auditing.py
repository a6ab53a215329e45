"""What is in the audit log after an RPC."""

from typing import Literal

import pytest
from connectrpc.code import Code
from protobuf import Oneof
from protobuf.wkt import Duration

from layover.audit.models import AuditEvent, Result
from layover.errors import StorageUnavailable
from layover.identity.ids import new_secret, public_part
from layover.identity.models import Principal, Role, TokenKind
from layover.identity.service import IdentityService
from layover.rpc.depot.cli.v1 import build_pb as depot
from layover.rpc.layover.v1 import builds_pb as own
from layover.rpc.layover.v1 import projects_pb as projects
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT
from tests.unit.http.rpc.api import Api, bearer, make_api, refusal

pytestmark = pytest.mark.anyio

FINISHED = Oneof[Literal["success"], depot.FinishBuildRequest.Success](
    "success", depot.FinishBuildRequest.Success()
)


async def only(api: Api) -> AuditEvent:
    await api.world.audit.close()
    (event,) = api.world.audit_store.events
    return event


async def test_a_change_is_in_the_log_of_its_project() -> None:
    api = await make_api()
    created = await api.create()
    event = await only(api)
    assert (event.action, event.result) == ("builds.create", Result.DONE)
    assert (event.organization_id, event.project_id) == ("org1", PROJECT)
    assert (event.actor_kind, event.actor_id) == ("user", "u1")
    assert event.subject == created.build_id
    assert created.build_token not in repr(event)


async def test_a_build_is_told_of_by_whom_it_was_driven_to_which_end() -> None:
    api = await make_api()
    created = await api.create()
    api.world.audit_store.events.clear()
    request = depot.FinishBuildRequest(build_id=created.build_id, result=FINISHED)
    await api.builds.finish_build(request, headers=bearer(created.build_token))
    event = await only(api)
    assert (event.action, event.actor_kind, event.subject) == (
        "builds.finish",
        "build",
        created.build_id,
    )
    assert event.details["result"] == "success"


async def test_a_deletion_is_in_the_log_of_where_the_thing_was() -> None:
    api = await make_api()
    build_id = await api.world.finished()
    await api.own.delete_build(own.DeleteBuildRequest(build_id=build_id), headers=api.user)
    event = await only(api)
    assert (event.action, event.project_id, event.subject) == ("builds.delete", PROJECT, build_id)


async def test_what_was_changed_to_what_is_told() -> None:
    api = await make_api()
    request = projects.UpdateProjectRequest(
        project_id=PROJECT,
        retention=Duration(seconds=3600),
        extends_on_pull=False,
        quota=Oneof[Literal["quota_bytes"], int]("quota_bytes", 7),
    )
    await api.own_projects.update_project(request, headers=api.user)
    event = await only(api)
    assert (event.action, event.subject) == ("projects.update", PROJECT)
    told = {name: event.details.get(name) for name in ("retention", "extends_on_pull", "quota")}
    assert told == {"retention": "3600s", "extends_on_pull": "false", "quota": "7"}
    assert "max_retention" not in event.details


async def test_a_pull_token_is_told_of_and_not_told() -> None:
    api = await make_api()
    response = await api.builds.get_pull_token(
        depot.GetPullTokenRequest(project_id=PROJECT), headers=api.user
    )
    event = await only(api)
    assert (event.action, event.subject) == ("tokens.create_pull", PROJECT)
    assert response.token not in repr(event)


async def test_reading_is_not_told_of() -> None:
    api = await make_api()
    build_id = await api.world.finished()
    await api.own.get_build(own.GetBuildRequest(build_id=build_id), headers=api.user)
    await api.builds.list_builds(depot.ListBuildsRequest(project_id=PROJECT), headers=api.user)
    async for _ in api.own.get_build_log(
        own.GetBuildLogRequest(build_id=build_id), headers=api.user
    ):
        pass
    await api.world.audit.close()
    assert api.world.audit_store.events == []


async def test_a_denied_change_of_what_a_caller_sees_is_in_its_projects_log() -> None:
    api = await make_api()
    token = bearer(await api.world.token(api.world.project_token))
    request = projects.UpdateProjectRequest(project_id=PROJECT)
    code, _ = await refusal(api.own_projects.update_project(request, headers=token))
    assert code is Code.PERMISSION_DENIED
    event = await only(api)
    assert (event.action, event.result) == ("projects.update", Result.DENIED)
    assert (event.organization_id, event.project_id) == ("org1", PROJECT)
    assert event.details["reason"] == "this token may not change this project"


@pytest.mark.parametrize("project_id", [FOREIGN_PROJECT, "never-was"])
async def test_what_is_tried_on_others_things_is_in_the_callers_log_alone(project_id: str) -> None:
    api = await make_api()
    calls = [
        api.own_projects.update_project(
            projects.UpdateProjectRequest(project_id=project_id), headers=api.user
        ),
        api.builds.list_builds(depot.ListBuildsRequest(project_id=project_id), headers=api.user),
    ]
    for call in calls:
        await refusal(call)
    await api.world.audit.close()
    for event, action in zip(
        api.world.audit_store.events, ("projects.update", "builds.list"), strict=True
    ):
        assert (event.organization_id, event.project_id) == ("org1", None)
        assert (event.action, event.result, event.subject) == (action, Result.DENIED, project_id)


async def test_anothers_build_is_tried_on_in_the_callers_log_and_reads_as_one_that_never_was() -> (
    None
):
    api = await make_api()
    build_id = await api.world.finished()
    for named in (build_id, "never-was"):
        request = own.DeleteBuildRequest(build_id=named)
        await refusal(api.own.delete_build(request, headers=api.foreigner))
        await refusal(api.own.get_build(own.GetBuildRequest(build_id=named), headers=api.foreigner))
    await api.world.audit.close()
    told = [
        (event.organization_id, event.project_id, event.result)
        for event in api.world.audit_store.events
    ]
    assert told == [("org2", None, Result.DENIED)] * 4


async def test_what_went_wrong_is_told_as_failed() -> None:
    api = await make_api()
    created = await api.create()
    api.world.audit_store.events.clear()
    request = own.KeepBuildRequest(build_id=created.build_id, retention=Duration(seconds=-1))
    await refusal(api.own.keep_build(request, headers=api.user))
    event = await only(api)
    assert (event.action, event.result) == ("builds.keep", Result.FAILED)
    assert event.project_id == PROJECT
    assert event.details["reason"]


async def test_a_bug_is_told_as_failed_and_its_text_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = await make_api()

    async def broken(*_: object) -> None:
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr(IdentityService, "change_policy", broken)
    request = projects.UpdateProjectRequest(project_id=PROJECT)
    assert (await refusal(api.own_projects.update_project(request, headers=api.user)))[0] is (
        Code.INTERNAL
    )
    event = await only(api)
    assert (event.result, event.details["reason"]) == (Result.FAILED, "internal error")
    assert "1234" not in repr(event)


async def test_a_change_is_answered_though_the_log_cannot_be_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    api = await make_api()
    api.world.audit_store.failure = StorageUnavailable()
    created = await api.create()
    assert await api.world.store.find(created.build_id) is not None
    logged = "".join(capsys.readouterr())
    assert "audit_event_lost" in logged
    assert created.build_id in logged
    assert created.build_token not in logged


async def test_a_refused_token_is_told_of_once_and_counted() -> None:
    api = await make_api()
    secret = new_secret()
    for _ in range(5):
        request = depot.ListBuildsRequest(project_id=PROJECT)
        await refusal(api.builds.list_builds(request, headers=bearer(secret)))
        await refusal(api.builds.list_builds(request, headers={}))
    await api.world.audit.close()
    first, counted = api.world.audit_store.events
    assert (first.action, first.result, first.actor_kind) == ("login.token", "denied", "nobody")
    assert first.organization_id is None
    assert first.details["token"] == public_part(secret)
    assert counted.details["times"] == "4"
    assert secret not in repr((first, counted))


async def test_a_builds_client_that_asks_whether_to_stop_is_no_refused_login() -> None:
    api = await make_api()
    await api.builds.report_build_health(
        depot.ReportBuildHealthRequest(build_id="x"), headers=bearer(new_secret())
    )
    await api.world.audit.close()
    assert api.world.audit_store.events == []


async def test_a_secret_in_the_wrong_place_is_not_kept() -> None:
    api = await make_api()
    secret = new_secret()
    await refusal(api.own.delete_build(own.DeleteBuildRequest(build_id=secret), headers=api.user))
    event = await only(api)
    assert event.subject == f"{public_part(secret)}***"
    assert secret not in repr(event)


async def test_of_a_user_in_two_organizations_both_logs_have_what_is_in_neither() -> None:
    api = await make_api()
    both = Principal(
        "t9", TokenKind.USER, user_id="u9", roles={"org1": Role.VIEWER, "org2": Role.MEMBER}
    )
    token = bearer(await api.world.token(both))
    await refusal(api.own.delete_build(own.DeleteBuildRequest(build_id="x"), headers=token))
    await api.world.audit.close()
    assert [event.organization_id for event in api.world.audit_store.events] == ["org1", "org2"]
