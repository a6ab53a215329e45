"""Calls reach the server with the token, are tried again where that is safe, and fail as ours."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.cli.project_rows import project_row, shown_project
from layover.client import errors
from layover.client.address import Server
from layover.client.api import ATTEMPTS, Client, trusted_certificates
from layover.client.wire import from_connect
from layover.rpc.depot.cli.v1 import build_pb as wire
from layover.rpc.layover.v1.projects_pb import Project
from tests.unit.client.fake_server import BUILD_ID, PROJECT_ID, TOKEN, FakeServer, serving


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


async def finish(url: str) -> None:
    async with Client(Server(url, TOKEN), env={}) as client:
        await client.finish_build(wire.FinishBuildRequest(build_id=BUILD_ID))


async def create(url: str) -> wire.CreateBuildResponse:
    async with Client(Server(url, TOKEN), env={}) as client:
        return await client.create_build(wire.CreateBuildRequest())


def test_every_call_carries_the_token(fake: FakeServer) -> None:
    assert asyncio.run(create(fake.url)).build_id == BUILD_ID
    assert fake.tokens("create_build") == {TOKEN}


def test_what_may_be_repeated_is_tried_again(fake: FakeServer) -> None:
    fake.unavailable["finish_build"] = ATTEMPTS - 1
    asyncio.run(finish(fake.url))
    assert len(fake.heard("finish_build")) == ATTEMPTS


def test_a_build_is_created_once_or_not_at_all(fake: FakeServer) -> None:
    fake.unavailable["create_build"] = 1
    with pytest.raises(errors.ServerUnreachable):
        asyncio.run(create(fake.url))
    assert len(fake.heard("create_build")) == 1


def test_the_servers_reason_is_the_errors_text(fake: FakeServer) -> None:
    async def ask() -> None:
        async with Client(Server(fake.url, TOKEN), env={}) as client:
            await client.get_pull_info("aaaaaaaaaa")

    with pytest.raises(errors.NotFound, match="unknown build 'aaaaaaaaaa'"):
        asyncio.run(ask())


def test_nobody_listening_is_told_with_the_address_once() -> None:
    with pytest.raises(errors.ServerUnreachable) as caught:
        asyncio.run(create("http://127.0.0.1:9"))
    assert str(caught.value).count("127.0.0.1:9") == 1
    assert "refused" in str(caught.value)


def test_a_method_that_the_server_lacks_is_not_layover(fake: FakeServer) -> None:
    async def ask() -> None:
        async with Client(Server(fake.url, TOKEN), env={}) as client:
            assert await client.find_build(BUILD_ID) is None
            await client.get_project(PROJECT_ID)

    with pytest.raises(errors.NotLayover):
        asyncio.run(ask())


def test_a_server_of_the_public_api_alone_lists_its_projects_without_policies(
    fake: FakeServer,
) -> None:
    async def ask() -> list[Project]:
        async with Client(Server(fake.url, TOKEN), env={}) as client:
            return await client.list_projects()

    (project,) = asyncio.run(ask())
    assert (project.id, project.organization_name) == (PROJECT_ID, "acme")
    assert shown_project(project) == {
        "id": PROJECT_ID,
        "name": "default",
        "organization": "acme",
        **dict.fromkeys(("retention", "maximum", "extends", "quota", "used"), ""),
    }
    row = project_row(project)
    assert row["retentionSeconds"] is row["extendsOnPull"] is row["quotaBytes"] is None


def test_a_canceled_call_ends_its_task(fake: FakeServer) -> None:
    async def wait() -> bool:
        fake.unavailable["finish_build"] = 100
        task = asyncio.create_task(finish(fake.url))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(wait())


def test_a_call_that_is_answered_while_it_is_canceled_ends_its_task_too() -> None:
    async def forgetful(begun: asyncio.Event) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "the answer"
        return "never"

    async def wait() -> bool:
        begun = asyncio.Event()
        async with Client(Server("http://a", TOKEN), env={}) as client:
            task = asyncio.create_task(client._once(forgetful(begun)))
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(wait())


def test_a_task_that_was_canceled_before_may_still_call(fake: FakeServer) -> None:
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await finish(fake.url)
            raise

    async def cancel() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(cancel())
    assert len(fake.heard("finish_build")) == 1


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_an_error_of_ours(code: Code) -> None:
    error = from_connect(ConnectError(code, "because"), "http://server")
    assert type(error) is not errors.ClientError
    assert "because" in str(error) or isinstance(error, errors.NotLayover)


@pytest.mark.parametrize("content", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_without_authorities_is_told_by_its_variable(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(content)
    with pytest.raises(errors.ClientError, match="SSL_CERT_FILE"):
        Client(Server("https://a", "t"), env={"SSL_CERT_FILE": str(path)})


def test_a_certificate_that_is_not_trusted_is_no_server_that_is_away() -> None:
    reason = "client error (Connect): invalid peer certificate: UnknownIssuer"
    error = from_connect(ConnectError(Code.UNAVAILABLE, reason), "https://server")
    assert isinstance(error, errors.NotTrusted)
    assert str(error).endswith(": UnknownIssuer")


def test_the_named_authorities_replace_the_systems(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"PEM")
    assert trusted_certificates({"SSL_CERT_FILE": str(path)}) == b"PEM"
    assert trusted_certificates({}) is None
    with pytest.raises(errors.ClientError, match="SSL_CERT_FILE"):
        trusted_certificates({"SSL_CERT_FILE": str(tmp_path / "none")})
