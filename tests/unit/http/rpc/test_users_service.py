from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest
from connectrpc.code import Code
from pyqwest import Client
from pyqwest.testing import ASGITransport

from layover.identity.ids import new_secret
from layover.identity.models import NewToken, Principal, TokenKind
from layover.rpc.layover.v1.users_connect import UsersServiceClient
from layover.rpc.layover.v1.users_pb import SetPasswordRequest
from tests.stores import NOW
from tests.unit.http.pages.site import PASSWORD, URL, Site, site
from tests.unit.http.rpc.api import bearer, refusal

pytestmark = pytest.mark.anyio

OTHER = "another horse battery"


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as pages:
        yield pages


@pytest.fixture
def users(pages: Site) -> UsersServiceClient:
    return UsersServiceClient(URL, http_client=Client(ASGITransport(pages.app)))


async def token(pages: Site, principal: Principal) -> dict[str, str]:
    secret = new_secret()
    await pages.stores.identity.add_token(
        NewToken(principal, sha256(secret.encode()).digest(), "a test's", NOW, None)
    )
    return bearer(secret)


async def test_a_user_sets_a_password_and_browsers_sign_in_anew(
    pages: Site, users: UsersServiceClient
) -> None:
    user = await pages.sign_in.create_local_user("ann", PASSWORD)
    browser = pages.browser()
    await browser.sign_in("ann")
    own = await token(pages, Principal("t", TokenKind.USER, user_id=user.id))
    answer = await users.set_password(SetPasswordRequest(password=OTHER), headers=own)
    assert (answer.user_name, answer.sign_in_url) == ("ann", f"{URL}/signin")
    assert (await browser.get("/")).status_code == 303
    assert (await browser.sign_in("ann", PASSWORD)).status_code == 403
    assert (await browser.sign_in("ann", OTHER)).status_code == 303


async def test_it_takes_a_users_own_token(pages: Site, users: UsersServiceClient) -> None:
    request = SetPasswordRequest(password=OTHER)
    assert (await refusal(users.set_password(request)))[0] is Code.UNAUTHENTICATED
    project = await token(pages, Principal("t", TokenKind.PROJECT, "org", project_id="mine"))
    code, text = await refusal(users.set_password(request, headers=project))
    assert code is Code.PERMISSION_DENIED
    assert "user's own" in text


async def test_a_password_that_is_none_is_refused_and_not_repeated(
    pages: Site, users: UsersServiceClient
) -> None:
    user = await pages.sign_in.create_local_user("ann", PASSWORD)
    own = await token(pages, Principal("t", TokenKind.USER, user_id=user.id))
    request = SetPasswordRequest(password="too short")
    code, text = await refusal(users.set_password(request, headers=own))
    assert code is Code.INVALID_ARGUMENT
    assert "too short" not in text
    too_long = SetPasswordRequest(password="x" * 100_000)
    assert (await refusal(users.set_password(too_long, headers=own)))[0] is (
        Code.RESOURCE_EXHAUSTED
    )
