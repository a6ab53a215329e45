"""The API's pushes as a test has them: each answer is what the test says, and calls are kept."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from protobuf.wkt import Timestamp

from layover.rpc.layover.v1 import builds_pb
from layover.rpc.layover.v1 import pushes_pb as pb
from layover.rpc.layover.v1.builds_connect import BuildsService, BuildsServiceASGIApplication
from layover.rpc.layover.v1.pushes_connect import PushesService, PushesServiceASGIApplication

PROJECT, BUILD, PUSH = "pppppppppp", "bbbbbbbbbb", "pushaaaaaa"
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "d" * 64
LAYER, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
TO = "ghcr.io/acme/app:v1"
PLACE = "ghcr.io/acme/app"


def push(
    status: pb.PushStatus, *transfers: pb.Transfer, push_id: str = PUSH, **more: Any
) -> pb.Push:
    """A push of one build to one place as it stands, a minute after its start if it has ended."""
    has_begun = status is not pb.PushStatus.QUEUED
    ended = status in (pb.PushStatus.DONE, pb.PushStatus.FAILED, pb.PushStatus.CANCELED)
    facts: dict[str, Any] = {
        "destinations": [TO],
        "digest": DIGEST if status is pb.PushStatus.DONE else "",
        "size_bytes": sum(one.size_bytes for one in transfers),
        "sent_bytes": sum(one.sent_bytes for one in transfers),
        **more,
    }
    return pb.Push(
        id=push_id,
        status=status,
        project_id=PROJECT,
        build_id=BUILD,
        created_by="user alice",
        created_at=Timestamp.from_datetime(STARTED),
        started_at=Timestamp.from_datetime(STARTED) if has_begun else None,
        finished_at=Timestamp.from_datetime(STARTED + timedelta(minutes=1)) if ended else None,
        transfers=list(transfers),
        **facts,
    )


def layer(
    state: pb.TransferState, sent: int = 0, digest: str = LAYER, place: str = PLACE
) -> pb.Transfer:
    """One layer of a hundred bytes."""
    return pb.Transfer(place=place, digest=digest, size_bytes=100, sent_bytes=sent, state=state)


class FakePushes(PushesService):
    """Answers GetPush with `answers` in turn, the last one for ever; an error is raised."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.answers: list[pb.Push | ConnectError] = []
        self.listed: list[pb.Push] = []
        self.refusals: dict[str, ConnectError] = {}
        self.asks = 0
        self.builds = FakeBuilds()
        # What happens at a call, before it is answered.
        self.meanwhile: dict[str, Callable[[], None]] = {}

    def heard(self, name: str) -> list[Any]:
        """The requests of one method, in order."""
        return [request for called, request in self.calls if called == name]

    def answer(self, *answers: pb.Push | ConnectError) -> None:
        self.answers, self.asks = list(answers), 0

    def _note(self, name: str, request: Any) -> None:
        self.calls.append((name, request))
        if name in self.meanwhile:
            self.meanwhile.pop(name)()
        if name in self.refusals:
            raise self.refusals[name]

    async def create_push(self, request: Any, ctx: Any) -> pb.CreatePushResponse:
        self._note("create", request)
        return pb.CreatePushResponse(push=push(pb.PushStatus.QUEUED, **_asked(request)))

    async def get_push(self, request: Any, ctx: Any) -> pb.GetPushResponse:
        self._note("get", request)
        answer = self.answers[min(self.asks, len(self.answers) - 1)]
        self.asks += 1
        if isinstance(answer, ConnectError):
            raise answer
        return pb.GetPushResponse(push=answer)

    async def list_pushes(self, request: Any, ctx: Any) -> pb.ListPushesResponse:
        self._note("list", request)
        start = int(request.page_token or 0)
        stop = start + min(request.page_size, 2)
        more = str(stop) if stop < len(self.listed) else ""
        return pb.ListPushesResponse(pushes=self.listed[start:stop], next_page_token=more)

    async def cancel_push(self, request: Any, ctx: Any) -> pb.CancelPushResponse:
        self._note("cancel", request)
        for one in self.listed:
            if one.id == request.push_id:
                return pb.CancelPushResponse(push=one)
        raise ConnectError(Code.NOT_FOUND, f"unknown push {request.push_id!r}")

    async def authorize_push(self, request: Any, ctx: Any) -> pb.AuthorizePushResponse:
        self._note("authorize", request)
        return pb.AuthorizePushResponse()


class FakeBuilds(BuildsService):
    """What a build is, once a test says so."""

    def __init__(self) -> None:
        self.build: builds_pb.Build | None = None
        self.error = ConnectError(Code.UNIMPLEMENTED, "the public API alone")

    async def get_build(self, request: Any, ctx: Any) -> builds_pb.GetBuildResponse:
        if self.build is None:
            raise self.error
        if self.build.id != request.build_id:
            raise ConnectError(Code.NOT_FOUND, f"unknown build {request.build_id!r}")
        return builds_pb.GetBuildResponse(build=self.build)


def application(pushes: FakePushes) -> Any:
    """Both services."""
    first = PushesServiceASGIApplication(pushes)
    second = BuildsServiceASGIApplication(pushes.builds)

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        app: Any = first if scope["path"].startswith(first.path) else second
        await app(scope, receive, send)

    return dispatch


def _asked(request: pb.CreatePushRequest) -> dict[str, Any]:
    return {
        "destinations": list(request.destinations),
        "target": request.target,
        "platforms": list(request.platforms),
        "with_referrers": request.with_referrers,
    }
