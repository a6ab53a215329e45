import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest
from protobuf import DescMessage, DescMethod

import layover.rpc
from layover.http.rpc.audited_methods import METHODS, Method, Told, method_of

# What changes nothing may be called; everything else tells of all its calls, or says here why not.
READS = ("List", "Get")
CHATTER = {
    # Of a running build's client, every few seconds.
    "depot.cli.v1.BuildService/ReportBuildHealth",
    "depot.cli.v1.BuildService/ReportTimings",
    "depot.cli.v1.BuildService/ReportStatus",
    "depot.cli.v1.BuildService/ReportStatusStream",
    "depot.cli.v1.BuildService/ReportBuildContext",
}


def modules() -> Iterator[ModuleType]:
    """The generated messages and services of our own API."""
    for module in pkgutil.walk_packages(layover.rpc.__path__, "layover.rpc."):
        # BuildKit's is called by us.
        if module.name.endswith("_pb") and ".moby." not in module.name:
            yield importlib.import_module(module.name)


def methods() -> dict[str, DescMethod]:
    return {
        f"{service.type_name}/{method.name}": method
        for module in modules()
        for service in module.desc().services
        for method in service.methods
    }


def test_every_method_of_every_service_is_in_the_table() -> None:
    assert set(methods()) == set(METHODS)
    assert len(METHODS) > 30


def test_what_does_not_only_read_is_told_of_always() -> None:
    quiet = {key for key, method in METHODS.items() if method.told is Told.DENIALS}
    assert {key for key in quiet if not key.partition("/")[2].startswith(READS)} == CHATTER


def test_an_action_is_a_kind_of_thing_and_a_verb() -> None:
    for method in METHODS.values():
        kind, _, verb = method.action.partition(".")
        assert kind.isidentifier()
        assert verb.isidentifier()


def paths_of(method: Method) -> Iterator[tuple[str, bool]]:
    """The fields that a row names, and whether the response alone may have them."""
    yield from ((path, False) for path in method.subject)
    yield from ((path, True) for path in (method.project, method.organization) if path)
    yield from ((path, True) for path in method.results)


def has(message: DescMessage, path: str) -> bool:
    name, _, rest = path.partition(".")
    # A oneof is a field of the Python message.
    for field in message.fields:
        if field.name == name:
            inner = getattr(field.value, "message", None)
            return not rest or (inner is not None and has(inner, rest))
    return not rest and any(oneof.name == name for oneof in message.oneofs)


@pytest.mark.parametrize("key", METHODS)
def test_every_field_that_a_row_names_is_there(key: str) -> None:
    method, messages = METHODS[key], methods()[key]
    for path, is_of_response in paths_of(method):
        found = has(messages.output, path) or (not is_of_response and has(messages.input, path))
        assert found, path
    for name in method.details:
        assert has(messages.input, name), name


def test_no_row_tells_a_secret() -> None:
    for method in METHODS.values():
        named = {*method.details, *method.subject, *method.results}
        assert named.isdisjoint({"secret", "token", "password", "build_token", "id"})
        assert not any("authorization" in path for path in named)


def test_a_method_that_nobody_wrote_down_is_told_of_always() -> None:
    assert method_of("layover.v9.NewService", "DoIt") == Method("rpc.DoIt", Told.CHANGES)
