import re
from datetime import timedelta
from pathlib import Path

import pytest

from layover.identity.origin import Origin
from layover.identity.sign_in_models import LoginDenied, LoginUnknown
from layover.identity.throttle import Limits
from tests.unit.http.pages.site import PASSWORD, Site, hidden_fields, site

pytestmark = pytest.mark.anyio

CLI = Origin("198.51.100.4", "layover/1")


async def test_a_signed_in_user_sees_what_asks_and_approves_it(pages: Site) -> None:
    login_id, code = await pages.waiting()
    browser = pages.browser()
    await pages.sign_in.create_local_user("ann", PASSWORD)
    # Whoever is not signed in signs in first, and comes back to the code.
    asked = await browser.get(f"/device?code={code}")
    assert asked.status_code == 303
    signed_in = await browser.fill(
        asked.headers["location"], "/signin", name="ann", password=PASSWORD
    )
    assert signed_in.headers["location"] == f"/device?code={code}"
    page = (await browser.get(f"/device?code={code}")).text
    for shown in (
        code,
        "198.51.100.4",
        "layover/1 (laptop; Linux)",
        "2026-01-01 12:00:00 UTC",
        "ann",
    ):
        assert shown in page
    done = await browser.fill(f"/device?code={code}", "/device", decision="approve")
    assert done.status_code == 200
    assert "Logged in" in done.text
    assert (await pages.logins.finish(login_id, CLI)).startswith("layover_")


@pytest.mark.parametrize("decision", ["deny", "", "APPROVE", "approve "])
async def test_whatever_is_not_a_clear_yes_is_a_no(pages: Site, decision: str) -> None:
    login_id, code = await pages.waiting()
    browser = await pages.signed_in()
    done = await browser.fill(f"/device?code={code}", "/device", decision=decision)
    assert "Denied" in done.text
    with pytest.raises(LoginDenied):
        await pages.logins.finish(login_id, CLI)


async def test_looking_at_a_login_decides_nothing(pages: Site) -> None:
    _, code = await pages.waiting()
    browser = await pages.signed_in()
    for _ in range(2):
        assert (await browser.get(f"/device?code={code}")).status_code == 200
    await browser.client.head(f"/device?code={code}&decision=approve")
    assert (await pages.logins.find(code, "")).user_code == code


async def test_a_login_is_approved_from_our_own_page_alone(pages: Site) -> None:
    _, code = await pages.waiting()
    ann, bob = await pages.signed_in("ann"), await pages.signed_in("bob")
    fields = {"code": code, "decision": "approve"}
    anns = hidden_fields((await ann.get("/device?code=" + code)).text)
    bobs = hidden_fields((await bob.get("/")).text)
    for answer in (
        await ann.submit("/device", fields),
        await ann.submit("/device", {**bobs, **fields}),
        await ann.submit("/device", {**anns, **fields}, {"origin": "https://evil.example"}),
        await ann.submit("/device", {**anns, **fields}, {"sec-fetch-site": "cross-site"}),
    ):
        assert answer.status_code == 403
    stranger = pages.browser()
    answer = await stranger.submit("/device", {**anns, **fields})
    assert answer.headers["location"] == "/signin?return_to=/device"
    assert (await pages.logins.find(code, "")).user_code == code


async def test_a_code_is_good_once_and_in_its_time(pages: Site) -> None:
    _, code = await pages.waiting()
    browser = await pages.signed_in()
    page = hidden_fields((await browser.get(f"/device?code={code}")).text)
    approve = {**page, "decision": "approve"}
    assert (await browser.submit("/device", approve)).status_code == 200
    # Sent again, as by going back.
    assert (await browser.submit("/device", approve)).status_code == 404
    assert (await browser.get(f"/device?code={code}")).status_code == 404
    late_id, late = await pages.waiting()
    page = hidden_fields((await browser.get(f"/device?code={late}")).text)
    pages.clock.advance(timedelta(minutes=10))
    over = await browser.submit("/device", {**page, "decision": "approve"})
    assert over.status_code == 404
    assert "its time is over" in over.text
    with pytest.raises(LoginUnknown):
        await pages.logins.finish(late_id, CLI)


async def test_codes_that_never_were_are_over_or_are_decided_read_alike(pages: Site) -> None:
    browser = await pages.signed_in()
    texts = set()
    _, decided = await pages.waiting()
    await browser.fill(f"/device?code={decided}", "/device", decision="deny")
    _, over = await pages.waiting()
    pages.clock.advance(timedelta(minutes=10))
    for code in (decided, over, "BCDF-GHJK", "x", "<script>", "A" * 1000):
        answer = await browser.client.get("/device", params={"code": code})
        assert answer.status_code == 404
        assert "<script" not in answer.text
        texts.add(re.sub(r'value="[^"]*"', "", answer.text))
    assert len(texts) == 1


async def test_a_code_is_entered_by_hand_in_any_form(pages: Site) -> None:
    _, code = await pages.waiting()
    browser = await pages.signed_in()
    assert 'name="code"' in (await browser.get("/device")).text
    for typed in (code, code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')} "):
        answer = await browser.client.get("/device", params={"code": typed})
        assert answer.status_code == 200
        assert code in answer.text


async def test_what_a_command_line_calls_itself_is_shown_as_text(pages: Site) -> None:
    _, code = await pages.waiting("<script>alert(1)</script>\"'><img src=x>{{ 7*7 }}")
    browser = await pages.signed_in()
    page = (await browser.get(f"/device?code={code}")).text
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "{{ 7*7 }}" in page


async def test_guessing_codes_is_refused_before_long(tmp_path: Path) -> None:
    async with site(tmp_path, limits=Limits(failures=5)) as pages:
        _, code = await pages.waiting()
        browser = await pages.signed_in()
        statuses = [
            (await browser.get(f"/device?code=BCDF-GHJ{letter}")).status_code
            for letter in "BCDFGHJK"
        ]
        assert statuses == [404] * 5 + [429] * 3
        # Whoever has the right code is not kept from it.
        assert (await browser.get(f"/device?code={code}")).status_code == 200
