"""Between the messages of the API and the values that builds/ works with."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from protobuf.wkt import Duration, Timestamp

from layover.builds.models import (
    BuildOptions,
    BuildOutput,
    BuildStatus,
    Command,
    LogEntry,
    Step,
)
from layover.identity.retention import InvalidRetention
from layover.rpc.depot.cli.v1 import build_pb as depot
from layover.rpc.layover.v1 import builds_pb as layover
from layover.rpc.moby.buildkit.v1 import control_pb as buildkit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PLATFORMS: Mapping[depot.BuilderPlatform, str] = {
    # A client that does not say builds for what most machines are.
    depot.BuilderPlatform.UNSPECIFIED: "linux/amd64",
    depot.BuilderPlatform.AMD64: "linux/amd64",
    depot.BuilderPlatform.ARM64: "linux/arm64",
}

# The public client knows no build that nobody works on yet.
DEPOT_STATUSES: Mapping[BuildStatus, depot.BuildStatus] = {
    BuildStatus.CREATED: depot.BuildStatus.RUNNING,
    BuildStatus.RUNNING: depot.BuildStatus.RUNNING,
    BuildStatus.FINISHED: depot.BuildStatus.FINISHED,
    BuildStatus.FAILED: depot.BuildStatus.FAILED,
    BuildStatus.CANCELED: depot.BuildStatus.CANCELED,
}

STATUSES: Mapping[BuildStatus, layover.BuildStatus] = {
    BuildStatus.CREATED: layover.BuildStatus.CREATED,
    BuildStatus.RUNNING: layover.BuildStatus.RUNNING,
    BuildStatus.FINISHED: layover.BuildStatus.FINISHED,
    BuildStatus.FAILED: layover.BuildStatus.FAILED,
    BuildStatus.CANCELED: layover.BuildStatus.CANCELED,
}


def to_timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    seconds, rest = divmod(time - _EPOCH, timedelta(seconds=1))
    return Timestamp(seconds=seconds, nanos=rest.microseconds * 1000)


def to_datetime(timestamp: Timestamp | None) -> datetime | None:
    """None for a timestamp that is missing or out of datetime's range."""
    if timestamp is None:
        return None
    try:
        return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
    except OverflowError:
        return None


def to_duration(length: timedelta) -> Duration:
    return Duration.from_timedelta(length)


def to_length(duration: Duration) -> timedelta:
    """Raises InvalidRetention for what is out of timedelta's range."""
    try:
        return duration.to_timedelta()
    except OverflowError:
        raise InvalidRetention(f"{duration.seconds} seconds are no time to keep anything") from None


def to_options(options: Iterable[depot.BuildOptions]) -> list[BuildOptions]:
    return [
        BuildOptions(
            command=Command.BAKE if option.command == depot.Command.BAKE else Command.BUILD,
            tags=tuple(option.tags),
            outputs=tuple(
                BuildOutput(output.kind, tuple(sorted(output.attributes.items())))
                for output in option.outputs
            ),
            push=option.push,
            load=option.load,
            target_name=option.target_name if option.has_field("target_name") else None,
            lint=option.lint,
            save=option.save,
            save_tags=tuple(option.save_tags),
        )
        for option in options
    ]


def from_options(options: Iterable[BuildOptions]) -> list[depot.BuildOptions]:
    return [
        depot.BuildOptions(
            command=depot.Command.BAKE if option.command is Command.BAKE else depot.Command.BUILD,
            tags=list(option.tags),
            outputs=[
                depot.BuildOutput(kind=output.kind, attributes=dict(output.attributes))
                for output in option.outputs
            ],
            push=option.push,
            load=option.load,
            target_name=option.target_name,
            lint=option.lint,
            save=option.save,
            save_tags=list(option.save_tags),
        )
        for option in options
    ]


def to_report(
    statuses: Iterable[buildkit.StatusResponse], now: datetime
) -> tuple[list[Step], list[LogEntry]]:
    """The steps and the log of BuildKit's status messages; `now` dates what has no time."""
    steps: list[Step] = []
    log: list[LogEntry] = []
    for status in statuses:
        steps += [
            Step(
                digest=vertex.digest,
                name=vertex.name,
                started_at=to_datetime(vertex.started),
                completed_at=to_datetime(vertex.completed),
                cached=vertex.cached,
                error=vertex.error or None,
            )
            for vertex in status.vertexes
        ]
        log += [
            LogEntry(
                step_digest=entry.vertex,
                timestamp=to_datetime(entry.timestamp) or now,
                stream=2 if entry.stream == 2 else 1,
                message=entry.msg,
            )
            for entry in status.logs
        ]
    return steps, log


def to_timed_steps(steps: Iterable[depot.BuildStep]) -> list[Step]:
    """The steps of a summary, whose digest may be missing."""
    return [_timed_step(step) for step in steps]


def _timed_step(step: depot.BuildStep) -> Step:
    started = to_datetime(step.start_time)
    try:
        completed = started and started + timedelta(milliseconds=step.duration_ms)
    except OverflowError:
        completed = None
    return Step(
        digest=step.stable_digest or "",
        name=step.name,
        started_at=started,
        completed_at=completed,
        cached=step.cached,
        error=step.error or None,
    )
