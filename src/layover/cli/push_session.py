"""What `layover push` does with the server: asking for the push, and staying with it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import click

from layover.cli.errors import DONE, CliError, Interrupted, say
from layover.cli.interruption import Interruption
from layover.cli.output import printable
from layover.cli.push_progress import showing
from layover.cli.push_rows import images, whole_row
from layover.cli.pushable import check_pushable
from layover.client.address import Server
from layover.client.errors import ClientError, NotFound, ServerFailed, ServerUnreachable
from layover.client.pushes import PushesClient
from layover.client.pushing import Attendance, to_wire
from layover.client.registry_authorization import authorize
from layover.oci.references import Place
from layover.rpc.layover.v1.pushes_pb import CreatePushRequest, Push, PushStatus

# How long a push that was asked to stop may take to say that it did.
_STOP_TIME = timedelta(seconds=10)


class PushFailed(CliError):
    """The push ended without what it was for, and says why."""

    def __init__(self, push_id: str, reason: str) -> None:
        super().__init__(f"push {push_id} failed: {reason or 'no reason given'}")
        self.push_id = push_id


class PushOutOfSight(CliError):
    """The push goes on, and this command can no longer tell how."""

    def __init__(self, push_id: str, why: str) -> None:
        super().__init__(
            f"{why}\nPush {push_id} goes on without this command: `layover pushes show {push_id}`"
            " shows it"
        )
        self.push_id = push_id


class PushUncertain(CliError):
    """Nobody can tell whether the server took the push up."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}\nThe server may have the push all the same: `layover pushes list` shows it"
        )


class PushCanceled(CliError):
    """Somebody else asked the push to stop."""

    def __init__(self, push_id: str) -> None:
        super().__init__(f"push {push_id} was canceled")
        self.push_id = push_id


async def push(
    server: Server,
    env: Mapping[str, str],
    request: CreatePushRequest,
    places: Sequence[Place],
    *,
    is_detached: bool,
    progress: str,
) -> int:
    """Have the server push, and stay with it unless it is detached; returns the command's status.

    `places` are those of the request's destinations, whose authorizations are found here. Raises
    a LayoverError, Interrupted among them.
    """
    with Interruption() as interruption:
        async with PushesClient(server, env=env) as client:
            interruption.left = nothing = "nothing was pushed"
            await interruption.stopping(
                check_pushable(client, request.build_id, request.target, request.platforms), nothing
            )
            granted = await interruption.stopping(authorize(places, env), nothing)
            interruption.left = "the push may go on: `layover pushes list` shows it"
            # A wish to stop waits for the answer: the push's ID is needed for it.
            request.authorizations.extend(to_wire(granted))
            try:
                pushed = await client.create_push(request)
            except (ServerFailed, ServerUnreachable) as error:
                raise PushUncertain(str(error)) from error
            push_id = printable(pushed.id)
            interruption.left = (
                f"push {push_id} may go on: `layover pushes show {push_id}` shows it, and"
                f" `layover pushes cancel {push_id}` asks it to stop"
            )
            if is_detached and not interruption.is_requested:
                _tell_detached(pushed, progress)
                return DONE
            if progress not in ("quiet", "json"):
                to = printable(", ".join(pushed.destinations))
                say(f"Pushing {request.build_id} to {to} (push {push_id})")
            with showing(progress) as show:
                attendance = Attendance(
                    client,
                    pushed.id,
                    granted,
                    lambda: authorize(places, env),
                    show=show,
                    notice=_nothing if progress == "quiet" else say,
                )
                pushed = await _attended(attendance, client, push_id, interruption)
    return _told(pushed, progress, interruption)


async def _attended(
    attendance: Attendance, client: PushesClient, push_id: str, interruption: Interruption
) -> Push:
    """The push at its end, which a wish to stop brings about."""
    ending = asyncio.create_task(attendance.to_its_end())
    try:
        await interruption.first(ending)
        if interruption.is_requested:
            with suppress(OSError):  # The terminal may be what is gone.
                say(f"Stopping push {push_id}; Ctrl-C once more leaves at once")
            await _cancel(client, push_id)
            await asyncio.wait({ending}, timeout=_STOP_TIME.total_seconds())
        if not ending.done():
            raise Interrupted(
                f"push {push_id} was asked to stop, and has not ended yet:"
                f" `layover pushes show {push_id}` shows it"
            )
        return ending.result()
    except NotFound:
        raise
    except ClientError as error:
        raise PushOutOfSight(push_id, str(error)) from error
    finally:
        ending.cancel()
        await asyncio.wait({ending})
        if not ending.cancelled():
            ending.exception()  # asyncio complains of one that nobody looked at.


async def _cancel(client: PushesClient, push_id: str) -> None:
    try:
        await client.cancel_push(push_id)
    except ClientError as error:
        raise Interrupted(
            f"push {push_id} goes on, since the server could not be asked to stop it: {error}\n"
            f"`layover pushes cancel {push_id}` asks again"
        ) from error


def _tell_detached(push: Push, progress: str) -> None:
    push_id = printable(push.id)
    if progress == "json":
        click.echo(json.dumps(whole_row(push, push.transfers)))
        return
    click.echo(push_id)
    if progress != "quiet":
        say(f"The push goes on by itself: `layover pushes show {push_id}` shows it")


def _told(push: Push, progress: str, interruption: Interruption) -> int:
    """Tell how the push ended. Raises a CliError unless it did what it was for."""
    push_id = printable(push.id)
    if push.status is PushStatus.CANCELED:
        if interruption.is_requested:
            raise Interrupted(f"push {push_id} was canceled")
        raise PushCanceled(push_id)
    if push.status is not PushStatus.DONE:
        raise PushFailed(push_id, printable(push.error))
    if interruption.is_requested:
        say(f"Push {push_id} was done before it could be stopped")
    if progress != "json":  # Its last line has them.
        for image in images(push):
            click.echo(printable(image))
    return DONE


def _nothing(message: str) -> None:
    return
