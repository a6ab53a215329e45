"""Builds, their reports and their builders' leases in SQL."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from layover.adapters.sql.database import Database
from layover.adapters.sql.retention_rows import DELETED, expiry, is_live
from layover.adapters.sql.schema import (
    Timestamp,
    build_dockerfiles,
    build_logs,
    build_steps,
    builder_affinities,
    builder_leases,
    builds,
    retentions,
    staged_tags,
    tombstones,
)
from layover.adapters.sql.staged_tags import let_go, set_staged_tags
from layover.builds.builders import LeaseState
from layover.builds.limits import (
    MAX_READ_CHARACTERS,
    MAX_STEPS,
    MAX_TARGETS,
    admit_log,
    within_read_limit,
)
from layover.builds.models import (
    LIVE,
    Build,
    BuildOptions,
    BuildOutput,
    BuildPage,
    BuildStatus,
    Command,
    Dockerfile,
    LogEntry,
    PageKey,
    Step,
)
from layover.registry.models import Gone

# Every build has its retention, from its first moment to its collection.
_BUILDS = select(
    builds, retentions.c.expires_at, retentions.c.ended_at, retentions.c.end_reason
).join(retentions, retentions.c.build_id == builds.c.id)

_LIVE = [status.value for status in LIVE]

# Below every database's limit of parameters in a statement.
_BATCH = 500

# How many rows of text are fetched at a time where not all of them may be wanted.
_ROWS = 20


class SqlBuildStore:
    """The BuildStore and the LeaseStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- a build's life --------------------------------------------------------------------

    async def add(self, build: Build) -> None:
        statement = insert(builds).values(
            id=build.id,
            project_id=build.project_id,
            status=build.status.value,
            command=build.command.value,
            save=build.is_saved,
            retention_seconds=int(build.retention.total_seconds()),
            options=json.dumps([asdict(option) for option in build.options]),
            created_at=build.created_at,
            started_at=build.started_at,
            seen_at=build.seen_at,
            finished_at=build.finished_at,
            error=build.error,
            step_count=0,
            log_size_bytes=0,
        )
        retention = insert(retentions).values(
            project_id=build.project_id,
            build_id=build.id,
            created_at=build.created_at,
            expires_at=build.expires_at,
        )

        def work(connection: Connection) -> None:
            connection.execute(statement)
            connection.execute(retention)

        await self._database.write(work)

    async def find(self, build_id: str) -> Build | None:
        query = _BUILDS.where(builds.c.id == build_id)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else _build(row)

    async def mark_seen(self, build_id: str, now: datetime, *, starts: bool) -> None:
        def work(connection: Connection) -> None:
            connection.execute(
                update(builds)
                .where(builds.c.id == build_id, builds.c.status.in_(_LIVE))
                .values(seen_at=now)
            )
            if starts:
                connection.execute(
                    update(builds)
                    .where(builds.c.id == build_id, builds.c.status == BuildStatus.CREATED.value)
                    .values(status=BuildStatus.RUNNING.value, started_at=now)
                )

        await self._database.write(work)

    async def end(
        self, build_id: str, status: BuildStatus, error: str | None, now: datetime
    ) -> bool:
        def work(connection: Connection) -> bool:
            ended = end_builds(connection, builds.c.id == build_id, status, error, now)
            return bool(ended)

        return await self._database.write(work)

    async def has_vanished(self, seen_before: datetime) -> bool:
        vanished = builds.c.seen_at < seen_before, builds.c.status.in_(_LIVE)
        query = select(builds.c.id).where(*vanished).limit(1)
        return await self._database.read(
            lambda connection: connection.execute(query).first() is not None
        )

    async def end_vanished(self, seen_before: datetime, error: str, now: datetime) -> list[str]:
        # The condition holds in the statement that ends them: a build that is heard of in
        # between stays alive.
        condition = builds.c.seen_at < seen_before
        return await self._database.write(
            lambda connection: end_builds(connection, condition, BuildStatus.CANCELED, error, now)
        )

    async def delete(self, build_id: str, now: datetime) -> bool:
        statement = (
            update(retentions)
            .where(retentions.c.build_id == build_id, is_live(now))
            .values(ended_at=now, end_reason=DELETED)
        )
        return await self._database.write(
            lambda connection: bool(connection.execute(statement).rowcount)
        )

    async def keep(self, build_id: str, until: datetime, now: datetime) -> datetime | None:
        own = and_(retentions.c.build_id == build_id, is_live(now))
        until = expiry(until, timedelta(0))

        def work(connection: Connection) -> datetime | None:
            connection.execute(
                update(retentions)
                .where(own, retentions.c.expires_at < until)
                .values(expires_at=until)
            )
            return connection.scalar(select(retentions.c.expires_at).where(own))

        return await self._database.write(work)

    async def find_buried(self, build_id: str) -> tuple[str, Gone] | None:
        # As the index has it: what is bound can be anything to a planner.
        is_build = tombstones.c.repository == literal_column("''")
        query = select(tombstones).where(is_build, tombstones.c.reference == build_id)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return row and (row.project_id, Gone(row.reason == DELETED, row.gone_at))

    async def list_page(
        self, project_id: str, after: PageKey | None, limit: int, now: datetime
    ) -> BuildPage:
        query = _BUILDS.where(builds.c.project_id == project_id, is_live(now))
        if after is not None:
            # Compared as a row, which the index of a project's builds answers at any depth.
            place = tuple_(literal(after.created_at, Timestamp), literal(after.build_id))
            query = query.where(tuple_(builds.c.created_at, builds.c.id) < place)
        # One more than asked for tells whether there are more.
        query = query.order_by(builds.c.created_at.desc(), builds.c.id.desc()).limit(limit + 1)

        def work(connection: Connection) -> BuildPage:
            listed: list[Build] = []
            room = MAX_READ_CHARACTERS
            for row in connection.execution_options(yield_per=_ROWS).execute(query):
                room -= len(row.options)
                if len(listed) == limit or (room < 0 and listed):
                    return BuildPage(tuple(listed), has_more=True)
                listed.append(_build(row))
            return BuildPage(tuple(listed), has_more=False)

        return await self._database.read(work)

    # --- what it reports -------------------------------------------------------------------

    async def record(
        self, build_id: str, steps: Sequence[Step], log: Sequence[LogEntry], now: datetime
    ) -> None:
        def work(connection: Connection) -> None:
            # Locked where rows can be: two replicas that take reports of one build must not
            # number its steps alike.
            build = connection.execute(
                select(builds.c.step_count, builds.c.log_size_bytes)
                .where(builds.c.id == build_id)
                .with_for_update()
            ).first()
            if build is None:
                return
            step_count = _merge_steps(connection, build_id, steps, build.step_count)
            kept, log_size_bytes = admit_log(log, build.log_size_bytes)
            if kept:
                connection.execute(
                    insert(build_logs), [_log_values(build_id, entry) for entry in kept]
                )
            connection.execute(
                update(builds)
                .where(builds.c.id == build_id)
                .values(step_count=step_count, log_size_bytes=log_size_bytes, seen_at=now)
            )

        await self._database.write(work)

    async def list_steps(self, build_id: str) -> list[Step]:
        query = (
            select(build_steps)
            .where(build_steps.c.build_id == build_id)
            .order_by(build_steps.c.position)
        )

        def work(connection: Connection) -> list[Step]:
            rows = connection.execution_options(yield_per=_ROWS).execute(query)
            steps = (_step(row) for row in rows)
            return list(
                within_read_limit(
                    steps, lambda step: len(step.digest) + len(step.name) + len(step.error or "")
                )
            )

        return await self._database.read(work)

    async def read_log(self, build_id: str, after: int, limit: int) -> list[tuple[int, LogEntry]]:
        query = (
            select(build_logs)
            .where(build_logs.c.build_id == build_id, build_logs.c.id > after)
            .order_by(build_logs.c.id)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [
            (row.id, LogEntry(row.step_digest, row.timestamp, row.stream, row.message))
            for row in rows
        ]

    async def put_dockerfiles(self, build_id: str, dockerfiles: Sequence[Dockerfile]) -> None:
        # Of a target named twice the last one counts.
        by_target = {dockerfile.target: dockerfile for dockerfile in dockerfiles}

        def work(connection: Connection) -> None:
            locked = select(builds.c.id).where(builds.c.id == build_id).with_for_update()
            if connection.execute(locked).first() is None:
                return
            of_build = build_dockerfiles.c.build_id == build_id
            kept = set(connection.scalars(select(build_dockerfiles.c.target).where(of_build)))
            room = max(0, MAX_TARGETS - len(kept))
            new = list(islice((t for t in by_target if t not in kept), room))
            targets = [target for target in by_target if target in kept] + new
            for batch in _batches(targets):
                connection.execute(
                    delete(build_dockerfiles).where(of_build, build_dockerfiles.c.target.in_(batch))
                )
                connection.execute(
                    insert(build_dockerfiles),
                    [{"build_id": build_id, **asdict(by_target[target])} for target in batch],
                )

        await self._database.write(work)

    async def list_dockerfiles(self, build_id: str) -> list[Dockerfile]:
        query = (
            select(build_dockerfiles)
            .where(build_dockerfiles.c.build_id == build_id)
            .order_by(build_dockerfiles.c.target)
        )

        def work(connection: Connection) -> list[Dockerfile]:
            rows = connection.execution_options(yield_per=1).execute(query)
            files = (Dockerfile(row.target, row.filename, row.contents) for row in rows)
            return list(
                within_read_limit(files, lambda file: len(file.filename) + len(file.contents))
            )

        return await self._database.read(work)

    # --- leases ----------------------------------------------------------------------------

    async def lease(
        self,
        build: Build,
        platform: str,
        choose: Callable[[LeaseState], str],
        now: datetime,
    ) -> str | None:
        def work(connection: Connection) -> str | None:
            live = (
                select(builds.c.id)
                .where(builds.c.id == build.id, builds.c.status.in_(_LIVE))
                .with_for_update()
            )
            if connection.execute(live).first() is None:
                return None
            state = _lease_state(connection, build, platform)
            chosen = choose(state)
            if chosen != state.current:
                _put_lease(connection, build.id, platform, chosen, now)
            _put_affinity(connection, build.project_id, platform, chosen, now)
            return chosen

        return await self._database.write(work)

    async def count_leases(self) -> dict[str, int]:
        return await self._database.read(_count_leases)


def end_builds(
    connection: Connection,
    condition: ColumnElement[bool],
    status: BuildStatus,
    error: str | None,
    now: datetime,
) -> list[str]:
    """End the live builds that `condition` selects, with their leases; return their IDs."""
    statement = (
        update(builds)
        .where(condition, builds.c.status.in_(_LIVE))
        .values(status=status.value, finished_at=now, error=error)
        .returning(builds.c.id, builds.c.retention_seconds)
    )
    seconds: dict[str, int] = {
        row.id: row.retention_seconds for row in connection.execute(statement)
    }
    ended = list(seconds)
    for build_id in ended:
        # From here on it has an end.
        retention_id = connection.execute(
            update(retentions)
            .where(retentions.c.build_id == build_id, retentions.c.ended_at.is_(None))
            .values(expires_at=expiry(now, timedelta(seconds=seconds[build_id])))
            .returning(retentions.c.id)
        ).scalar()
        if retention_id is None:
            continue  # Its time was over before it, with its project.
        if status is BuildStatus.FINISHED:
            set_staged_tags(connection, build_id, retention_id, now)
        else:
            let_go(connection, retention_id, now)
    for batch in _batches(ended):
        for table in (builder_leases, staged_tags):
            connection.execute(delete(table).where(table.c.build_id.in_(batch)))
    return ended


def _merge_steps(connection: Connection, build_id: str, steps: Sequence[Step], count: int) -> int:
    """Insert the new steps behind the `count` known ones, merge the others; return the count."""
    # One vertex may be in a report several times; its reports are merged in their order.
    reported: dict[str, Step] = {}
    for step in steps:
        before = reported.get(step.digest)
        reported[step.digest] = step if before is None else before.merged(step)
    known: dict[str, Step] = {}
    for batch in _batches(reported):
        query = select(build_steps).where(
            build_steps.c.build_id == build_id, build_steps.c.digest.in_(batch)
        )
        known.update((row.digest, _step(row)) for row in connection.execute(query))
    changed = [
        merged
        for digest, step in known.items()
        if (merged := step.merged(reported[digest])) != step
    ]
    if changed:
        connection.execute(
            update(build_steps).where(
                build_steps.c.build_id == build_id, build_steps.c.digest == bindparam("b_digest")
            ),
            [{"b_digest": step.digest, **_step_values(step)} for step in changed],
        )
    new = [step for digest, step in reported.items() if digest not in known]
    new = new[: max(0, MAX_STEPS - count)]
    if new:
        connection.execute(
            insert(build_steps),
            [
                {
                    "build_id": build_id,
                    "digest": step.digest,
                    "position": count + offset,
                    **_step_values(step),
                }
                for offset, step in enumerate(new)
            ],
        )
    return count + len(new)


def _lease_state(connection: Connection, build: Build, platform: str) -> LeaseState:
    own = and_(builder_leases.c.build_id == build.id, builder_leases.c.platform == platform)
    current = connection.scalar(select(builder_leases.c.builder).where(own))
    last_used = connection.scalar(
        select(builder_affinities.c.builder).where(
            builder_affinities.c.project_id == build.project_id,
            builder_affinities.c.platform == platform,
        )
    )
    loads = _count_leases(connection)
    if current is not None:
        # Its own lease is no load in its way.
        loads[current] -= 1
    return LeaseState(current, last_used, loads)


def _count_leases(connection: Connection) -> dict[str, int]:
    query = select(builder_leases.c.builder, func.count()).group_by(builder_leases.c.builder)
    return {builder: count for builder, count in connection.execute(query)}  # noqa: C416  # rows


def _put_lease(
    connection: Connection, build_id: str, platform: str, builder: str, now: datetime
) -> None:
    values = {"builder": builder, "acquired_at": now}
    updated = connection.execute(
        update(builder_leases)
        .where(builder_leases.c.build_id == build_id, builder_leases.c.platform == platform)
        .values(values)
    )
    if updated.rowcount == 0:
        connection.execute(
            insert(builder_leases).values(build_id=build_id, platform=platform, **values)
        )


def _put_affinity(
    connection: Connection, project_id: str, platform: str, builder: str, now: datetime
) -> None:
    of_project = and_(
        builder_affinities.c.project_id == project_id, builder_affinities.c.platform == platform
    )
    change = update(builder_affinities).where(of_project).values(builder=builder, used_at=now)
    if connection.execute(change).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(
                insert(builder_affinities).values(
                    project_id=project_id, platform=platform, builder=builder, used_at=now
                )
            )
    except IntegrityError:
        # Another replica placed the project's first build at this very moment.
        connection.execute(change)


def _batches(items: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _log_values(build_id: str, entry: LogEntry) -> dict[str, Any]:
    # Named one by one: `asdict` copies each value, and a log has many entries.
    return {
        "build_id": build_id,
        "step_digest": entry.step_digest,
        "timestamp": entry.timestamp,
        "stream": entry.stream,
        "message": entry.message,
    }


def _step_values(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "started_at": step.started_at,
        "completed_at": step.completed_at,
        "cached": step.cached,
        "error": step.error,
    }


def _step(row: Row[Any]) -> Step:
    return Step(row.digest, row.name, row.started_at, row.completed_at, row.cached, row.error)


def _build(row: Row[Any]) -> Build:
    return Build(
        id=row.id,
        project_id=row.project_id,
        status=BuildStatus(row.status),
        options=tuple(_options(entry) for entry in json.loads(row.options)),
        created_at=row.created_at,
        seen_at=row.seen_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=row.error,
        retention=timedelta(seconds=row.retention_seconds),
        expires_at=row.expires_at,
        deleted_at=row.ended_at if row.end_reason == DELETED else None,
    )


def _options(entry: dict[str, Any]) -> BuildOptions:
    return BuildOptions(
        command=Command(entry["command"]),
        tags=tuple(entry["tags"]),
        outputs=tuple(
            BuildOutput(output["kind"], tuple((key, value) for key, value in output["attributes"]))
            for output in entry["outputs"]
        ),
        push=entry["push"],
        load=entry["load"],
        target_name=entry["target_name"],
        lint=entry["lint"],
        save=entry["save"],
        save_tags=tuple(entry["save_tags"]),
    )
