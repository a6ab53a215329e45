"""Renders docs/settings.md from the settings themselves: `python -m layover.settings_page`."""

from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from layover.settings import BuilderSettings, Settings

_HEAD = """\
# Settings

From `layover.toml`, then `LAYOVER_*`, then flags of `layover serve`; a later one wins. Durations
are written as `90s`, `15m`, `36h` or `7d`, sizes as `500MiB` or `20GiB`.

| in layover.toml | in the environment | default | what it is |
|---|---|---|---|
"""

_BUILDERS = """
## A builder: `[[builders]]`

In the environment, `LAYOVER_BUILDERS` takes the list as JSON.

| in layover.toml | default | what it is |
|---|---|---|
"""


def render() -> str:
    """The page as Markdown."""
    settings = "".join(
        f"| `{name}` | `LAYOVER_{name.upper()}` | {_default(field)} | {field.description} |\n"
        for name, field in _fields(Settings)
    )
    builders = "".join(
        f"| `{name}` | {_default(field)} | {field.description} |\n"
        for name, field in _fields(BuilderSettings)
    )
    return f"{_HEAD}{settings}{_BUILDERS}{builders}"


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return list(model.model_fields.items())


def _default(field: FieldInfo) -> str:
    match field.default:
        case timedelta() as duration:
            return f"`{_duration(duration)}`"
        case int() as number if number >= 1 << 30:
            return f"`{number >> 30}GiB`"
        case str() | int() | Path() as value if str(value):
            return f"`{value}`"
        case _ if field.is_required():
            return "required"
        case _:
            return ""


def _duration(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % length == 0 and seconds > length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


if __name__ == "__main__":
    print(render(), end="")
