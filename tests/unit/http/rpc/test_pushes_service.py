"""Pushes over the API: their messages, their errors, and that no secret is told."""

from datetime import timedelta
from typing import Literal

import pytest
from connectrpc.code import Code
from protobuf import Oneof

from layover.audit.models import Result
from layover.http.rpc.convert import to_timestamp
from layover.http.rpc.pushes_service import MAX_PUSH_MESSAGE_BYTES
from layover.oci.digest import Digest
from layover.promotion.models import Authorization, AuthorizationScheme, Transfer, TransferState
from layover.rpc.layover.v1 import pushes_pb as pb
from tests.unit.builds.memory import START
from tests.unit.builds.world import PROJECT
from tests.unit.http.rpc.api import refusal
from tests.unit.http.rpc.push_api import PushApi, make_push_api
from tests.unit.promotion.world import DESTINATION, PLACE

pytestmark = pytest.mark.anyio

SECRET = "open-sesame-4711"


def token(place: str = PLACE, secret: str = SECRET) -> pb.PlaceAuthorization:
    bearer = pb.BearerToken(token=secret, expires_at=to_timestamp(START + timedelta(minutes=5)))
    return pb.PlaceAuthorization(
        place=place, authorization=Oneof[Literal["bearer"], pb.BearerToken]("bearer", bearer)
    )


def credentials(username: str, password: str) -> pb.PlaceAuthorization:
    basic = pb.BasicCredentials(username=username, password=password)
    return pb.PlaceAuthorization(
        place=PLACE, authorization=Oneof[Literal["basic"], pb.BasicCredentials]("basic", basic)
    )


async def create(api: PushApi, *authorizations: pb.PlaceAuthorization) -> pb.Push:
    answer = await api.pushes.create_push(
        pb.CreatePushRequest(
            build_id=await api.world.world.finished(),
            destinations=[DESTINATION],
            authorizations=list(authorizations),
        ),
        headers=api.user,
    )
    assert answer.push is not None
    return answer.push


async def test_a_push_is_created_and_told_as_it_stands() -> None:
    api = await make_push_api()
    build_id = await api.world.world.finished("db", "web")
    answer = await api.pushes.create_push(
        pb.CreatePushRequest(
            build_id=build_id,
            target="web",
            destinations=["app", DESTINATION],
            platforms=["amd64"],
            with_referrers=True,
            authorizations=[token()],
        ),
        headers=api.user,
    )
    push = answer.push
    assert push is not None
    assert (push.status, push.project_id, push.build_id, push.target) == (
        pb.PushStatus.QUEUED,
        PROJECT,
        build_id,
        "web",
    )
    assert list(push.destinations) == ["docker.io/library/app:latest", DESTINATION]
    assert (list(push.platforms), push.with_referrers) == (["linux/amd64"], True)
    assert (push.created_at, push.created_by) == (to_timestamp(START), "user u1")
    assert (push.started_at, push.finished_at, push.error, push.digest) == (None, None, "", "")
    (given,) = api.world.authorizations.of[push.id].values()
    assert given == Authorization(AuthorizationScheme.BEARER, SECRET, START + timedelta(minutes=5))


async def test_credentials_of_a_registry_that_knows_nothing_else_are_taken() -> None:
    api = await make_push_api()
    push = await create(api, credentials("ada", SECRET))
    (given,) = api.world.authorizations.of[push.id].values()
    assert given.scheme is AuthorizationScheme.BASIC


async def test_what_was_sent_is_told_by_blob_and_in_all() -> None:
    api = await make_push_api()
    push_id = (await create(api)).id
    now = api.world.world.clock()
    until = now + timedelta(minutes=1)
    await api.world.store.claim("a server", now, until, 1)
    (place,) = (await api.world.pushes.find(api.world.world.user, push_id)).places
    first, second = Digest.of(b"1"), Digest.of(b"2")
    await api.world.store.report(
        push_id,
        "a server",
        now,
        until,
        transfers=[
            Transfer(place, first, 10, 4, TransferState.SENDING),
            Transfer(place, second, 5, 5, TransferState.SENT),
        ],
        digest=Digest.of(b"index"),
        waits_for=[place],
    )
    answer = await api.pushes.get_push(pb.GetPushRequest(push_id=push_id), headers=api.viewer)
    push = answer.push
    assert push is not None
    assert [
        (each.place, each.digest, each.size_bytes, each.sent_bytes, each.state)
        for each in push.transfers
    ] == [
        (PLACE, str(first), 10, 4, pb.TransferState.SENDING),
        (PLACE, str(second), 5, 5, pb.TransferState.SENT),
    ]
    assert (push.size_bytes, push.sent_bytes) == (15, 9)
    assert (push.status, push.started_at) == (pb.PushStatus.RUNNING, to_timestamp(now))
    assert (list(push.waits_for), push.digest) == ([PLACE], str(Digest.of(b"index")))
    listed = await api.pushes.list_pushes(
        pb.ListPushesRequest(project_id=PROJECT), headers=api.user
    )
    assert [(each.id, list(each.transfers)) for each in listed.pushes] == [(push_id, [])]


async def test_a_push_is_canceled() -> None:
    api = await make_push_api()
    push_id = (await create(api)).id
    answer = await api.pushes.cancel_push(pb.CancelPushRequest(push_id=push_id), headers=api.user)
    assert answer.push is not None
    assert answer.push.status is pb.PushStatus.CANCELED
    request = pb.AuthorizePushRequest(push_id=push_id, authorizations=[token()])
    assert await refusal(api.pushes.authorize_push(request, headers=api.user)) == (
        Code.FAILED_PRECONDITION,
        f"push {push_id} has ended: it is canceled",
    )


async def test_a_push_is_authorized_anew() -> None:
    api = await make_push_api()
    push_id = (await create(api)).id
    request = pb.AuthorizePushRequest(push_id=push_id, authorizations=[token()])
    answer = await api.pushes.authorize_push(request, headers=api.user)
    assert answer.push is not None
    assert [given.secret for given in api.world.authorizations.of[push_id].values()] == [SECRET]


async def test_pushes_are_listed_in_pages() -> None:
    api = await make_push_api()
    created = []
    for _ in range(3):
        created.append((await create(api)).id)
        api.world.world.clock.advance(seconds=1)
    listed: list[str] = []
    page_token = ""
    while page_token or not listed:
        request = pb.ListPushesRequest(project_id=PROJECT, page_size=2, page_token=page_token)
        page = await api.pushes.list_pushes(request, headers=api.user)
        listed += [push.id for push in page.pushes]
        page_token = page.next_page_token
    assert listed == created[::-1]


@pytest.mark.parametrize(
    "authorization",
    [
        pb.PlaceAuthorization(place=PLACE),
        token(secret=""),
        token(secret=f"{SECRET}\r\nHost: evil.example"),
        token(secret=SECRET * 10_000),
        token(place=f"{PLACE}/other"),
        credentials("", SECRET),
        credentials("a:b", SECRET),
        credentials("a", f"{SECRET}\x00"),
    ],
    ids=range(8),
)
async def test_an_authorization_that_is_none_is_refused_and_never_quoted(
    authorization: pb.PlaceAuthorization, capfd: pytest.CaptureFixture[str]
) -> None:
    api = await make_push_api()
    code, message = await refusal(create(api, authorization))
    assert code is Code.INVALID_ARGUMENT
    events = await api.events()
    out, err = capfd.readouterr()
    assert SECRET not in f"{message} {events} {out} {err}"


async def test_so_many_authorizations_are_read() -> None:
    api = await make_push_api()
    code, message = await refusal(create(api, *(token() for _ in range(21))))
    assert (code, message) == (
        Code.INVALID_ARGUMENT,
        "authorizations for more than 20 repositories",
    )


async def test_a_message_is_so_long() -> None:
    api = await make_push_api()
    code, _ = await refusal(create(api, token(secret="x" * MAX_PUSH_MESSAGE_BYTES)))
    assert code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"build_id": "unknown"}, Code.NOT_FOUND, "unknown build 'unknown'"),
        ({"destinations": []}, Code.INVALID_ARGUMENT, "no destination"),
        ({"destinations": ["A"]}, Code.INVALID_ARGUMENT, "invalid destination 'A'"),
        ({"target": "web"}, Code.INVALID_ARGUMENT, "has no targets"),
        ({"platforms": ["plan9"]}, Code.INVALID_ARGUMENT, "is not for 'plan9'"),
    ],
)
async def test_what_cannot_be_pushed_says_why(
    changes: dict[str, str], code: Code, text: str
) -> None:
    api = await make_push_api()
    facts = {"build_id": await api.world.world.finished(), "destinations": [DESTINATION]}
    request = pb.CreatePushRequest(**{**facts, **changes})  # type: ignore[arg-type]  # by name
    told = await refusal(api.pushes.create_push(request, headers=api.user))
    assert told[0] is code
    assert text in told[1]


async def test_a_stranger_is_told_of_a_push_as_of_one_that_never_was() -> None:
    api = await make_push_api()
    push_id = (await create(api)).id
    for key in (push_id, "neverthere"):
        for call in (
            api.pushes.get_push(pb.GetPushRequest(push_id=key), headers=api.stranger),
            api.pushes.cancel_push(pb.CancelPushRequest(push_id=key), headers=api.stranger),
            api.pushes.authorize_push(
                pb.AuthorizePushRequest(push_id=key, authorizations=[token()]),
                headers=api.stranger,
            ),
        ):
            code, message = await refusal(call)
            assert code is Code.NOT_FOUND
            assert message.replace(key, "ID") == (
                "unknown push 'ID': `layover pushes list` shows pushes"
            )


async def test_nobody_is_told_anything() -> None:
    api = await make_push_api()
    push_id = (await create(api)).id
    code, _ = await refusal(api.pushes.get_push(pb.GetPushRequest(push_id=push_id)))
    assert code is Code.UNAUTHENTICATED


# --- the audit log -------------------------------------------------------------------------------


async def test_who_pushed_what_where_is_in_the_audit_log_and_with_what_is_not() -> None:
    api = await make_push_api()
    push = await create(api, token())
    request = pb.AuthorizePushRequest(push_id=push.id, authorizations=[token(secret=SECRET * 2)])
    await api.pushes.authorize_push(request, headers=api.user)
    await api.pushes.cancel_push(pb.CancelPushRequest(push_id=push.id), headers=api.user)
    events = await api.events()
    assert [event.action for event in events] == [
        "pushes.create",
        "pushes.authorize",
        "pushes.cancel",
    ]
    for event in events:
        assert (event.actor_id, event.project_id, event.subject) == ("u1", PROJECT, push.id)
        assert event.result is Result.DONE
        assert event.details["build_id"] == push.build_id
        assert event.details["destinations"] == DESTINATION
    assert SECRET not in str(events)


async def test_what_a_viewer_may_not_is_in_the_audit_log_of_the_project() -> None:
    api = await make_push_api()
    build_id = await api.world.world.finished()
    request = pb.CreatePushRequest(build_id=build_id, destinations=[DESTINATION, "app"])
    code, _ = await refusal(api.pushes.create_push(request, headers=api.viewer))
    assert code is Code.PERMISSION_DENIED
    (event,) = await api.events()
    assert (event.action, event.result, event.project_id) == (
        "pushes.create",
        Result.DENIED,
        PROJECT,
    )
    assert (event.subject, event.details["destinations"]) == (build_id, f"{DESTINATION}, app")
    assert event.details["reason"] == "this token may not push builds on to other registries"


async def test_whose_push_a_viewer_may_not_cancel_is_in_the_log_of_the_project() -> None:
    api = await make_push_api()
    push = await create(api)
    api.world.world.audit_store.events.clear()
    request = pb.CancelPushRequest(push_id=push.id)
    await refusal(api.pushes.cancel_push(request, headers=api.viewer))
    (event,) = await api.events()
    assert (event.action, event.result, event.project_id, event.subject) == (
        "pushes.cancel",
        Result.DENIED,
        PROJECT,
        push.id,
    )


async def test_what_a_stranger_tried_is_in_its_own_log() -> None:
    api = await make_push_api()
    push = await create(api)
    api.world.world.audit_store.events.clear()
    request = pb.CancelPushRequest(push_id=push.id)
    await refusal(api.pushes.cancel_push(request, headers=api.stranger))
    (event,) = await api.events()
    assert (event.organization_id, event.project_id, event.result) == (
        "org2",
        None,
        Result.DENIED,
    )
