"""What is shown of a push to other registries, wherever one is."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from layover.cli.build_rows import moment
from layover.cli.output import Column, age, printable, rfc3339, size, span
from layover.rpc.layover.v1.pushes_pb import Push, PushStatus, Transfer, TransferState

COLUMNS = (
    Column("ID", "id"),
    Column("STATUS", "status"),
    Column("AGE", "createdAt", is_number=True),
    Column("DURATION", "duration", is_number=True),
    Column("SIZE", "size", is_number=True),
    Column("BUILD", "build"),
    Column("TO", "destinations"),
)

# Docker's words for how a layer is on its way.
_STATE_WORDS = {
    TransferState.WAITING: "Waiting",
    TransferState.SENDING: "Pushing",
    TransferState.EXISTS: "Layer already exists",
    TransferState.MOUNTED: "Mounted from another repository",
    TransferState.SENT: "Pushed",
}


def status_name(push: Push) -> str:
    """`queued`, `running` and so on."""
    return push.status.name.lower()


def state_words(transfer: Transfer) -> str:
    """How a layer is on its way, as Docker says it."""
    return _STATE_WORDS.get(transfer.state, "Waiting")


def short_digest(transfer: Transfer) -> str:
    """What a layer is called where people read: the first characters of its digest."""
    return transfer.digest.partition(":")[2][:12]


def images(push: Push) -> list[str]:
    """What a push that is done has put where: REGISTRY/REPOSITORY:TAG@DIGEST of each."""
    if push.status is not PushStatus.DONE:
        return []
    return [f"{destination}@{push.digest}" for destination in push.destinations]


def push_row(push: Push) -> dict[str, Any]:
    """A push as JSON and CSV have it; `id` and `status` come first for scripts."""
    started, finished = moment(push.started_at), moment(push.finished_at)
    lasted = (finished - started).total_seconds() if started and finished else None
    return {
        "id": push.id,
        "status": status_name(push),
        "createdAt": rfc3339(moment(push.created_at)),
        "startedAt": rfc3339(started),
        "finishedAt": rfc3339(finished),
        "durationSeconds": None if lasted is None else round(lasted, 3),
        "sizeBytes": push.size_bytes,
        "sentBytes": push.sent_bytes,
        "projectId": push.project_id,
        "buildId": push.build_id,
        "target": push.target or None,
        "platforms": list(push.platforms),
        "referrers": push.with_referrers,
        "destinations": list(push.destinations),
        "digest": push.digest or None,
        "images": images(push),
        "createdBy": push.created_by,
        "error": push.error or None,
    }


def whole_row(push: Push, transfers: Sequence[Transfer]) -> dict[str, Any]:
    """As `push_row`, and how far some of its layers are."""
    return {
        **push_row(push),
        "waitsFor": list(push.waits_for),
        "transfers": [
            {
                "place": transfer.place,
                "digest": transfer.digest,
                "state": transfer.state.name.lower(),
                "sizeBytes": transfer.size_bytes,
                "sentBytes": transfer.sent_bytes,
            }
            for transfer in transfers
        ],
    }


def shown_push(push: Push, now: datetime) -> dict[str, str]:
    """A push as a table has it. A running push's duration is counted up to now."""
    started, finished = moment(push.started_at), moment(push.finished_at)
    facts = {
        "id": push.id,
        "status": status_name(push),
        "createdAt": age(moment(push.created_at), now),
        "duration": span((finished or now) - started) if started else "",
        "size": size(push.size_bytes) if push.size_bytes else "",
        "build": f"{push.build_id} {push.target}".rstrip(),
        "destinations": " ".join(push.destinations),
    }
    return {name: printable(text) for name, text in facts.items()}
