import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from layover.errors import StorageUnavailable
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.oci.references import Destination, Place
from layover.promotion import runner as module
from layover.promotion.models import (
    Authorization,
    AuthorizationScheme,
    Push,
    PushStatus,
    RegistryRefused,
    RegistryUnauthorized,
    TransferState,
)
from layover.promotion.ports import Claim
from layover.promotion.runner import PushRunner
from layover.promotion.sealing import AuthorizationVault, new_key
from layover.promotion.transfer import TransferService
from tests.unit.promotion.images import Images
from tests.unit.promotion.memory import MemoryPushSource, MemoryPushStore, MemoryRegistries

pytestmark = pytest.mark.anyio

REPOSITORY = RepositoryName("project123")
APP = Destination.parse("r.io/app:1").place
KEY = new_key()
TOKEN = Authorization(AuthorizationScheme.BEARER, "first")
FRESH = Authorization(AuthorizationScheme.BEARER, "second")
LOGIN = Authorization(AuthorizationScheme.BASIC, base64.b64encode(b"u:p").decode())


def now() -> datetime:
    return datetime.now(UTC)


class Servers:
    """Servers over one store, each with what it remembers."""

    def __init__(self) -> None:
        self.store = MemoryPushStore()
        self.there = MemoryRegistries()
        self.images = Images(MemoryPushSource(), REPOSITORY)
        self.image = self.images.image("a", layers=2)

    def vault(self) -> AuthorizationVault:
        return AuthorizationVault(self.store, KEY)

    def runner(self, vault: AuthorizationVault, holder: str = "one") -> PushRunner:
        transfers = TransferService(self.images.source, now, timedelta(hours=1))
        return PushRunner(self.store, transfers, self.there, vault, now, holder)

    async def add(self, push_id: str = "push1", source: Digest | None = None) -> Push:
        push = Push(
            id=push_id,
            project_id=REPOSITORY.value,
            build_id="build12345",
            target="",
            source=source or self.image.digest,
            destinations=(Destination.parse("r.io/app:1"),),
            created_at=now(),
            created_by="ann",
        )
        await self.store.add(push, 100)
        return push

    async def until(self, push_id: str, holds: Callable[[Push], bool]) -> Push:
        async with asyncio.timeout(20):
            while True:
                push = await self.store.find(push_id)
                assert push is not None
                if holds(push):
                    return push
                await asyncio.sleep(0.01)

    async def ended(self, push_id: str = "push1") -> Push:
        return await self.until(push_id, lambda push: push.status.has_ended)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REPORT_SECONDS", 0.02)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)


@pytest.fixture
def servers() -> Servers:
    return Servers()


@asynccontextmanager
async def running(runner: PushRunner) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_push_is_done_and_says_how_far_it_came(servers: Servers) -> None:
    vault = servers.vault()
    await servers.add()
    await vault.put("push1", {APP: TOKEN})
    async with running(servers.runner(vault)):
        push = await servers.ended()
    assert (push.status, push.error) == (PushStatus.DONE, None)
    assert push.digest == servers.image.digest
    assert {one.state for one in push.transfers} == {TransferState.SENT}
    assert {shown for _, shown in servers.there.shown} == {TOKEN}
    assert servers.there.manifests[APP, "1"] == servers.image.body
    # Nothing of what authorized it is left.
    assert vault.of("push1", APP) is None
    assert await servers.store.sealed("push1") == {}


async def test_a_failure_is_told_in_the_registrys_words(servers: Servers) -> None:
    await servers.add()
    servers.there.failure = RegistryRefused(APP, "a blob", 403, "quota exceeded")
    async with running(servers.runner(servers.vault())):
        push = await servers.ended()
    assert push.status is PushStatus.FAILED
    assert push.error is not None
    assert push.error.startswith("r.io refused a blob (403): quota exceeded. ")


async def test_a_bug_is_told_without_its_details(servers: Servers) -> None:
    await servers.add()
    servers.there.failure = RuntimeError("secret detail")
    async with running(servers.runner(servers.vault())):
        push = await servers.ended()
    assert push.status is PushStatus.FAILED
    assert push.error == "the server failed: push again, and see the server's log"


async def test_a_running_push_that_is_canceled_stops(servers: Servers) -> None:
    await servers.add()
    sending = asyncio.Event()
    stopped = asyncio.Event()

    async def hang(name: str, place: Place) -> None:
        if name == "send":
            sending.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    servers.there.before = hang
    async with running(servers.runner(servers.vault())):
        await sending.wait()
        await servers.store.cancel("push1", now())
        push = await servers.ended()
    assert push.status is PushStatus.CANCELED
    assert stopped.is_set()
    assert servers.there.manifests == {}


async def test_a_push_waits_for_an_authorization_that_another_server_is_given(
    servers: Servers,
) -> None:
    await servers.add()
    here, elsewhere = servers.vault(), servers.vault()

    async def check(name: str, place: Place) -> None:
        if servers.there.shown[-1][1] != FRESH:
            raise RegistryUnauthorized(place)

    servers.there.before = check
    async with running(servers.runner(here)):
        await servers.until("push1", lambda push: push.waits_for == (APP,))
        assert await elsewhere.put("push1", {APP: FRESH})
        push = await servers.ended()
    assert push.status is PushStatus.DONE
    assert push.waits_for == ()


async def test_nobody_authorizing_it_fails_the_push(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AUTHORIZATION_SECONDS", 0.1)
    await servers.add()
    servers.there.failure = RegistryUnauthorized(APP, "authentication required")
    async with running(servers.runner(servers.vault())):
        push = await servers.ended()
    assert push.status is PushStatus.FAILED
    assert push.error is not None
    assert "authentication required" in push.error
    assert "docker login r.io" in push.error


async def test_a_login_that_is_refused_each_time_it_is_given_fails_the_push_soon(
    servers: Servers,
) -> None:
    await servers.add()
    vault = servers.vault()
    await vault.put("push1", {APP: LOGIN})
    servers.there.failure = RegistryUnauthorized(APP)
    given = 0
    async with running(servers.runner(vault)), asyncio.timeout(20):
        while True:
            push = await servers.until(
                "push1", lambda push: push.status.has_ended or bool(push.waits_for)
            )
            if push.status.has_ended:
                break
            # As a client does that has no other.
            await vault.put("push1", {APP: LOGIN})
            given += 1
            await asyncio.sleep(0.02)
    assert push.status is PushStatus.FAILED
    assert push.error is not None
    assert "docker login r.io" in push.error
    assert given


async def test_another_server_goes_on_at_once_when_one_stops(servers: Servers) -> None:
    vault = servers.vault()
    await servers.add()
    await vault.put("push1", {APP: TOKEN})
    sent: list[str] = []
    second_blob = asyncio.Event()

    async def slow(name: str, place: Place) -> None:
        if name == "send":
            sent.append(name)
            if len(sent) > 1 and not second_blob.is_set():
                second_blob.set()
                await asyncio.Event().wait()

    servers.there.before = slow
    async with running(servers.runner(vault)):
        await second_blob.wait()
    async with running(servers.runner(servers.vault(), "two")):
        push = await servers.ended()
    assert push.status is PushStatus.DONE
    assert push.digest == servers.image.digest
    # The other server learned what to show from the database.
    assert {shown for _, shown in servers.there.shown} == {TOKEN}
    states = sorted(one.state for one in push.transfers)
    assert TransferState.EXISTS in states


async def test_a_push_that_is_another_servers_by_now_is_left_alone(servers: Servers) -> None:
    await servers.add()
    stopped, sending = asyncio.Event(), asyncio.Event()

    async def hang(name: str, place: Place) -> None:
        if name == "send":
            sending.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    servers.there.before = hang
    async with running(servers.runner(servers.vault())):
        await sending.wait()
        later = now() + timedelta(minutes=1)
        claim = await servers.store.claim("two", later, later + timedelta(minutes=1), 5)
        assert claim is not None
        assert claim.takeovers == 1
        await stopped.wait()
        push = await servers.store.find("push1")
    assert push is not None
    assert push.status is PushStatus.RUNNING


async def test_a_bug_in_the_store_does_not_end_pushes_for_good(servers: Servers) -> None:
    await servers.add()
    claim, failures = servers.store.claim, 2

    async def break_first(*arguments: Any, **named: Any) -> Claim | None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ValueError("a status of the next release")
        return await claim(*arguments, **named)

    servers.store.claim = break_first  # type: ignore[method-assign]
    async with running(servers.runner(servers.vault())):
        push = await servers.ended()
    assert push.status is PushStatus.DONE


async def test_a_push_that_a_registry_draws_out_ends_some_day(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST", timedelta(seconds=0.1))
    await servers.add()

    async def hang(name: str, place: Place) -> None:
        if name == "send":
            await asyncio.Event().wait()

    servers.there.before = hang
    async with running(servers.runner(servers.vault())):
        push = await servers.ended()
    assert push.status is PushStatus.FAILED
    assert "was not done within" in (push.error or "")


async def test_a_push_that_each_server_dies_of_is_given_up(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_TAKEOVERS", 2)
    await servers.add()
    at = now() - timedelta(days=1)
    for _ in range(3):
        assert await servers.store.claim("dead", at, at, 5) is not None
    async with running(servers.runner(servers.vault())):
        push = await servers.ended()
    assert push.status is PushStatus.FAILED
    assert "none ended it" in (push.error or "")
    assert servers.there.calls == []


async def test_an_outage_of_the_database_does_not_stop_a_push(servers: Servers) -> None:
    await servers.add()
    report, failures = servers.store.report, 3
    sending, over = asyncio.Event(), asyncio.Event()

    async def fail(*arguments: Any, **named: Any) -> bool | None:
        nonlocal failures
        if sending.is_set() and failures:
            failures -= 1
            over.set() if not failures else None
            raise StorageUnavailable
        return await report(*arguments, **named)

    servers.store.report = fail  # type: ignore[method-assign]  # a database that is away

    async def wait(name: str, place: Place) -> None:
        if name == "send":
            sending.set()
            await over.wait()

    servers.there.before = wait
    async with running(servers.runner(servers.vault())):
        push = await servers.ended()
    assert push.status is PushStatus.DONE
    assert {one.state for one in push.transfers} == {TransferState.SENT}


async def test_no_more_pushes_than_may_are_worked_on_at_once(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PUSHES_AT_ONCE", 2)
    for number in range(4):
        await servers.add(f"push{number}")
    gate, begun = asyncio.Event(), asyncio.Event()

    async def wait(name: str, place: Place) -> None:
        begun.set()
        await gate.wait()

    servers.there.before = wait
    async with running(servers.runner(servers.vault())):
        await begun.wait()
        await asyncio.sleep(0.2)
        pushes = [await servers.store.find(f"push{number}") for number in range(4)]
        running_ = [push for push in pushes if push and push.status is PushStatus.RUNNING]
        assert len(running_) == 2
        gate.set()
        for number in range(4):
            assert (await servers.ended(f"push{number}")).status is PushStatus.DONE


async def test_a_server_that_slept_goes_on_with_its_own_push_once(servers: Servers) -> None:
    await servers.add()
    sending, over = asyncio.Event(), asyncio.Event()

    async def wait(name: str, place: Place) -> None:
        if name == "send":
            sending.set()
            await over.wait()

    servers.there.before = wait
    async with running(servers.runner(servers.vault())):
        await sending.wait()
        later = now() + timedelta(minutes=1)
        # As if nothing had been reported since.
        past = now() - timedelta(seconds=1)
        assert await servers.store.report("push1", "one", later, past) is not None
        await asyncio.sleep(0.2)
        over.set()
        push = await servers.ended()
    assert push.status is PushStatus.DONE
    sent = [what for name, _, what in servers.there.calls if name == "send"]
    assert len(sent) == len(set(sent))


async def test_what_is_no_longer_there_fails_the_push(servers: Servers) -> None:
    await servers.add(source=Digest.of(b"gone"))
    async with running(servers.runner(servers.vault())):
        push = await servers.ended()
    assert push.status is PushStatus.FAILED
    assert push.error is not None
    assert "build it again" in push.error


async def test_a_login_in_memory_serves_the_server_that_was_given_it(servers: Servers) -> None:
    vault = servers.vault()
    push = await servers.add()
    await vault.put(push.id, {APP: LOGIN})
    async with running(servers.runner(vault)):
        assert (await servers.ended()).status is PushStatus.DONE
    assert LOGIN in {shown for _, shown in servers.there.shown}
