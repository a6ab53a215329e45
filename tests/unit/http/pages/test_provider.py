from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from layover.adapters.issuer_keys import HttpIssuerKeys
from layover.adapters.oidc_provider import HttpProviderEndpoints
from layover.http.pages import Provider
from layover.identity.oidc import IdTokens
from layover.identity.provider import ProviderSignIn
from layover.outbound.client import outbound_client
from layover.outbound.rules import LOOPBACK, OutboundRules
from tests.oidc_provider import Issuer, OidcProvider
from tests.unit.http.pages.site import PASSWORD, URL, Browser, Site, site
from tests.unit.identity.clock import Clock

pytestmark = pytest.mark.anyio

CALLBACK = f"{URL}/signin/callback"
SECRET = "client's: secret/+%"


@pytest.fixture
def issuer(provider: OidcProvider, request: pytest.FixtureRequest) -> Issuer:
    issuer = provider.issuer(f"pages-{abs(hash(request.node.name))}")
    issuer.register_client("layover", SECRET, CALLBACK)
    issuer.add_user("ann", "anns password", preferred_username="Ann", email="ann@example.com")
    return issuer


@pytest.fixture
async def pages(tmp_path: Path, issuer: Issuer, provider: OidcProvider) -> AsyncIterator[Site]:
    rules = OutboundRules(LOOPBACK, frozenset({provider.host_port}))
    client = outbound_client(rules)

    def made(_: Clock) -> Provider:
        return Provider(
            "Example <ID>",
            ProviderSignIn(
                issuer.url,
                "layover",
                HttpProviderEndpoints(client, issuer.url, "layover", SecretStr(SECRET)),
                # The provider's clock is the machine's.
                IdTokens(HttpIssuerKeys(client), lambda: datetime.now(UTC)),
                CALLBACK,
            ),
        )

    async with client, site(tmp_path, provider=made) as pages:
        yield pages


async def begun(browser: Browser, return_to: str = "/device") -> str:
    """The provider's page that the button leads to."""
    answer = await browser.get(f"/signin/provider?return_to={return_to}")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def back(location: str) -> str:
    """The path that the provider sends the browser to."""
    assert location.startswith(CALLBACK)
    return location.removeprefix(URL)


async def user_of(browser: Browser) -> str:
    page = (await browser.get("/")).text
    return page.partition('<span class="name">')[2].partition("<")[0]


async def test_a_user_signs_in_with_the_provider(pages: Site, issuer: Issuer) -> None:
    browser = pages.browser()
    assert "Sign in with Example &lt;ID&gt;" in (await browser.get("/signin")).text
    target = await begun(browser)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == CALLBACK
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    answer = await browser.get(back(issuer.sign_in(target, "ann", "anns password")))
    assert (answer.status_code, answer.headers["location"]) == (303, "/device")
    assert await user_of(browser) == "ann"
    assert "member of no organization" in (await browser.get("/")).text
    assert browser.cookie("__Host-layover-flow") is None


async def test_a_user_is_the_same_the_next_time_whatever_they_are_called_by_then(
    pages: Site, issuer: Issuer
) -> None:
    for name in ("Ann", "Anna"):
        issuer.add_user("ann", "anns password", preferred_username=name)
        browser = pages.browser()
        await browser.get(back(issuer.sign_in(await begun(browser), "ann", "anns password")))
        assert await user_of(browser) == "ann"


async def test_a_provider_s_user_is_never_a_local_one_of_the_same_name_or_address(
    pages: Site, issuer: Issuer
) -> None:
    await pages.sign_in.create_local_user("ann", PASSWORD)
    browser = pages.browser()
    await browser.get(back(issuer.sign_in(await begun(browser), "ann", "anns password")))
    assert await user_of(browser) == "ann-2"
    assert (await pages.browser().sign_in("ann-2")).status_code == 403


@pytest.mark.parametrize(
    "spoilt",
    [
        {"claims": {"nonce": "another"}},
        {"claims": {"nonce": None}},
        {"claims": {"nonce": 7}},
        {"claims": {"aud": "somebody-else"}},
        {"claims": {"aud": ["layover", "somebody-else"]}},
        {"claims": {"azp": "somebody-else"}},
        {"claims": {"iss": "https://somebody.else"}},
        {"claims": {"exp": 1}},
        {"claims": {"sub": ""}},
        {"claims": {"sub": "a" * 300}},
        {"algorithm": "none"},
        {"algorithm": "HS256"},
        {"key": "foreign"},
        {"key": "header"},
    ],
)
async def test_an_id_token_that_is_not_for_this_sign_in_signs_nobody_in(
    pages: Site, issuer: Issuer, spoilt: dict[str, object]
) -> None:
    browser = pages.browser()
    target = await begun(browser)
    issuer.next_id_token(**spoilt)
    answer = await browser.get(back(issuer.sign_in(target, "ann", "anns password")))
    assert answer.status_code == 403
    assert "start it again" in answer.text
    assert browser.cookie() is None


async def test_the_way_back_is_for_the_browser_that_went_there(pages: Site, issuer: Issuer) -> None:
    # Login CSRF: an attacker's own answer, opened in a victim's browser.
    attacker, victim = pages.browser(), pages.browser()
    path = back(issuer.sign_in(await begun(attacker), "ann", "anns password"))
    assert (await victim.get(path)).status_code == 403
    await begun(victim)
    assert (await victim.get(path)).status_code == 403
    assert victim.cookie() is None
    assert (await attacker.get(path)).status_code == 303
    # And once.
    assert (await attacker.get(path)).status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=x",
        "code=x&state=y",
        "error=access_denied&state={state}",
        "state={state}",
        "code=made-up&state={state}",
        "code=x&state={state}&iss=https://evil.example",
        "code=x&code=y&state={state}",
    ],
)
async def test_an_answer_that_is_none_signs_nobody_in(
    pages: Site, issuer: Issuer, query: str
) -> None:
    browser = pages.browser()
    state = parse_qs(urlsplit(await begun(browser)).query)["state"][0]
    answer = await browser.get(f"/signin/callback?{query.format(state=state)}")
    assert answer.status_code == 403
    assert browser.cookie() is None


async def test_a_link_from_elsewhere_starts_no_sign_in(pages: Site) -> None:
    browser = pages.browser()
    link = {"sec-fetch-site": "cross-site"}
    assert (await browser.get("/signin/provider", **link)).status_code == 403
    # What a provider sends back comes from elsewhere, and is no form.
    assert (await browser.get("/signin/callback", **link)).status_code == 403


async def test_signing_in_with_the_provider_leads_nowhere_else(pages: Site, issuer: Issuer) -> None:
    browser = pages.browser()
    target = await begun(browser, "//evil.example")
    answer = await browser.get(back(issuer.sign_in(target, "ann", "anns password")))
    assert answer.headers["location"] == "/"


async def test_a_provider_that_does_not_answer_is_told_apart_from_a_refusal(
    pages: Site, issuer: Issuer
) -> None:
    issuer.answer_with("discovery", status=500)
    answer = await pages.browser().get("/signin/provider")
    assert answer.status_code == 502
    assert issuer.url not in answer.text


async def test_a_provider_whose_page_is_no_page_leads_nowhere(pages: Site, issuer: Issuer) -> None:
    issuer.answer_with("discovery", merge={"authorization_endpoint": "javascript:alert(1)"})
    assert (await pages.browser().get("/signin/provider")).status_code == 502
