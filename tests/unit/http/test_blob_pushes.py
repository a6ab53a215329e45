"""POST /blobs/BUILD_ID/DIGEST, as the public client sends it, over memory."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from connectrpc.code import Code
from starlette.applications import Starlette
from starlette.types import Message

from layover.audit.models import AuditEvent, Result
from layover.http.blob_pushes import _CODES, _STATUSES, BlobPushRoutes
from layover.http.rpc.authentication import Authentication
from layover.identity.throttle import Limits, LoginThrottle
from layover.identity.trust_service import TrustService
from layover.oci.names import RepositoryName
from layover.oci.references import Place
from layover.promotion.models import (
    RegistryForbidden,
    RegistryRefused,
    RegistryUnauthorized,
    RegistryUnavailable,
)
from tests.access.wire import Answer, Call, send
from tests.unit.builds.world import PROJECT
from tests.unit.identity.memory import MemoryIssuerKeys, MemoryTrustStore
from tests.unit.promotion.blob_world import CONTENT, DIGEST, PLACE, BlobWorld
from tests.unit.promotion.world import VIEWER

SECRET = "open-sesame-4711"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def _at_once(seconds: float) -> None:
    """Nobody waits for a refusal here."""


class Api:
    """The route, a build with a blob, and a user."""

    def __init__(self) -> None:
        self.blobs = BlobWorld()
        world = self.world = self.blobs.world
        trust = TrustService(
            MemoryTrustStore(), world.identity, MemoryIssuerKeys(), world.clock, world.address.url
        )
        throttle = LoginThrottle(Limits(failures=2), sleep=_at_once)
        authentication = Authentication(world.identity, throttle, trust, world.audit)
        self.app = Starlette(routes=BlobPushRoutes(authentication, self.blobs.service).routes())
        self.build_id = ""
        self.tokens: dict[str, str] = {}

    async def post(
        self,
        message: Mapping[str, Any] | bytes,
        *,
        by: str = "user",
        build_id: str = "",
        digest: str = str(DIGEST),
    ) -> Answer:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        call = Call("POST", f"/blobs/{build_id or self.build_id}/{digest}", body)
        token = self.tokens.get(by, by)
        return await send(self.app, call.with_header("authorization", f"Bearer {token}"))

    async def events(self) -> list[AuditEvent]:
        await self.world.audit.close()
        return self.world.audit_store.events


@pytest.fixture
async def api() -> Api:
    api = Api()
    api.build_id = await api.blobs.build()
    api.tokens = {
        "user": await api.world.token(api.world.user),
        "viewer": await api.world.token(VIEWER),
        "stranger": await api.world.token(api.world.foreigner),
    }
    return api


def message(**changes: Any) -> dict[str, Any]:
    """What the public client sends."""
    return {
        "registryHost": "registry.example",
        "repositoryNamespace": "acme/app",
        "registryToken": SECRET,
        "tokenScheme": "Bearer",
        **changes,
    }


def told(answer: Answer) -> tuple[int, str]:
    """The status and the sentence of an error."""
    error = json.loads(answer.body)
    assert set(error) == {"code", "message"}
    assert SECRET not in answer.body.decode()
    return answer.status, error["message"]


pytestmark = pytest.mark.anyio


async def test_the_blob_is_there_when_it_is_answered(api: Api) -> None:
    answer = await api.post(message())
    assert (answer.status, answer.body) == (200, b"{}")
    assert api.blobs.registries.blobs == {(PLACE, DIGEST): CONTENT}
    assert {shown.header for _, shown in api.blobs.registries.shown if shown} == {
        f"Bearer {SECRET}"
    }


@pytest.mark.parametrize(
    ("changes", "header"),
    [
        ({"tokenScheme": "bearer"}, f"Bearer {SECRET}"),
        ({"tokenScheme": ""}, f"Bearer {SECRET}"),
        ({"tokenScheme": "Basic", "registryToken": "YWRhOnB3"}, "Basic YWRhOnB3"),
        ({"registryToken": ""}, None),
        ({"registryToken": None, "tokenScheme": None}, None),
    ],
)
async def test_the_registry_is_shown_what_the_client_got(
    api: Api, changes: dict[str, Any], header: str | None
) -> None:
    assert (await api.post(message(**changes))).status == 200
    assert {shown and shown.header for _, shown in api.blobs.registries.shown} == {header}


async def test_docker_hub_is_one_place_however_it_is_called(api: Api) -> None:
    hub = Place("docker.io", RepositoryName("library/app"))
    for host in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        body = message(registryHost=host, repositoryNamespace="library/app")
        assert (await api.post(body)).status == 200
    assert {place for _, place, _ in api.blobs.registries.calls} == {hub}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        ('{"a": 1}'.encode("utf-16"), "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 1000, "nested deeper"),
        (b'{"a": "' + b"x" * 200_000 + b'"}', "longer than 131072 bytes"),
        (message(registryHost=5), "registryHost is no text"),
        (message(registryHost=""), "'' is not a registry's host"),
        (message(registryHost="registry.example/acme"), "is not a registry's host"),
        (message(registryHost="user@registry.example"), "is not a registry's host"),
        (message(registryHost="registry.example:99999"), "is not a registry's host"),
        (message(registryHost="a\x00b"), "is not a registry's host"),
        (message(repositoryNamespace=""), "invalid repository name"),
        (message(repositoryNamespace="../../v2"), "invalid repository name"),
        (message(repositoryNamespace="acme/app:v1"), "invalid repository name"),
        (message(tokenScheme="Negotiate"), "has to be Bearer or Basic"),
        (message(registryToken=f"{SECRET}\r\nHost: evil.example"), "no token has"),
        (message(registryToken="x" * 70_000), "longer than 65536 bytes"),
        (message(tokenScheme="Basic"), "malformed Basic credentials"),
    ],
    ids=range(19),
)
async def test_a_message_that_makes_no_sense_is_refused(
    api: Api, body: dict[str, Any] | bytes, text: str
) -> None:
    status, said = told(await api.post(body))
    assert status == 400
    assert text in said
    assert not api.blobs.registries.calls
    assert SECRET not in str(await api.events())


async def test_what_is_not_there_is_not_sent(api: Api) -> None:
    nobodys = f"sha256:{'0' * 64}"
    assert told(await api.post(message(), build_id="unknown")) == (404, "unknown build 'unknown'")
    assert told(await api.post(message(), digest=nobodys)) == (
        404,
        f"no blob {nobodys} in {PROJECT}",
    )
    assert told(await api.post(message(), digest="latest"))[0] == 400


async def test_who_may_not_is_told_so(api: Api) -> None:
    assert told(await api.post(message(), by="viewer")) == (
        403,
        "this token may not push builds on to other registries",
    )
    assert told(await api.post(message(), by="stranger")) == (
        404,
        f"unknown build {api.build_id!r}",
    )
    (denied, unknown) = await api.events()
    assert (denied.result, denied.project_id) == (Result.DENIED, PROJECT)
    assert (unknown.result, unknown.project_id) == (Result.DENIED, None)


async def test_nobody_is_heard_without_a_token_and_guessing_is_slowed_down(api: Api) -> None:
    answers = [await api.post(b"not looked at", by="layover_guessed") for _ in range(4)]
    assert told(answers[0])[0] == 401
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert told(answers[-1])[0] == 429
    assert int(answers[-1].headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        # What the client tries again ...
        (RegistryUnavailable(PLACE, "it answered 500"), 502),
        # ... and what it does not.
        (RegistryUnauthorized(PLACE, "denied"), 400),
        (RegistryRefused(PLACE, "the blob", 405, "read-only"), 400),
        (RegistryForbidden(PLACE, "it is a private address"), 400),
    ],
)
async def test_what_goes_wrong_at_the_registry_is_told(
    api: Api, failure: Exception, status: int
) -> None:
    api.blobs.registries.failure = failure
    assert told(await api.post(message())) == (status, str(failure))


async def test_a_bug_is_none_of_the_clients_business(api: Api) -> None:
    api.blobs.registries.failure = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        await api.post(message())


async def test_who_sent_which_blob_where_is_in_the_audit_log(api: Api) -> None:
    await api.post(message())
    (event,) = await api.events()
    assert (event.action, event.result, event.project_id) == ("pushes.blob", Result.DONE, PROJECT)
    assert (event.actor_id, event.subject) == ("u1", api.build_id)
    assert event.details["digest"] == str(DIGEST)
    assert event.details["destination"] == "registry.example/acme/app"
    assert SECRET not in str(event)


async def test_nothing_goes_on_for_a_client_that_went_away(api: Api) -> None:
    asked = asyncio.Event()
    stopped = asyncio.Event()

    async def wait(name: str, place: Place) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    api.blobs.registries.before = wait
    messages: list[Message] = [
        {"type": "http.request", "body": json.dumps(message()).encode(), "more_body": False}
    ]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asked.wait()
        return {"type": "http.disconnect"}

    async def ignore(_: Message) -> None:
        pass

    path = f"/blobs/{api.build_id}/{DIGEST}"
    headers = [(b"authorization", f"Bearer {api.tokens['user']}".encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await api.app({**scope, "query_string": b"", "root_path": ""}, receive, ignore)
    assert stopped.is_set()
    (event,) = await api.events()
    assert (event.result, event.details["reason"]) == (
        Result.FAILED,
        "the client went away before the blob was there",
    )


def test_every_error_has_a_status() -> None:
    assert set(_CODES.values()) <= set(_STATUSES)
    assert _STATUSES[Code.UNAVAILABLE] == 503
