from pathlib import Path

from layover.settings_page import render


def test_the_settings_page_says_what_the_settings_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == render(), (
        "run: .venv/bin/python -m layover.settings_page > docs/settings.md"
    )
