from datetime import timedelta

import pytest
from connectrpc.code import Code
from protobuf.wkt import Timestamp

from layover.http.rpc.convert import to_timestamp
from layover.rpc.layover.v1 import audit_pb as pb
from layover.rpc.layover.v1 import builds_pb as own
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT
from tests.unit.http.rpc.api import Api, bearer, make_api, refusal

pytestmark = pytest.mark.anyio


async def listed(api: Api, headers: dict[str, str], **asked: object) -> list[pb.AuditEvent]:
    request = pb.ListAuditEventsRequest(**asked)  # type: ignore[arg-type]  # as a test says
    return list((await api.audit.list_audit_events(request, headers=headers)).events)


async def test_an_owner_reads_who_did_what() -> None:
    api = await make_api()
    created = await api.create()
    for asked in ({}, {"organization_id": "org1"}, {"project_id": PROJECT}):
        (event,) = await listed(api, api.user, **asked)
        assert event == pb.AuditEvent(
            id=1,
            at=to_timestamp(api.world.clock()),
            organization_id="org1",
            project_id=PROJECT,
            actor_kind="user",
            actor_id="u1",
            action="builds.create",
            subject=created.build_id,
            result="done",
            details={"token_id": "t1"},
        )


async def test_nobody_else_does_and_that_they_tried_is_told() -> None:
    api = await make_api()
    await api.create()
    token = bearer(await api.world.token(api.world.project_token))
    for headers, request, code in (
        (token, pb.ListAuditEventsRequest(project_id=PROJECT), Code.PERMISSION_DENIED),
        (api.foreigner, pb.ListAuditEventsRequest(project_id=PROJECT), Code.NOT_FOUND),
        (api.foreigner, pb.ListAuditEventsRequest(organization_id="org1"), Code.NOT_FOUND),
        (api.user, pb.ListAuditEventsRequest(server=True), Code.PERMISSION_DENIED),
    ):
        assert (await refusal(api.audit.list_audit_events(request, headers=headers)))[0] is code
    assert await listed(api, api.foreigner, project_id=FOREIGN_PROJECT) == []
    await api.world.audit.close()
    tried = [event for event in api.world.audit_store.events if event.action == "audit.list"]
    assert {(event.organization_id, event.result.value) for event in tried} == {
        ("org1", "denied"),
        ("org2", "denied"),
    }


async def test_events_are_chosen_by_time_action_and_actor_and_come_in_pages() -> None:
    api = await make_api()
    start = api.world.clock()
    builds = []
    for _ in range(3):
        builds.append((await api.create()).build_id)
        api.world.clock.advance(seconds=10)
    await api.own.delete_build(own.DeleteBuildRequest(build_id=builds[0]), headers=api.user)
    since = to_timestamp(start + timedelta(seconds=10))
    until = to_timestamp(start + timedelta(seconds=20))
    found = await listed(api, api.user, since=since, until=until)
    assert [event.subject for event in found] == [builds[1]]
    assert len(await listed(api, api.user, action="builds")) == 4
    assert len(await listed(api, api.user, action="builds.delete")) == 1
    assert await listed(api, api.user, actor_id="somebody") == []
    first = await api.audit.list_audit_events(
        pb.ListAuditEventsRequest(page_size=3), headers=api.user
    )
    rest = await api.audit.list_audit_events(
        pb.ListAuditEventsRequest(page_size=3, page_token=first.next_page_token), headers=api.user
    )
    assert [event.id for event in [*first.events, *rest.events]] == [4, 3, 2, 1]
    assert rest.next_page_token == ""


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListAuditEventsRequest(since=Timestamp(seconds=1 << 60)),
        pb.ListAuditEventsRequest(until=Timestamp(seconds=-(1 << 60))),
        pb.ListAuditEventsRequest(since=Timestamp(seconds=2), until=Timestamp(seconds=1)),
        pb.ListAuditEventsRequest(page_size=-1),
        pb.ListAuditEventsRequest(page_token="nonsense"),
        pb.ListAuditEventsRequest(organization_id="org1", project_id=PROJECT),
    ],
)
async def test_what_makes_no_sense_is_refused(request_: pb.ListAuditEventsRequest) -> None:
    api = await make_api()
    code, message = await refusal(api.audit.list_audit_events(request_, headers=api.user))
    assert code is Code.INVALID_ARGUMENT
    assert message
