"""The reference page says what the commands say."""

from pathlib import Path

from layover.cli.reference import page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run `python -m layover.cli.reference > docs/cli.md`"
    )


def test_the_page_has_every_command_with_an_example() -> None:
    sections = page().split("\n## layover ")[1:]
    assert {
        "build",
        "bake",
        "pull",
        "list builds",
        "builds show",
        "builds rm",
        "projects update",
        "serve",
    } <= {section.split("\n", 1)[0] for section in sections}
    assert all("Example: `" in section for section in sections)
