"""Collection in SQL: each method one small transaction (docs/decisions/0006).

What is over is let go from the top: a retention ends, its tags and what it retains go, then the
manifests that nothing retains, then the links that no manifest needs, then the bytes' rows. Every
step marks for the next one what it may have made unneeded.
"""

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from layover.adapters.sql import server_leases
from layover.adapters.sql.database import Database
from layover.adapters.sql.registry_rows import TO_BLOB, TO_MANIFEST, delete_manifests, parts
from layover.adapters.sql.retention_rows import (
    DELETED,
    EXPIRED,
    SUPERSEDED,
    bury_all,
    check_soon,
    is_visible,
)
from layover.adapters.sql.schema import (
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
    tombstones,
)
from layover.retention.models import (
    Doomed,
    Kind,
    Receipt,
    ReceiptItem,
    Removal,
    StoredReceipt,
)

# Rows of a build's log that go at once.
_LOG_ROWS = 5_000

_PLAN_BATCH = 500

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

    async def doomed(self, limit: int) -> list[Doomed]:
        query = (
            select(doomed_objects.c.key, doomed_objects.c.digest)
            .order_by(doomed_objects.c.doomed_at)
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
            connection.execute(delete(tombstones).where(tuple_(*place).in_(old_graves)))
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
            decided = [receipt for row in rows if (receipt := _decided(connection, row))]
            return decided, rows[-1].build_id if len(rows) == limit else None

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
        query = select(
            receipts.c.project_id, receipts.c.ended_at, receipts.c.document, receipts.c.signature
        ).where(receipts.c.build_id == build_id)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return row and StoredReceipt(row.project_id, row.ended_at, row.document, row.signature)


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
    ).where(retentions.c.ended_at.is_not(None))


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
    room = limit
    query = _ended_retentions().order_by(retentions.c.ended_at, retentions.c.id).limit(limit)
    for row in connection.execute(query).all():
        room -= _release(connection, row, now, room, removals)
        if room <= 0:
            break
    return limit - room


def _release(
    connection: Connection, ended: Row[Any], now: datetime, room: int, removals: list[Removal]
) -> int:
    """Let go up to `room` rows of an ended retention, and the retention with the last of them."""
    if ended.build_id is not None:
        _open_receipt(connection, ended)
    reason = DELETED if ended.end_reason == DELETED else EXPIRED
    named = connection.execute(
        select(tags.c.repository_id, repositories.c.name.label("repository"), tags.c.name)
        .join(repositories, repositories.c.id == tags.c.repository_id)
        .where(tags.c.retention_id == ended.id)
        .limit(room)
    ).all()
    retained = connection.execute(
        select(
            retained_manifests.c.repository_id,
            repositories.c.name.label("repository"),
            retained_manifests.c.digest,
        )
        .join(repositories, repositories.c.id == retained_manifests.c.repository_id)
        .where(retained_manifests.c.retention_id == ended.id)
        .limit(max(0, room - len(named)))
    ).all()
    graves = [(ended.project_id, row.repository, row.name, reason, ended.ended_at) for row in named]
    for repository_id, digests in _by_repository(retained).items():
        of_repository = retained_manifests.c.repository_id == repository_id
        for part in parts(digests):
            connection.execute(
                delete(retained_manifests).where(
                    retained_manifests.c.retention_id == ended.id,
                    of_repository,
                    retained_manifests.c.digest.in_(part),
                )
            )
            connection.execute(
                update(manifests)
                .where(manifests.c.repository_id == repository_id, manifests.c.digest.in_(part))
                .values(check_at=now)
            )
            still_there = set(
                connection.execute(
                    select(manifests.c.digest).where(
                        manifests.c.repository_id == repository_id,
                        manifests.c.digest.in_(part),
                        is_visible(manifests.c.repository_id, manifests.c.digest, now),
                    )
                ).scalars()
            )
            if ended.end_reason != SUPERSEDED:
                graves += [
                    (ended.project_id, row.repository, row.digest, reason, ended.ended_at)
                    for row in retained
                    if row.repository_id == repository_id and row.digest not in still_there
                ]
    for repository_id in {row.repository_id for row in named}:
        connection.execute(
            delete(tags).where(
                tags.c.retention_id == ended.id,
                tags.c.repository_id == repository_id,
                tags.c.name.in_([row.name for row in named if row.repository_id == repository_id]),
            )
        )
    removals += [
        Removal(Kind.TAG, row.repository, row.name, 0, reason, ended.ended_at) for row in named
    ]
    released = len(named) + len(retained)
    if released < room and (
        ended.build_id is None or _forget_build(connection, ended, reason, graves, removals)
    ):
        connection.execute(delete(retentions).where(retentions.c.id == ended.id))
    bury_all(connection, graves)
    # What is not finished has to be gone on with, also where this was all there was room for.
    return max(1, released)


def _forget_build(
    connection: Connection,
    ended: Row[Any],
    reason: str,
    graves: list[tuple[str, str, str, str, datetime]],
    removals: list[Removal],
) -> bool:
    """Delete the build with what it reported; False when some of its log is left."""
    lines = select(build_logs.c.id).where(build_logs.c.build_id == ended.build_id)
    gone = connection.execute(delete(build_logs).where(build_logs.c.id.in_(lines.limit(_LOG_ROWS))))
    if gone.rowcount == _LOG_ROWS:
        return False
    # Its steps and Dockerfiles go with it: ON DELETE CASCADE.
    connection.execute(delete(builds).where(builds.c.id == ended.build_id))
    graves.append((ended.project_id, "", ended.build_id, reason, ended.ended_at))
    removals.append(Removal(Kind.BUILD, "", ended.build_id, 0, reason, ended.ended_at))
    return True


def _collect_manifests(
    connection: Connection, now: datetime, limit: int, removals: list[Removal]
) -> int:
    is_retained = exists().where(
        retained_manifests.c.repository_id == manifests.c.repository_id,
        retained_manifests.c.digest == manifests.c.digest,
    )
    # An index that something was told of needs what it names; the index's own end marks that.
    # What a retained index needed when it was named is retained with it.
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
        ),
    )
    rows = connection.execute(
        select(
            manifests.c.repository_id,
            repositories.c.name.label("repository"),
            manifests.c.digest,
            manifests.c.leased_until,
            manifests.c.check_at,
            or_(is_retained, is_needed).label("stays"),
        )
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .where(manifests.c.check_at <= now)
        .order_by(manifests.c.check_at)
        .limit(limit)
    ).all()
    staying = [row for row in rows if row.stays]
    leased = [row for row in rows if not row.stays and row.leased_until and row.leased_until > now]
    going = [row for row in rows if not row.stays and row not in leased]
    for repository_id, digests in _by_repository(staying).items():
        for part in parts(digests):
            connection.execute(
                update(manifests)
                .where(manifests.c.repository_id == repository_id, manifests.c.digest.in_(part))
                .values(check_at=None)
            )
    for repository_id, digests in _by_repository(leased).items():
        for part in parts(digests):
            connection.execute(
                update(manifests)
                .where(manifests.c.repository_id == repository_id, manifests.c.digest.in_(part))
                .values(check_at=manifests.c.leased_until)
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
        until = max(row.leased_until, row.shown_until or row.leased_until)
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


def _by_repository(rows: Iterable[Any]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for row in rows:
        found.setdefault(row.repository_id, set()).add(row.digest)
    return found


# --- receipts ------------------------------------------------------------------------------------


def _open_receipt(connection: Connection, ended: Row[Any]) -> None:
    """Write down what a build held, before the first of it goes."""
    known = select(receipts.c.build_id).where(receipts.c.build_id == ended.build_id)
    if connection.execute(known).first() is not None:
        return
    held = (
        select(retained_manifests.c.repository_id, retained_manifests.c.digest)
        .where(retained_manifests.c.retention_id == ended.id)
        .subquery()
    )
    of_manifests = (
        select(manifests.c.repository_id, manifests.c.digest, func.length(manifests.c.body))
        .join(
            held,
            and_(
                held.c.repository_id == manifests.c.repository_id,
                held.c.digest == manifests.c.digest,
            ),
        )
        .order_by(manifests.c.digest)
    )
    of_blobs = (
        select(blobs.c.digest, blobs.c.size_bytes)
        .join(manifest_references, manifest_references.c.digest == blobs.c.digest)
        .join(
            held,
            and_(
                held.c.repository_id == manifest_references.c.repository_id,
                held.c.digest == manifest_references.c.manifest_digest,
            ),
        )
        .where(manifest_references.c.kind == TO_BLOB)
        .distinct()
        .order_by(blobs.c.digest)
    )
    items: list[list[Any]] = [
        [TO_MANIFEST, repository_id, digest, size]
        for repository_id, digest, size in connection.execute(of_manifests)
    ]
    items += [[TO_BLOB, None, digest, size] for digest, size in connection.execute(of_blobs)]
    reason = DELETED if ended.end_reason == DELETED else EXPIRED
    connection.execute(
        insert(receipts).values(
            build_id=ended.build_id,
            project_id=ended.project_id,
            ended_at=ended.ended_at,
            held=json.dumps({"reason": reason, "items": items}),
        )
    )


def _decided(connection: Connection, row: Any) -> Receipt | None:
    """What became of a collected build; None while something waits for the end of a lease."""
    opened = json.loads(row.held)
    decided: list[ReceiptItem] = []
    for kind, repository_id, digest, size_bytes in opened["items"]:
        if kind == TO_MANIFEST:
            left = _manifest_left(connection, repository_id, digest)
        else:
            left = _blob_left(connection, row.project_id, digest)
        if left == "":
            return None
        decided.append(ReceiptItem(digest, kind, size_bytes, left))
    return Receipt(row.build_id, row.project_id, opened["reason"], row.ended_at, tuple(decided))


def _manifest_left(connection: Connection, repository_id: int, digest: str) -> str | None:
    """What keeps the manifest; None when it is gone, "" while that is not known."""
    there = select(manifests.c.digest).where(
        manifests.c.repository_id == repository_id, manifests.c.digest == digest
    )
    if connection.execute(there).first() is None:
        return None
    return _keeper(
        connection,
        and_(
            retained_manifests.c.repository_id == repository_id,
            retained_manifests.c.digest == digest,
        ),
    )


def _blob_left(connection: Connection, project_id: str, digest: str) -> str | None:
    linked = (
        select(repository_blobs.c.digest)
        .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
        .where(repository_blobs.c.digest == digest, repositories.c.project_id == project_id)
        .limit(1)
    )
    if connection.execute(linked).first() is None:
        # Its bytes may wait to be removed; another project's are none of this one's business.
        doomed = select(doomed_objects.c.key).where(doomed_objects.c.digest == digest).limit(1)
        return None if connection.execute(doomed).first() is None else ""
    users = (
        select(manifest_references.c.repository_id, manifest_references.c.manifest_digest)
        .join(repositories, repositories.c.id == manifest_references.c.repository_id)
        .where(
            manifest_references.c.digest == digest,
            manifest_references.c.kind == TO_BLOB,
            repositories.c.project_id == project_id,
        )
    )
    place = tuple_(retained_manifests.c.repository_id, retained_manifests.c.digest)
    return _keeper(connection, place.in_(users))


def _keeper(connection: Connection, condition: Any) -> str:
    """What retains the manifests that `condition` selects: a build's ID where it is one; "" when
    nothing does, and they wait to be collected."""
    keeper = connection.execute(
        select(retentions.c.build_id, repositories.c.name, retained_manifests.c.digest)
        .join(retained_manifests, retained_manifests.c.retention_id == retentions.c.id)
        .join(repositories, repositories.c.id == retained_manifests.c.repository_id)
        .where(condition, retentions.c.ended_at.is_(None))
        # A build is named where there is one.
        .order_by(retentions.c.build_id.is_(None), retentions.c.id)
        .limit(1)
    ).first()
    if keeper is None:
        return ""
    return keeper.build_id or f"{keeper.name}@{keeper.digest}"
