"""What is shown of a build, wherever builds are listed."""

from collections.abc import Sequence
from datetime import UTC, datetime

from protobuf.wkt import Timestamp

from layover.cli.output import Column, Row, age, as_csv, left, rfc3339, size, span
from layover.rpc.layover.v1.builds_pb import Build, BuildStatus

COLUMNS = (
    Column("ID", "id"),
    Column("STATUS", "status"),
    Column("AGE", "createdAt", is_number=True),
    Column("DURATION", "duration", is_number=True),
    Column("SIZE", "size", is_number=True),
    Column("EXPIRES", "expires"),
    Column("TAGS", "tags"),
)


def moment(timestamp: Timestamp | None) -> datetime | None:
    """A time of the wire; an unset one is none."""
    return None if timestamp is None else timestamp.to_datetime().astimezone(UTC)


def status_name(status: BuildStatus) -> str:
    """`running`, `finished` and so on."""
    return status.name.lower()


def is_saved(build: Build) -> bool:
    """Whether the build's image is in the registry."""
    # A listing leaves the images out; what is saved has a size.
    return bool(build.images) or build.size_bytes > 0


def build_row(build: Build, now: datetime) -> Row:
    """A build as JSON and CSV have it; `id` and `status` come first for scripts."""
    expires = moment(build.expires_at)
    started, finished = moment(build.started_at), moment(build.finished_at)
    lasted = (finished - started).total_seconds() if started and finished else None
    return {
        "id": build.id,
        "status": status_name(build.status),
        "createdAt": rfc3339(moment(build.created_at)),
        "startedAt": rfc3339(started),
        "finishedAt": rfc3339(finished),
        "durationSeconds": None if lasted is None else round(lasted, 3),
        "sizeBytes": build.size_bytes,
        "tags": list(build.tags),
        "saved": is_saved(build),
        "projectId": build.project_id,
        "command": build.command,
        "error": build.error or None,
        # A build that runs has no end yet.
        "expiresAt": rfc3339(expires),
        "expiresIn": left(expires, now) or None,
    }


def shown_row(build: Build, now: datetime) -> dict[str, str]:
    """A build as a table has it. A running build's duration is counted up to now."""
    started, finished = moment(build.started_at), moment(build.finished_at)
    return {
        "id": build.id,
        "status": status_name(build.status),
        "createdAt": age(moment(build.created_at), now),
        "duration": span((finished or now) - started) if started else "",
        "size": size(build.size_bytes) if is_saved(build) else "",
        "expires": left(moment(build.expires_at), now),
        "tags": " ".join(build.tags),
    }


def builds_csv(builds: Sequence[Build], now: datetime) -> str:
    """Builds as CSV, its heading there even for none."""
    return as_csv([build_row(build, now) for build in builds]) or "id,status\n"
