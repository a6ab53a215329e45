import asyncio

import pytest

from layover.audit.models import AuditEvent, Result
from layover.errors import StorageUnavailable
from layover.http.auditing import Deed, audited
from layover.identity.models import ActionDenied
from layover.oci.names import Tag
from layover.registry.models import TagProtected
from tests.unit.builds.world import PROJECT, World

pytestmark = pytest.mark.anyio


async def told_of(error: BaseException | None) -> AuditEvent:
    """The event of a deed that ends so."""
    world = World()
    deed = Deed("manifests.push", world.project_token, subject="before")
    try:
        async with audited(world.audit, deed):
            deed.subject = "after"
            deed.details["digest"] = "sha256:a"
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    else:
        assert error is None
    (event,) = world.audit_store.events
    assert (event.project_id, event.subject) == (PROJECT, "after")
    assert event.details["digest"] == "sha256:a"
    return event


async def test_what_was_done_is_told_with_all_that_was_learned_meanwhile() -> None:
    event = await told_of(None)
    assert event.result is Result.DONE
    assert "reason" not in event.details


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ActionDenied("push"), Result.DENIED),
        (TagProtected(Tag("v1"), "b1"), Result.DENIED),
        (StorageUnavailable("no database"), Result.FAILED),
    ],
)
async def test_what_was_refused_or_failed_is_told_with_what_the_client_was_told(
    error: Exception, result: Result
) -> None:
    event = await told_of(error)
    assert (event.result, event.details["reason"]) == (result, str(error))


@pytest.mark.parametrize("error", [RuntimeError("the password is 1234"), asyncio.CancelledError()])
async def test_a_bug_and_what_was_broken_off_are_told_without_their_text(
    error: BaseException,
) -> None:
    event = await told_of(error)
    assert (event.result, event.details["reason"]) == (Result.FAILED, "internal error")
