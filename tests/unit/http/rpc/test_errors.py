from collections.abc import Iterator

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from layover.audit.models import InvalidAuditQuery
from layover.builds.errors import BuildError, BuildUnknown
from layover.builds.models import Build
from layover.errors import LayoverError, StorageFull, StorageUnavailable
from layover.http.rpc.errors import CONNECT_CODES, to_connect_error
from layover.identity.models import IdentityError
from layover.oci.names import InvalidTag
from layover.oci.references import InvalidDestination
from layover.promotion.models import PushError
from layover.retention.models import RetentionError
from tests.unit.http.rpc.api import make_api, refusal

# What a service that http/rpc calls may raise beside its own part's errors.
OTHERS = {StorageFull, StorageUnavailable, InvalidAuditQuery, InvalidDestination, InvalidTag}


def leaf_classes(base: type[LayoverError]) -> Iterator[type[LayoverError]]:
    children = base.__subclasses__()
    if not children:
        yield base
    for child in children:
        yield from leaf_classes(child)


def test_no_error_reaches_a_client_unmapped() -> None:
    raised = {
        *leaf_classes(BuildError),
        *leaf_classes(IdentityError),
        *leaf_classes(PushError),
        *leaf_classes(RetentionError),
        *OTHERS,
    }
    assert raised <= set(CONNECT_CODES)


def test_an_expected_error_tells_its_text() -> None:
    error = to_connect_error(BuildUnknown("abc"), "GetBuild")
    assert (error.code, error.message) == (Code.NOT_FOUND, "unknown build 'abc'")


def test_a_bug_is_logged_and_told_as_no_more_than_an_internal_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        raise RuntimeError("the password is 1234")
    except RuntimeError as bug:
        error = to_connect_error(bug, "GetBuild")
    assert (error.code, error.message) == (Code.INTERNAL, "internal error")
    logged = capsys.readouterr()
    assert "RuntimeError" in logged.out + logged.err


def test_what_the_protocol_itself_refuses_is_left_as_it_is() -> None:
    error = ConnectError(Code.RESOURCE_EXHAUSTED, "too large")
    assert to_connect_error(error, "GetBuild") is error


@pytest.mark.anyio
async def test_a_bug_inside_a_call_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    api = await make_api()

    async def crash(_: Build) -> None:
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr(api.world.store, "add", crash)
    assert await refusal(api.create()) == (Code.INTERNAL, "internal error")


@pytest.mark.anyio
async def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    api = await make_api()

    async def fill(_: Build) -> None:
        raise StorageFull

    monkeypatch.setattr(api.world.store, "add", fill)
    assert (await refusal(api.create()))[0] is Code.RESOURCE_EXHAUSTED
