"""Collection in SQL: each method one small transaction (docs/decisions/0006).

What is over is let go from the top: a retention ends, its tags and what it retains go, then the
manifests that nothing retains, then the links that no manifest needs, then the bytes' rows. Every
step marks for the next one what it may have made unneeded.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Table,
    bindparam,
    case,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from layover.adapters.sql import server_leases
from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import revoke
from layover.adapters.sql.receipt_rows import decided, open_receipts, reason_of
from layover.adapters.sql.registry_rows import TO_BLOB, TO_MANIFEST, delete_manifests, parts
from layover.adapters.sql.retention_rows import (
    EXPIRED,
    SUPERSEDED,
    Grave,
    bury_all,
    check_soon,
    mark_manifests,
    visible_manifests,
)
from layover.adapters.sql.schema import (
    EPOCH,
    blobs,
    build_logs,
    builds,
    doomed_objects,
    manifest_references,
    manifests,
    receipts,
    repositories,
    repository_blobs,
    retained_manifests,
    retentions,
    tags,
    tokens,
    tombstones,
)
from layover.retention.models import (
    Doomed,
    Kind,
    Receipt,
    Removal,
    StoredReceipt,
)

# Retentions that are let go at once, and rows of their builds' logs.
_RETENTIONS = 50
_LOG_ROWS = 5_000

_PLAN_BATCH = 500

# Until when content is leased that is not.
_NEVER = EPOCH

# A step of the collection, which may say what it takes away.
Step = Callable[[Connection, datetime, int, list[Removal]], int]


class SqlRetentionStore:
    """The RetentionStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- one server at a time ------------------------------------------------------------------

    async def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        return await self._database.write(
            lambda connection: server_leases.take(connection, name, holder, now, until)
        )

    async def release_lease(self, name: str, holder: str) -> None:
        await self._database.write(
            lambda connection: server_leases.release(connection, name, holder)
        )

    # --- the steps of a collection ---------------------------------------------------------------

    async def end_due(self, now: datetime, limit: int) -> int:
        return await self._step(_end_due, _due_retentions(now), now, limit)

    async def release_ended(self, now: datetime, limit: int) -> int:
        return await self._step(_release_ended, _ended_retentions(), now, limit)

    async def collect_manifests(self, now: datetime, limit: int) -> int:
        due = select(manifests.c.digest).where(manifests.c.check_at <= now)
        return await self._step(_collect_manifests, due, now, limit)

    async def collect_links(self, now: datetime, limit: int) -> int:
        due = select(repository_blobs.c.digest).where(repository_blobs.c.check_at <= now)
        return await self._step(_collect_links, due, now, limit)

    async def _step(self, step: Step, due: Select[Any], now: datetime, limit: int) -> int:
        # Most of the time nothing is: then the disk need not be woken.
        if not await self._database.read(
            lambda connection: connection.execute(due.limit(1)).first()
        ):
            return 0
        return await self._database.write(lambda connection: step(connection, now, limit, []))

    async def doomed(self, after: str, limit: int) -> list[Doomed]:
        query = (
            select(doomed_objects.c.key, doomed_objects.c.digest)
            .where(doomed_objects.c.key > after)
            .order_by(doomed_objects.c.key)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Doomed(row.key, row.digest) for row in rows]

    async def forget_doomed(self, keys: Collection[str]) -> None:
        def work(connection: Connection) -> None:
            for part in parts(keys):
                connection.execute(delete(doomed_objects).where(doomed_objects.c.key.in_(part)))

        await self._database.write(work)

    async def forget_gone(self, before: datetime, receipts_before: datetime, limit: int) -> int:
        place = (tombstones.c.project_id, tombstones.c.repository, tombstones.c.reference)
        graves = select(*place).where(tombstones.c.gone_at < before).limit(limit)
        signed = select(receipts.c.build_id).where(receipts.c.signed_at < receipts_before)
        signed = signed.limit(limit)

        def are_there(connection: Connection) -> bool:
            return any(connection.execute(query).first() for query in (graves, signed))

        def work(connection: Connection) -> int:
            old_graves = [tuple(row) for row in connection.execute(graves)]
            old_receipts = list(connection.execute(signed).scalars())
            _delete_each(connection, tombstones, [column.name for column in place], old_graves)
            connection.execute(delete(receipts).where(receipts.c.build_id.in_(old_receipts)))
            return len(old_graves) + len(old_receipts)

        if not await self._database.read(are_there):
            return 0
        return await self._database.write(work)

    async def plan(self, now: datetime) -> list[Removal]:
        removals: list[Removal] = []

        def work(connection: Connection) -> None:
            # What would be done is done, and undone: there is no second opinion to differ.
            removals.clear()
            for step in (_end_due, _release_ended, _collect_manifests, _collect_links):
                while step(connection, now, _PLAN_BATCH, removals):
                    pass
            raise _Planned

        with contextlib.suppress(_Planned):
            await self._database.write(work)
        return removals

    # --- receipts ----------------------------------------------------------------------------

    async def decided_receipts(self, after: str, limit: int) -> tuple[list[Receipt], str | None]:
        query = (
            select(receipts.c.build_id, receipts.c.project_id, receipts.c.ended_at, receipts.c.held)
            .where(
                receipts.c.signed_at.is_(None),
                receipts.c.build_id > after,
                # Until its retention is gone not all of it is let go.
                ~exists().where(retentions.c.build_id == receipts.c.build_id),
            )
            .order_by(receipts.c.build_id)
            .limit(limit)
        )

        def work(connection: Connection) -> tuple[list[Receipt], str | None]:
            rows = connection.execute(query).all()
            return decided(connection, rows), rows[-1].build_id if len(rows) == limit else None

        return await self._database.read(work)

    async def sign_receipts(
        self, signed: Sequence[tuple[str, bytes, bytes]], now: datetime
    ) -> None:
        def work(connection: Connection) -> None:
            for build_id, document, signature in signed:
                connection.execute(
                    update(receipts)
                    .where(receipts.c.build_id == build_id, receipts.c.signed_at.is_(None))
                    .values(document=document, signature=signature, signed_at=now)
                )

        await self._database.write(work)

    async def find_receipt(self, build_id: str) -> StoredReceipt | None:
        query = select(receipts.c.project_id, receipts.c.document, receipts.c.signature).where(
            receipts.c.build_id == build_id
        )
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return row and StoredReceipt(row.project_id, row.document, row.signature)


class _Planned(Exception):
    """Takes back what a plan did."""


def _due_retentions(now: datetime) -> Select[Any]:
    return select(
        retentions.c.id,
        retentions.c.project_id,
        retentions.c.build_id,
        retentions.c.expires_at,
    ).where(retentions.c.expires_at <= now, retentions.c.ended_at.is_(None))


def _ended_retentions() -> Select[Any]:
    return select(
        retentions.c.id,
        retentions.c.project_id,
        retentions.c.build_id,
        retentions.c.ended_at,
        retentions.c.end_reason,
        # SQLite finds what is in a range by the index, and what is not NULL by looking at all.
    ).where(retentions.c.ended_at >= EPOCH)


def _end_due(connection: Connection, now: datetime, limit: int, _: list[Removal]) -> int:
    query = _due_retentions(now).order_by(retentions.c.expires_at).limit(limit)
    due = [row.id for row in connection.execute(query)]
    connection.execute(
        update(retentions)
        # Asked again: one that was extended since it was read is not over.
        .where(retentions.c.id.in_(due), retentions.c.expires_at <= now)
        # What is over was over at its time, whenever it is noticed.
        .values(ended_at=retentions.c.expires_at, end_reason=EXPIRED)
    )
    return len(due)


def _release_ended(
    connection: Connection, now: datetime, limit: int, removals: list[Removal]
) -> int:
    """Let go up to `limit` rows of what ended retentions hold; those that hold nothing go."""
    query = _ended_retentions().order_by(retentions.c.ended_at, retentions.c.id)
    ended = {row.id: row for row in connection.execute(query.limit(_RETENTIONS)).all()}
    if not ended:
        return 0
    open_receipts(connection, ended)
    named = connection.execute(
        select(
            tags.c.retention_id,
            tags.c.repository_id,
            repositories.c.name.label("repository"),
            tags.c.name,
        )
        .join(repositories, repositories.c.id == tags.c.repository_id)
        .where(tags.c.retention_id.in_(ended))
        .limit(limit)
    ).all()
    removals += [
        Removal(
            Kind.TAG,
            row.repository,
            row.name,
            0,
            reason_of(ended[row.retention_id]),
            ended[row.retention_id].ended_at,
        )
        for row in named
    ]
    bury_all(
        connection, [_grave(ended[row.retention_id], row.repository, row.name) for row in named]
    )
    _delete_each(
        connection,
        tags,
        ("retention_id", "repository_id", "name"),
        [(row.retention_id, row.repository_id, row.name) for row in named],
    )
    if len(named) == limit:
        return limit
    released = _release_manifests(connection, ended, now, limit)
    if released == limit or not _forget_builds(connection, ended, now, removals):
        return limit
    connection.execute(delete(retentions).where(retentions.c.id.in_(ended)))
    return len(ended)


def _release_manifests(
    connection: Connection, ended: dict[int, Any], now: datetime, limit: int
) -> int:
    retained = connection.execute(
        select(
            retained_manifests.c.retention_id,
            retained_manifests.c.repository_id,
            repositories.c.name.label("repository"),
            retained_manifests.c.digest,
        )
        .join(repositories, repositories.c.id == retained_manifests.c.repository_id)
        .where(retained_manifests.c.retention_id.in_(ended))
        .limit(limit)
    ).all()
    _delete_each(
        connection,
        retained_manifests,
        ("retention_id", "repository_id", "digest"),
        [(row.retention_id, row.repository_id, row.digest) for row in retained],
    )
    still_there: set[tuple[int, str]] = set()
    for repository_id, digests in _by_repository(retained).items():
        mark_manifests(connection, repository_id, digests, now)
        visible = visible_manifests(connection, repository_id, digests, now)
        still_there |= {(repository_id, digest) for digest in visible}
    bury_all(
        connection,
        [
            _grave(ended[row.retention_id], row.repository, row.digest)
            for row in retained
            if (row.repository_id, row.digest) not in still_there
            and ended[row.retention_id].end_reason != SUPERSEDED
        ],
    )
    return len(retained)


def _forget_builds(
    connection: Connection, ended: dict[int, Any], now: datetime, removals: list[Removal]
) -> bool:
    """Delete the builds with what they reported; False when some of their logs are left."""
    over = [row for row in ended.values() if row.build_id is not None]
    build_ids = [row.build_id for row in over]
    lines = select(build_logs.c.id).where(build_logs.c.build_id.in_(build_ids)).limit(_LOG_ROWS)
    gone = connection.execute(delete(build_logs).where(build_logs.c.id.in_(lines)))
    if gone.rowcount == _LOG_ROWS:
        return False
    # Their steps and Dockerfiles go with them: ON DELETE CASCADE.
    connection.execute(delete(builds).where(builds.c.id.in_(build_ids)))
    # What was to pull them may have been made while they ran, when their end was not known.
    revoke(connection, select(tokens.c.id).where(tokens.c.build_id.in_(build_ids)), now)
    bury_all(connection, [_grave(row, "", row.build_id) for row in over])
    removals += [
        Removal(Kind.BUILD, "", row.build_id, 0, reason_of(row), row.ended_at) for row in over
    ]
    return True


def _delete_each(
    connection: Connection, table: Table, columns: Sequence[str], keys: Sequence[tuple[Any, ...]]
) -> None:
    """Delete rows by their keys, one by one: of a list of pairs SQLite makes a scan."""
    if keys:
        connection.execute(
            delete(table).where(*(table.c[name] == bindparam(f"key_{name}") for name in columns)),
            [
                {f"key_{name}": part for name, part in zip(columns, key, strict=True)}
                for key in keys
            ],
        )


def _grave(ended: Any, repository: str, reference: str) -> Grave:
    return ended.project_id, repository, reference, reason_of(ended), ended.ended_at


def _collect_manifests(
    connection: Connection, now: datetime, limit: int, removals: list[Removal]
) -> int:
    is_retained = exists().where(
        retained_manifests.c.repository_id == manifests.c.repository_id,
        retained_manifests.c.digest == manifests.c.digest,
    )
    # An index that something was told of needs what it names; the index's own end marks that.
    # What a retained index needed when it was named is retained with it, until its retention is
    # let go: that takes many steps, and neither is the other's.
    parent = manifests.alias("parent")
    is_needed = exists().where(
        manifest_references.c.repository_id == manifests.c.repository_id,
        manifest_references.c.digest == manifests.c.digest,
        manifest_references.c.kind == TO_MANIFEST,
        parent.c.repository_id == manifest_references.c.repository_id,
        parent.c.digest == manifest_references.c.manifest_digest,
        ~exists().where(
            retained_manifests.c.repository_id == parent.c.repository_id,
            retained_manifests.c.digest == parent.c.digest,
            retentions.c.id == retained_manifests.c.retention_id,
            retentions.c.ended_at.is_(None),
        ),
    )
    rows = connection.execute(
        select(
            manifests.c.repository_id,
            repositories.c.name.label("repository"),
            manifests.c.digest,
            manifests.c.leased_until,
            manifests.c.kept_until,
            manifests.c.check_at,
            or_(is_retained, is_needed).label("stays"),
        )
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .where(manifests.c.check_at <= now)
        .order_by(manifests.c.check_at)
        .limit(limit)
    ).all()
    staying = [row for row in rows if row.stays]
    held = [
        row
        for row in rows
        if not row.stays and _last(row.leased_until, row.kept_until, _NEVER) > now
    ]
    going = [row for row in rows if not row.stays and row not in held]
    for repository_id, digests in _by_repository(staying).items():
        for part in parts(digests):
            connection.execute(
                update(manifests)
                .where(manifests.c.repository_id == repository_id, manifests.c.digest.in_(part))
                .values(check_at=None)
            )
    leased_until, kept_until = manifests.c.leased_until, manifests.c.kept_until
    is_kept_longer = or_(leased_until.is_(None), kept_until > leased_until)
    for repository_id, digests in _by_repository(held).items():
        for part in parts(digests):
            connection.execute(
                update(manifests)
                .where(manifests.c.repository_id == repository_id, manifests.c.digest.in_(part))
                .values(check_at=case((is_kept_longer, kept_until), else_=leased_until))
            )
    for repository_id, digests in _by_repository(going).items():
        check_soon(connection, repository_id, digests, now)
        delete_manifests(connection, repository_id, digests)
    removals += [
        Removal(Kind.MANIFEST, row.repository, row.digest, 0, "nothing retains it", row.check_at)
        for row in going
    ]
    return len(rows)


def _collect_links(
    connection: Connection, now: datetime, limit: int, removals: list[Removal]
) -> int:
    is_needed = exists().where(
        manifest_references.c.repository_id == repository_blobs.c.repository_id,
        manifest_references.c.digest == repository_blobs.c.digest,
        manifest_references.c.kind == TO_BLOB,
    )
    rows = connection.execute(
        select(
            repository_blobs.c.repository_id,
            repositories.c.name.label("repository"),
            repository_blobs.c.digest,
            repository_blobs.c.leased_until,
            repository_blobs.c.shown_until,
            repository_blobs.c.kept_until,
            repository_blobs.c.check_at,
            is_needed.label("stays"),
        )
        .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
        .where(repository_blobs.c.check_at <= now)
        .order_by(repository_blobs.c.check_at)
        .limit(limit)
    ).all()
    going: list[Row[Any]] = []
    for row in rows:
        until = _last(row.leased_until, row.shown_until, row.kept_until)
        if not row.stays and until <= now:
            going.append(row)
            continue
        connection.execute(
            update(repository_blobs)
            .where(
                repository_blobs.c.repository_id == row.repository_id,
                repository_blobs.c.digest == row.digest,
            )
            .values(check_at=None if row.stays else until)
        )
    for repository_id, digests in _by_repository(going).items():
        for part in parts(digests):
            connection.execute(
                delete(repository_blobs).where(
                    repository_blobs.c.repository_id == repository_id,
                    repository_blobs.c.digest.in_(part),
                )
            )
    removals += [
        Removal(Kind.LINK, row.repository, row.digest, 0, "no manifest needs it", row.check_at)
        for row in going
    ]
    _doom(connection, {row.digest for row in going}, now, removals)
    return len(rows)


def _doom(
    connection: Connection, digests: set[str], now: datetime, removals: list[Removal]
) -> None:
    """Give up the bytes of those blobs that no repository links."""
    for part in parts(digests):
        unlinked = connection.execute(
            select(blobs.c.digest, blobs.c.key, blobs.c.size_bytes).where(
                blobs.c.digest.in_(part),
                ~exists().where(repository_blobs.c.digest == blobs.c.digest),
            )
        ).all()
        if not unlinked:
            continue
        connection.execute(
            insert(doomed_objects),
            [{"key": row.key, "digest": row.digest, "doomed_at": now} for row in unlinked],
        )
        connection.execute(delete(blobs).where(blobs.c.digest.in_([r.digest for r in unlinked])))
        removals += [
            Removal(Kind.BLOB, "", row.digest, row.size_bytes, "no repository shows it", now)
            for row in unlinked
        ]


def _last(*times: datetime | None) -> datetime:
    """The last of those of these times that there are; one has to be."""
    return max(time for time in times if time is not None)


def _by_repository(rows: Iterable[Any]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for row in rows:
        found.setdefault(row.repository_id, set()).add(row.digest)
    return found
