import re
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import Connection, insert, select
from structlog.testing import capture_logs

from layover.adapters.sql.schema import audit_events, memberships
from layover.identity.models import Principal, Role, TokenKind
from tests.stores import NOW
from tests.unit.http.pages.site import PASSWORD, Browser, Site

pytestmark = pytest.mark.anyio

FIELDS = {"name": "bob", "password": PASSWORD, "password_again": PASSWORD}


async def invited(pages: Site, role: Role = Role.MEMBER) -> str:
    """The path of an invitation to the organization `org`."""
    owner = await pages.sign_in.create_local_user("owner", PASSWORD)
    row = {"user_id": owner.id, "organization_id": "org", "role": "owner", "created_at": NOW}
    await pages.stores.database.write(
        lambda connection: connection.execute(insert(memberships).values(row))
    )
    principal = Principal("t", TokenKind.USER, user_id=owner.id, roles={"org": Role.OWNER})
    made = await pages.organizations.invite(principal, "org", role, "for a test", None)
    return f"/join/{made.secret}"


async def role_in_org(browser: Browser) -> str | None:
    page = (await browser.get("/")).text
    found = re.search(
        r'<span class="name">org</span> <code>org</code> <span class="tag">(\w+)', page
    )
    return found[1] if found else None


async def test_a_signed_in_user_joins_by_the_link_once(pages: Site) -> None:
    path = await invited(pages, Role.VIEWER)
    ann, bob = await pages.signed_in("ann"), await pages.signed_in("bob")
    page = (await ann.get(path)).text
    assert "Join as ann" in page
    assert "as viewer" in page
    answer = await ann.fill(path, path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert await role_in_org(ann) == "viewer"
    assert (await bob.get(path)).status_code == 404
    assert (await bob.fill("/", path)).status_code == 404
    assert await role_in_org(bob) is None


async def test_looking_at_an_invitation_uses_nothing_up(pages: Site) -> None:
    path = await invited(pages)
    for browser in (pages.browser(), await pages.signed_in("ann")):
        for _ in range(2):
            assert (await browser.get(path)).status_code == 200
            assert (await browser.client.head(path)).status_code == 200
    bob = pages.browser()
    assert (await bob.fill(path, path, **FIELDS)).status_code == 303
    assert await role_in_org(bob) == "member"


async def test_a_stranger_makes_a_user_and_is_signed_in_as_it(pages: Site) -> None:
    path = await invited(pages)
    browser = pages.browser()
    for wrong, status in (
        ({"name": "owner"}, 409),
        ({"name": "<script>"}, 422),
        ({"password": "short", "password_again": "short"}, 422),
        ({"password_again": "another horse battery"}, 422),
    ):
        answer = await browser.fill(path, path, **{**FIELDS, **wrong})
        assert answer.status_code == status
        assert 'role="alert"' in answer.text
        assert "<script" not in answer.text
        assert PASSWORD not in answer.text
    assert browser.cookie() is None
    assert (await browser.fill(path, path, **FIELDS)).status_code == 303
    assert await role_in_org(browser) == "member"
    assert (await pages.browser().sign_in("bob")).status_code == 303


async def test_whoever_has_a_user_signs_in_first_and_comes_back(pages: Site) -> None:
    path = await invited(pages)
    await pages.sign_in.create_local_user("ann", PASSWORD)
    browser = pages.browser()
    (link,) = re.findall(r'href="(/signin\?[^"]+)"', (await browser.get(path)).text)
    answer = await browser.fill(link, "/signin", name="ann", password=PASSWORD)
    assert answer.headers["location"] == path


async def test_nobody_makes_a_user_without_an_invitation(pages: Site) -> None:
    browser = pages.browser()
    assert (await browser.fill("/signin", "/join/unknown", **FIELDS)).status_code == 404
    assert await pages.sign_in._store.find_user_by_name("bob") is None
    path = await invited(pages)
    pages.clock.advance(timedelta(days=8))
    assert (await browser.get(path)).status_code == 404
    assert (await browser.fill("/signin", path, **FIELDS)).status_code == 404
    for odd in ("/join/", "/join/a/b", "/join/%00", "/join/%ff", "/join/" + "a" * 5000):
        assert (await browser.get(odd)).status_code == 404


async def test_nobody_joins_by_another_sites_form(pages: Site) -> None:
    path = await invited(pages)
    ann = await pages.signed_in("ann")
    assert (await ann.submit(path, {})).status_code == 403
    evil = {"origin": "https://evil.example"}
    assert (await ann.submit(path, {}, evil)).status_code == 403
    assert (await pages.browser().submit(path, FIELDS)).status_code == 403
    assert await role_in_org(ann) is None


async def test_the_secret_of_an_invitation_is_in_no_log_and_goes_to_no_other_site(
    pages: Site, tmp_path: Path
) -> None:
    path = await invited(pages)
    secret = path.removeprefix("/join/")
    with capture_logs() as logs:
        page = await pages.browser().get(path)
        await pages.browser().get(path.replace("/join/", "/%6Aoin/"))
        await pages.browser().fill(path, path, **FIELDS)
        await pages.browser().get(path)
    assert "/join/" in repr(logs)
    assert secret not in repr(logs)
    assert page.headers["referrer-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store"
    stored = b"".join((tmp_path / name).read_bytes() for name in ("layover.db", "layover.db-wal"))
    assert secret.encode() not in stored


async def test_who_signed_in_joined_and_approved_is_in_the_audit_log(pages: Site) -> None:
    path = await invited(pages)
    browser = pages.browser()
    await browser.sign_in("owner", "wrong password")
    await browser.fill(path, path, **FIELDS)
    _, code = await pages.waiting()
    await browser.fill(f"/device?code={code}", "/device", decision="approve")
    await browser.fill("/", "/signout")
    await browser.sign_in("bob")
    await pages.audit.close()

    def work(connection: Connection) -> list[tuple[str, str, str, str | None]]:
        columns = audit_events.c
        query = select(columns.action, columns.result, columns.actor_name, columns.organization_id)
        rows = connection.execute(query.order_by(columns.id)).all()
        return [cast("tuple[str, str, str, str | None]", tuple(row)) for row in rows]

    events = await pages.stores.database.read(work)
    assert sorted(events) == sorted(
        [
            ("login.password", "denied", "", None),
            ("members.join", "done", "bob", "org"),
            ("login.invitation", "done", "bob", "org"),
            ("login.approve", "done", "bob", "org"),
            ("logout", "done", "bob", "org"),
            ("login.password", "done", "bob", "org"),
        ]
    )
