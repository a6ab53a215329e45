"""What is wrong with settings, in words: what has that name, and which one was probably meant."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError

_PREFIX = "LAYOVER_"

# What the client and the scripts around it read from the same environment.
_OF_OTHERS = frozenset(
    {
        *("URL", "TOKEN", "ID_TOKEN", "PROJECT_ID", "CONFIG_DIR", "DEBUG", "ENGINES_DIR"),
        *("PUSH_REGISTRY_USERNAME", "PUSH_REGISTRY_PASSWORD", "INSECURE_REGISTRIES"),
    }
)


def explain(error: ValidationError, settings: type[BaseModel]) -> str:
    """Every problem with its setting's name; of a name that is unknown the nearest known one."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'settings'}: "
        + (
            _unknown(problem["loc"], settings)
            if problem["type"] == "extra_forbidden"
            else problem["msg"].removeprefix("Value error, ")
        )
        for problem in error.errors()
    )


def unknown_variables(
    environment: Mapping[str, str], settings: type[BaseModel]
) -> dict[str, str | None]:
    """The variables that look like settings and are none, each with the nearest one that is."""
    known = {name.upper() for name in settings.model_fields}
    unknown = {}
    for variable in sorted(environment):
        name = variable.upper().removeprefix(_PREFIX)
        if variable.upper().startswith(_PREFIX) and name not in known | _OF_OTHERS:
            near = nearest(name, known | _OF_OTHERS)
            unknown[variable] = None if near is None else f"{_PREFIX}{near}"
    return unknown


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that was probably meant, if one is near; in which case does not matter."""
    folded = {_folded(candidate): candidate for candidate in known}
    near = get_close_matches(_folded(name), folded, n=1)
    return folded[near[0]] if near else None


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _unknown(location: tuple[int | str, ...], settings: type[BaseModel]) -> str:
    *path, name = location
    table = _table(path, settings)
    if path and name in settings.model_fields:
        # In TOML whatever comes behind [[builders]] is one builder's.
        return f"no setting of {path[0]}: as the server's own, it goes above the first table"
    near = nearest(str(name), table.model_fields)
    if near is not None:
        return f"no such setting; did you mean {near}?"
    return f"no such setting; there are {', '.join(sorted(table.model_fields))}"


def _table(path: Iterable[int | str], settings: type[BaseModel]) -> type[BaseModel]:
    """The model that a table of the file is read as."""
    table = settings
    for part in path:
        if isinstance(part, str):
            annotation = table.model_fields[part].annotation
            models = [
                kind
                for kind in (annotation, *get_args(annotation))
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            ]
            if models:
                table = models[0]
    return table
