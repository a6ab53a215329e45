import os
import webbrowser

import pytest

from layover.cli.browser import open_page

PAGE = "https://layover.example.com/device?code=BCDF-GHJK"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that Python's own module was asked to show."""
    pages: list[str] = []

    def shows(url: str) -> bool:
        # As browsers do.
        os.write(1, b"[1234:5678] some warning\n")
        os.write(2, b"[1234:5678] another\n")
        pages.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", shows)
    monkeypatch.setattr("sys.platform", "linux")
    return pages


@pytest.mark.parametrize("name", ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"])
def test_a_browser_is_opened_and_what_it_says_stays_off_the_terminal(
    opened: list[str], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert open_page(PAGE, {name: ":0"})
    assert opened == [PAGE]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("env", [{}, {"SSH_CONNECTION": "a b", "DISPLAY": ":0"}])
def test_where_no_window_opens_for_the_user_nothing_is_opened(
    opened: list[str], env: dict[str, str]
) -> None:
    assert not open_page(PAGE, env)
    assert opened == []


def test_a_browser_that_fails_is_no_browser(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(url: str) -> bool:
        raise webbrowser.Error("no runnable browser")

    monkeypatch.setattr(webbrowser, "open", fails)
    assert not open_page(PAGE, {"DISPLAY": ":0"})
