"""What a request does, told to the audit log when it has ended and before its answer is sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from layover.audit.log import AuditLog
from layover.audit.models import Result
from layover.builds.errors import BuildUnknown
from layover.errors import LayoverError
from layover.http.origin import origin
from layover.identity.models import IdentityError, Organization, Principal, Project
from layover.registry.models import BuildOver, TagProtected

# Why somebody may not, beside what identity says.
_DENIALS = (IdentityError, BuildUnknown, BuildOver, TagProtected)


@dataclass(slots=True)
class Deed:
    """What somebody is about to do; what is not known yet is filled in while it is done."""

    action: str
    by: Principal
    where: Project | Organization | None = None
    subject: str = ""
    details: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def audited(log: AuditLog, deed: Deed) -> AsyncIterator[Deed]:
    """Record how what is done inside ends. An exception is recorded and goes on."""
    try:
        yield deed
    except BaseException as error:
        # One that is broken off, as by the server's end, may have happened all the same.
        await record(log, deed, error)
        raise
    await record(log, deed)


async def record(log: AuditLog, deed: Deed, error: BaseException | None = None) -> None:
    """Record how it ended: by this error, or well."""
    result = Result.DONE
    details = deed.details
    if error is not None:
        result = Result.DENIED if isinstance(error, _DENIALS) else Result.FAILED
        details = {**details, "reason": reason_of(error)}
    await log.record(
        deed.action,
        deed.by,
        origin(),
        where=deed.where,
        subject=deed.subject,
        result=result,
        details=details,
    )


def reason_of(error: BaseException) -> str:
    """What the caller was told; of a bug no more than that."""
    return str(error) if isinstance(error, LayoverError) else "internal error"
