"""A real browser at the pages: a command line's login approved, a sign-in with a provider."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.certificates import Certificates
from tests.e2e.conftest import ServerFactory
from tests.e2e.processes import ENGINES, Background, environment, find, run, wait_until
from tests.e2e.server import LAYOVER, LayoverServer
from tests.oidc_provider import Issuer, OidcProvider

DEPOT = ENGINES / "depot" / "node_modules" / "@depot" / "cli-linux-x64" / "bin" / "depot"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find("chromium"),
            args=["--no-sandbox", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that never was here, with what was wrong on the way."""
    # The certificate's authority is the tests' own.
    context = browser.new_context(ignore_https_errors=True, viewport={"width": 360, "height": 740})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def issuer(provider: OidcProvider) -> Issuer:
    issuer = provider.issuer("browser-login")
    issuer.add_user("ann", "anns password", preferred_username="ann")
    return issuer


@pytest.fixture
def https_server(
    start_server: ServerFactory, certificates: Certificates, issuer: Issuer
) -> LayoverServer:
    server = start_server(
        certificates=certificates,
        settings={
            "OIDC_ISSUER": issuer.url,
            "OIDC_CLIENT_ID": "layover",
            "OIDC_CLIENT_SECRET": "the client's secret",
            "OIDC_NAME": "Example",
        },
    )
    issuer.register_client("layover", "the client's secret", f"{server.url}/signin/callback")
    return server


def sign_in(page: Page, path: str) -> None:
    """Go to a page that asks for a sign-in first, and do that."""
    page.goto(path)
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def set_password(server: LayoverServer) -> None:
    run([LAYOVER, "passwd", "--password-stdin"], env=server.cli_env(), stdin=f"{PASSWORD}\n")


def told_page(client: Background) -> str:
    """The page that a client asks its user to open."""

    def found() -> "re.Match[str] | None":
        return re.search(r"https://\S+/device\?code=[A-Z-]+", client.log())

    wait_until(lambda: found() is not None, timeout=60, what="the page to open")
    match = found()
    assert match is not None
    return match[0]


def test_a_command_line_is_logged_in_by_a_browser_and_logs_itself_out(
    https_server: LayoverServer, page: Page, tmp_path: Path
) -> None:
    set_password(https_server)
    env = environment(
        tmp_path,
        LAYOVER_URL=https_server.url,
        SSL_CERT_FILE=https_server.cli_env()["SSL_CERT_FILE"],
    )
    client = Background([LAYOVER, "login", "--no-browser"], env=env, log=tmp_path / "login.log")
    try:
        sign_in(page, told_page(client))
        code = page.locator(".code").inner_text()
        assert f"code:  {code}" in client.log()
        assert "layover/" in page.locator("dl").inner_text()
        # As wide as a small phone, and nothing beside it.
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("heading", name="Logged in").wait_for()
        assert client.wait(60) == 0, client.log()
    finally:
        client.stop()
    config = tmp_path / ".config" / "layover" / "config.toml"
    assert config.stat().st_mode & 0o777 == 0o600
    projects = json.loads(run([LAYOVER, "list", "projects", "--output", "json"], env=env).stdout)
    assert [project["id"] for project in projects] == [https_server.project_id]
    (token,) = re.findall(r"layover_[a-z2-7]+", config.read_text())
    assert token not in client.log() + https_server.process.log()

    run([LAYOVER, "logout"], env=env)
    assert "layover_" not in config.read_text()
    refused = run([LAYOVER, "list", "projects"], env={**env, "LAYOVER_TOKEN": token}, check=False)
    assert refused.returncode == 1
    assert "refused the token" in refused.stderr
    # The browser's session is another thing; it has the cookie that only this host gets.
    page.goto(https_server.url)
    assert page.get_by_role("heading", name="Signed in as admin").is_visible()
    (cookie,) = page.context.cookies()
    assert (cookie["name"], cookie["secure"], cookie["httpOnly"]) == ("__Host-layover", True, True)
    page.get_by_role("button", name="Sign out").click()
    assert page.get_by_role("heading", name="Sign in").is_visible()
    assert page.context.cookies()[0]["name"] == "__Host-layover-form"


def test_a_user_signs_in_with_the_provider(https_server: LayoverServer, page: Page) -> None:
    page.goto(f"{https_server.url}/device")
    page.get_by_role("link", name="Sign in with Example").click()
    page.locator("input[name=user]").fill("ann")
    page.locator("input[name=password]").fill("anns password")
    page.get_by_role("button", name="Sign in").click()
    # Back where the user wanted to go.
    page.get_by_role("heading", name="Log in a command line").wait_for()
    assert page.url == f"{https_server.url}/device"
    assert page.locator("header .name").inner_text() == "ann"


def test_the_depot_client_is_logged_in_by_a_browser(
    https_server: LayoverServer, page: Page, tmp_path: Path
) -> None:
    set_password(https_server)
    env = environment(
        tmp_path,
        DEPOT_API_URL=https_server.url,
        SSL_CERT_FILE=https_server.cli_env()["SSL_CERT_FILE"],
        DEPOT_NO_UPDATE_NOTIFIER="1",
        DEPOT_ERROR_TELEMETRY="0",
        DEPOT_DISABLE_OTEL="1",
    )
    client = Background([DEPOT, "login"], env=env, log=tmp_path / "depot.log")
    try:
        sign_in(page, told_page(client))
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("heading", name="Logged in").wait_for()
        assert client.wait(60) == 0, client.log()
    finally:
        client.stop()
    listed = run([DEPOT, "list", "projects", "--output", "json"], env=env)
    assert https_server.project_id in listed.stdout
