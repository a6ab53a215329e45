import html
import re
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from layover.adapters.sql.schema import audit_events
from layover.identity.sign_in import SESSION_LIFETIME
from layover.identity.throttle import Limits
from tests.unit.http.pages.site import PASSWORD, Site, hidden_fields, site

pytestmark = pytest.mark.anyio


async def test_a_user_signs_in_sees_who_they_are_and_signs_out(pages: Site) -> None:
    browser = await pages.signed_in("ann")
    home = await browser.get("/")
    assert home.status_code == 200
    assert "Signed in as" in home.text
    assert "member of no organization" in home.text
    secret = browser.cookie()
    assert secret
    answer = await browser.fill("/", "/signout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/signin")
    assert browser.cookie() is None
    # The secret itself is worth nothing any more.
    browser.client.cookies.set("__Host-layover", secret, domain="layover.example.com", path="/")
    assert (await browser.get("/")).headers["location"] == "/signin"


async def test_the_cookie_is_for_this_host_alone_and_out_of_scripts_reach(pages: Site) -> None:
    await pages.sign_in.create_local_user("ann", PASSWORD)
    answer = await pages.browser().sign_in("ann")
    (session,) = (
        value for value in answer.headers.get_list("set-cookie") if "__Host-layover=" in value
    )
    attributes = {part.strip().lower() for part in session.split(";")[1:]}
    assert attributes == {
        "httponly",
        "secure",
        "path=/",
        "samesite=lax",
        f"max-age={int(SESSION_LIFETIME.total_seconds())}",
    }


async def test_on_plain_http_the_cookie_does_without_what_needs_https(tmp_path: Path) -> None:
    async with site(tmp_path, "http://127.0.0.1:5000") as pages:
        await pages.sign_in.create_local_user("ann", PASSWORD)
        browser = pages.browser()
        answer = await browser.sign_in("ann")
        session = answer.headers.get_list("set-cookie")[0]
        assert session.startswith("layover=")
        assert "secure" not in session.lower()
        assert "httponly" in session.lower()
        assert (await browser.get("/")).status_code == 200


async def test_a_session_is_over_after_its_time_however_much_it_is_used(pages: Site) -> None:
    browser = await pages.signed_in()
    pages.clock.advance(SESSION_LIFETIME - timedelta(seconds=1))
    assert (await browser.get("/")).status_code == 200
    pages.clock.advance(timedelta(seconds=1))
    assert (await browser.get("/")).status_code == 303


async def test_each_sign_in_has_a_secret_of_its_own(pages: Site) -> None:
    # Session fixation: what was in the browser before is worth nothing afterwards.
    await pages.sign_in.create_local_user("ann", PASSWORD)
    browser = pages.browser()
    browser.client.cookies.set("__Host-layover", "a" * 32, domain="layover.example.com", path="/")
    await browser.sign_in("ann")
    first = browser.cookie()
    assert first not in (None, "a" * 32)
    await browser.fill("/", "/signout")
    await browser.sign_in("ann")
    assert browser.cookie() not in (None, first)


async def test_no_user_no_password_and_a_wrong_one_read_alike(pages: Site) -> None:
    await pages.sign_in.create_local_user("ann", PASSWORD)
    await pages.sign_in.sign_in_by_provider("https://issuer", "subject", ("eve",))
    texts = set()
    for name, password in (
        ("ann", "wrong password"),
        ("nobody", PASSWORD),
        ("eve", PASSWORD),
        ("eve", ""),
        ("", ""),
    ):
        answer = await pages.browser().sign_in(name, password)
        assert answer.status_code == 403
        assert answer.headers.get_list("set-cookie") == []
        page = re.sub(r'(value|content)="[^"]*"| autofocus', "", answer.text)
        texts.add(page)
    assert len(texts) == 1


async def test_where_to_go_on_to_survives_a_wrong_password(pages: Site) -> None:
    await pages.sign_in.create_local_user("ann", PASSWORD)
    browser = pages.browser()
    path = "/signin?return_to=/device%3Fcode%3DBCDF-GHJK"
    wrong = await browser.fill(path, "/signin", name="ann", password="wrong password")
    fields = hidden_fields(wrong.text)
    assert html.unescape(fields["return_to"]) == "/device?code=BCDF-GHJK"
    right = await browser.submit("/signin", {**fields, "name": "ann", "password": PASSWORD})
    assert right.headers["location"] == "/device?code=BCDF-GHJK"


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
async def test_signing_in_leads_nowhere_else(pages: Site, target: str) -> None:
    await pages.sign_in.create_local_user("ann", PASSWORD)
    browser = pages.browser()
    page = await browser.client.get("/signin", params={"return_to": target})
    assert "evil" not in page.text
    fields = {**hidden_fields(page.text), "return_to": target, "name": "ann"}
    answer = await browser.submit("/signin", {**fields, "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    # Nor where the browser is signed in already.
    again = await browser.client.get("/signin", params={"return_to": target})
    assert (again.status_code, again.headers["location"]) == (303, "/")


async def test_a_form_of_another_browser_signs_nobody_in(pages: Site) -> None:
    # Login CSRF: an attacker's own form, put into a victim's browser.
    await pages.sign_in.create_local_user("mallory", PASSWORD)
    attacker, victim = pages.browser(), pages.browser()
    fields = {
        **hidden_fields((await attacker.get("/signin")).text),
        "name": "mallory",
        "password": PASSWORD,
    }
    assert (await victim.submit("/signin", fields)).status_code == 403
    await victim.get("/signin")
    refused = await victim.submit("/signin", fields)
    assert refused.status_code == 403
    assert "out of date" in refused.text
    # Nor does a cookie that was not signed here.
    victim.client.cookies.set("__Host-layover-form", "made.up", domain="layover.example.com")
    assert (await victim.submit("/signin", {**fields, "csrf": "made.up"})).status_code == 403
    assert victim.cookie() is None
    assert (await attacker.submit("/signin", fields)).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://layover.example.com"},
        {"origin": "https://layover.example.com.evil.example"},
        {"origin": "https://layover.example.com:444"},
        {"origin": "https://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_form_from_another_site_is_refused_whatever_it_holds(
    pages: Site, headers: dict[str, str]
) -> None:
    await pages.sign_in.create_local_user("ann", PASSWORD)
    browser = pages.browser()
    fields = {
        **hidden_fields((await browser.get("/signin")).text),
        "name": "ann",
        "password": PASSWORD,
    }
    assert (await browser.submit("/signin", fields, headers)).status_code == 403
    # Old browsers say nothing of where they come from; the form's token stands.
    unsaid = {"origin": "", "sec-fetch-site": ""}
    assert (await browser.submit("/signin", fields, unsaid)).status_code == 303


async def test_a_server_may_be_reached_by_another_name_than_its_public_one(
    pages: Site,
) -> None:
    await pages.sign_in.create_local_user("ann", PASSWORD)
    assert (await pages.browser(url="https://10.0.0.7:5000").sign_in("ann")).status_code == 303


async def test_signing_out_takes_a_form_of_the_same_session(pages: Site) -> None:
    ann, bob = await pages.signed_in("ann"), await pages.signed_in("bob")
    bobs = hidden_fields((await bob.get("/")).text)
    assert (await ann.submit("/signout", bobs)).status_code == 403
    assert (await ann.submit("/signout", {})).status_code == 403
    assert (await ann.get("/")).status_code == 200
    # Whoever is out already is simply out.
    assert (await pages.browser().submit("/signout", {})).status_code == 303


async def test_signing_out_ends_this_browsers_session_alone(pages: Site) -> None:
    laptop = await pages.signed_in("ann")
    phone = pages.browser()
    await phone.sign_in("ann")
    await laptop.fill("/", "/signout")
    assert (await phone.get("/")).status_code == 200


@pytest.mark.parametrize(
    "name", ['"><script>alert(1)</script>', "{{ 7 * 7 }}", "' onfocus=alert(1) autofocus x='"]
)
async def test_what_was_typed_is_shown_as_text(pages: Site, name: str) -> None:
    answer = await pages.browser().sign_in(name, "wrong")
    assert answer.status_code == 403
    assert "<script" not in answer.text
    assert "49" not in re.findall(r'id="name" name="name" value="([^"]*)"', answer.text)
    (shown,) = re.findall(r'id="name" name="name" value="([^"]*)"', answer.text)
    assert html.unescape(shown) == name


async def test_no_page_runs_or_loads_anything_or_is_framed(pages: Site) -> None:
    ann = await pages.signed_in()
    for answer in (
        await ann.get("/"),
        await ann.get("/device"),
        await pages.browser().get("/signin"),
        await pages.browser().submit("/signin", {}),
    ):
        policy = answer.headers["content-security-policy"]
        for rule in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"):
            assert rule in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" in answer.headers
        assert "<script" not in answer.text
        assert "style=" not in answer.text


async def test_guessing_is_slowed_down_and_then_refused(tmp_path: Path) -> None:
    async with site(tmp_path, limits=Limits(failures=3)) as pages:
        await pages.sign_in.create_local_user("ann", PASSWORD)
        for _ in range(3):
            assert (await pages.browser().sign_in("ann", "wrong password")).status_code == 403
        refused = await pages.browser().sign_in("ann", PASSWORD)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert (await pages.browser(address="192.0.2.1").sign_in("ann")).status_code == 429
        await pages.audit.close()
        details = await pages.stores.database.read(
            lambda connection: connection.execute(select(audit_events.c.details)).scalars().all()
        )
        assert any("too many attempts" in one for one in details)


async def test_a_malformed_form_is_refused_and_breaks_nothing(pages: Site) -> None:
    client = pages.browser().client
    form = {"content-type": "application/x-www-form-urlencoded"}
    for content, headers, status in (
        (b"\xff\xfe", form, 403),
        (b"csrf=%ff", form, 403),
        (b"csrf=a&csrf=b", form, 403),
        (b"&".join([b"a=b"] * 100), form, 403),
        (b"csrf=a", {"content-type": "text/plain"}, 403),
        (b"csrf=a", {"content-type": "multipart/form-data; boundary=x"}, 403),
        (b"", {}, 403),
        (b"a=" + b"b" * 100_000, form, 413),
    ):
        answer = await client.post("/signin", content=content, headers=headers)
        assert answer.status_code == status, content[:20]


async def test_the_stylesheet_and_the_icon_are_our_own(pages: Site) -> None:
    page = (await pages.browser().get("/signin")).text
    found = re.findall(r'(?:href|src)="(/assets/[^"]+)"', page)
    assert {path.partition("?")[0] for path in found} == {
        "/assets/layover.css",
        "/assets/layover.svg",
    }
    for path in found:
        assert (await pages.browser().get(path)).status_code == 200
    assert not re.findall(r'(?:href|src)="(?:https?:)?//', page)
    for path in ("/assets/nothing", "/assets/..%2fsignin.html", "/assets/rendering.py"):
        assert (await pages.browser().get(path)).status_code == 404
