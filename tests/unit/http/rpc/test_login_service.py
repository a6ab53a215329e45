import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from pyqwest import Client
from pyqwest.testing import ASGITransport

from layover.rpc.depot.cli.v1beta1.login_connect import LoginServiceClient
from layover.rpc.depot.cli.v1beta1.login_pb import FinishLoginRequest, StartLoginRequest
from tests.unit.http.pages.site import URL, Site, site
from tests.unit.http.rpc.api import refusal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as pages:
        yield pages


@pytest.fixture
def logins(pages: Site) -> LoginServiceClient:
    return LoginServiceClient(URL, http_client=Client(ASGITransport(pages.app)))


async def finished(logins: LoginServiceClient, login_id: str) -> list[str]:
    """The tokens that the stream brings."""
    request = FinishLoginRequest(id=login_id)
    return [answer.token async for answer in logins.finish_login(request)]


async def test_a_command_line_is_logged_in_without_a_token(
    pages: Site, logins: LoginServiceClient
) -> None:
    started = await logins.start_login(
        StartLoginRequest(), headers={"user-agent": "layover/1 (laptop; Linux)"}
    )
    assert started.approve_url == f"{URL}/device?code={started.user_code}"
    assert started.id not in started.approve_url
    waiting = asyncio.create_task(finished(logins, started.id))
    browser = await pages.signed_in()
    path = started.approve_url.removeprefix(URL)
    assert "layover/1 (laptop; Linux)" in (await browser.get(path)).text
    await browser.fill(path, "/device", decision="approve")
    (token,) = await waiting
    assert token.startswith("layover_")
    assert await refusal(finished(logins, started.id)) == (
        Code.NOT_FOUND,
        "no such login is waiting, or its time is over: run `layover login` again",
    )


async def test_why_there_is_no_token_is_told(pages: Site, logins: LoginServiceClient) -> None:
    browser = await pages.signed_in()
    denied = await logins.start_login(StartLoginRequest())
    await browser.fill(f"/device?code={denied.user_code}", "/device", decision="deny")
    with pytest.raises(ConnectError) as caught:
        await finished(logins, denied.id)
    assert caught.value.code is Code.PERMISSION_DENIED
    over = await logins.start_login(StartLoginRequest())
    pages.clock.advance(timedelta(minutes=10))
    for login_id in (over.id, "", "made up", over.user_code):
        assert (await refusal(finished(logins, login_id)))[0] is Code.NOT_FOUND


async def test_so_many_logins_may_wait(logins: LoginServiceClient) -> None:
    for _ in range(10):
        await logins.start_login(StartLoginRequest())
    code, text = await refusal(logins.start_login(StartLoginRequest()))
    assert code is Code.RESOURCE_EXHAUSTED
    assert "too many logins" in text
