"""Pushes to other registries in SQL.

A push's row says who works on it and until when; its transfers and what it is authorized by have
rows of their own, of which those are written that changed.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from layover.adapters.sql.database import Database, upsert_all
from layover.adapters.sql.schema import Timestamp, push_authorizations, push_transfers, pushes
from layover.oci.digest import Digest
from layover.oci.names import RepositoryName, Tag
from layover.oci.references import Destination, Place
from layover.promotion.models import (
    Push,
    PushPage,
    PushStatus,
    TooManyPushes,
    Transfer,
    TransferState,
)
from layover.promotion.ports import Claim

# Nobody works on a push for longer without saying so again.
LONGEST_LEASE = timedelta(minutes=10)

_QUEUED, _RUNNING = PushStatus.QUEUED.value, PushStatus.RUNNING.value
_ARRIVED = (TransferState.SENT, TransferState.MOUNTED)
_IS_LIVE = pushes.c.status.in_([_QUEUED, _RUNNING])

_CLAIMED = pushes.c.id, pushes.c.status, pushes.c.started_at, pushes.c.takeovers

# A page of pushes has no more transfers than these, or a single push.
_PAGE_TRANSFERS = 20_000

# Made once: twice a second for each push that runs.
_MOVE_TRANSFER = (
    update(push_transfers)
    .where(
        push_transfers.c.push_id == bindparam("of_push"),
        push_transfers.c.registry == bindparam("in_registry"),
        push_transfers.c.repository == bindparam("in_repository"),
        push_transfers.c.digest == bindparam("of_digest"),
    )
    .values({name: bindparam(name) for name in ("size_bytes", "sent_bytes", "state")})
)


class SqlPushStore:
    """The PushStore of a metadata database. A lease lasts for LONGEST_LEASE at the most."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        push: Push,
        most_live: int,
        *,
        holder: str | None = None,
        until: datetime | None = None,
    ) -> None:
        live = select(func.count()).where(pushes.c.project_id == push.project_id, _IS_LIVE)
        statement = insert(pushes).values(
            id=push.id,
            project_id=push.project_id,
            build_id=push.build_id,
            target=push.target,
            source=str(push.source),
            destinations=json.dumps(
                [[*_place_values(one.place), one.tag.value] for one in push.destinations]
            ),
            platforms=json.dumps(push.platforms),
            with_referrers=push.with_referrers,
            status=push.status.value,
            created_at=push.created_at,
            created_by=push.created_by,
            started_at=push.started_at,
            finished_at=push.finished_at,
            error=push.error,
            digest=str(push.digest) if push.digest else None,
            waits_for=_places_text(push.waits_for),
            canceled_at=push.created_at if push.is_canceled else None,
            holder=holder,
            leased_until=until,
            takeovers=0,
        )

        def work(connection: Connection) -> None:
            if connection.execute(live).scalar_one() >= most_live:
                raise TooManyPushes(most_live)
            connection.execute(statement)
            _put_transfers(connection, push.id, push.transfers)

        await self._database.write(work)

    async def find(self, push_id: str) -> Push | None:
        return await self._database.read(lambda connection: _find(connection, push_id))

    async def list_page(
        self, project_id: str, after: tuple[datetime, str] | None, limit: int
    ) -> PushPage:
        query = select(pushes).where(pushes.c.project_id == project_id)
        if after is not None:
            # Compared as a row, which the index of a project's pushes answers at any depth.
            place = tuple_(literal(after[0], Timestamp), literal(after[1]))
            query = query.where(tuple_(pushes.c.created_at, pushes.c.id) < place)
        # One more than asked for tells whether there are more.
        query = query.order_by(pushes.c.created_at.desc(), pushes.c.id.desc()).limit(limit + 1)

        def work(connection: Connection) -> PushPage:
            rows = connection.execute(query).all()
            kept = _with_few_transfers(connection, rows[:limit])
            transfers = _transfers(connection, [row.id for row in kept])
            listed = tuple(_push(row, transfers.get(row.id, ())) for row in kept)
            if len(kept) == len(rows):
                return PushPage(listed, None)
            return PushPage(listed, (listed[-1].created_at, listed[-1].id))

        return await self._database.read(work)

    async def cancel(self, push_id: str, now: datetime) -> Push | None:
        def work(connection: Connection) -> Push | None:
            cancel_pushes(connection, pushes.c.id == push_id, now)
            return _find(connection, push_id)

        return await self._database.write(work)

    async def claim(
        self, holder: str, now: datetime, until: datetime, most_of_project: int
    ) -> Claim | None:
        queries = _left_by_servers(now), _next_queued(holder, now, most_of_project)

        def find(connection: Connection) -> Row[Any] | None:
            # What somebody waits for already comes before what has not begun.
            for query in queries:
                row = connection.execute(query).first()
                if row is not None:
                    return row
            return None

        def work(connection: Connection) -> Claim | None:
            row = find(connection)
            if row is None:
                return None
            takeovers = row.takeovers + (row.status == _RUNNING)
            connection.execute(
                update(pushes)
                .where(pushes.c.id == row.id)
                .values(
                    status=_RUNNING,
                    started_at=row.started_at or now,
                    holder=holder,
                    leased_until=_bounded(until, now),
                    takeovers=takeovers,
                )
            )
            push = _find(connection, row.id)
            assert push is not None
            return Claim(push, takeovers)

        # Most of the time there is none: then the disk need not be woken.
        if await self._database.read(find) is None:
            return None
        return await self._database.write(work)

    async def report(
        self,
        push_id: str,
        holder: str,
        now: datetime,
        until: datetime,
        *,
        transfers: Sequence[Transfer] = (),
        digest: Digest | None = None,
        waits_for: Collection[Place] | None = None,
    ) -> bool | None:
        values: dict[str, object] = {"leased_until": _bounded(until, now)}
        if digest is not None:
            values["digest"] = str(digest)
        if waits_for is not None:
            values["waits_for"] = _places_text(waits_for)
        if any(one.state in _ARRIVED for one in transfers):
            values["takeovers"] = 0

        def work(connection: Connection) -> bool | None:
            changed = _change_held(connection, push_id, holder, values)
            if changed is not None:
                _put_transfers(connection, push_id, transfers)
            return None if changed is None else changed.canceled_at is not None

        return await self._database.write(work)

    async def end(
        self, push_id: str, holder: str, status: PushStatus, error: str | None, now: datetime
    ) -> bool:
        assert status.has_ended
        values = {"status": status.value, "error": error, **_ended(now)}

        def work(connection: Connection) -> bool:
            if _change_held(connection, push_id, holder, values) is None:
                return False
            _forget_sealed(connection, [push_id])
            return True

        return await self._database.write(work)

    async def keep_sealed(self, push_id: str, sealed: Mapping[Place, bytes]) -> bool:
        # Locked where rows can be: a push that ends meanwhile waits for this, or this for it, so
        # that nothing is left behind.
        live = select(pushes.c.id).where(pushes.c.id == push_id, _IS_LIVE)
        live = live.with_for_update(read=True)

        def work(connection: Connection) -> bool:
            if connection.execute(live).first() is None:
                return False
            rows: list[dict[str, object]] = [
                {"push_id": push_id, **_place_columns(place), "sealed": content}
                for place, content in sealed.items()
            ]
            upsert_all(connection, push_authorizations, rows)
            return True

        return await self._database.write(work)

    async def sealed(self, push_id: str) -> dict[Place, bytes]:
        query = select(push_authorizations).where(push_authorizations.c.push_id == push_id)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {_place(row.registry, row.repository): row.sealed for row in rows}

    async def forget_ended(self, before: datetime, limit: int) -> int:
        over = select(pushes.c.id).where(pushes.c.finished_at < before).limit(limit)

        def work(connection: Connection) -> int:
            # Their transfers go with them: ON DELETE CASCADE.
            ids = connection.execute(over).scalars().all()
            return connection.execute(delete(pushes).where(pushes.c.id.in_(ids))).rowcount

        if not await self._database.read(lambda connection: connection.execute(over).first()):
            return 0
        return await self._database.write(work)


def cancel_pushes(connection: Connection, condition: ColumnElement[bool], now: datetime) -> int:
    """Ask the live pushes that `condition` selects to stop, and end those that are queued.

    Returns how many were asked, each for the first time.
    """
    queued = (
        update(pushes)
        .where(condition, pushes.c.status == _QUEUED)
        .values(status=PushStatus.CANCELED.value, canceled_at=now, **_ended(now))
        .returning(pushes.c.id)
    )
    ended = connection.execute(queued).scalars().all()
    _forget_sealed(connection, ended)
    running = (
        update(pushes)
        .where(condition, pushes.c.status == _RUNNING, pushes.c.canceled_at.is_(None))
        .values(canceled_at=now)
    )
    return len(ended) + connection.execute(running).rowcount


def uncanceled_pushes(project_id: str) -> Select[Any]:
    """The project's live pushes that nobody has asked to stop."""
    return select(pushes.c.id).where(
        pushes.c.project_id == project_id, _IS_LIVE, pushes.c.canceled_at.is_(None)
    )


def _left_by_servers(now: datetime) -> Select[Any]:
    """The oldest push that runs and that no server works on."""
    return (
        select(*_CLAIMED)
        .where(pushes.c.status == _RUNNING, _is_free(now))
        .order_by(pushes.c.created_at, pushes.c.id)
        .limit(1)
    )


def _next_queued(holder: str, now: datetime, most_of_project: int) -> Select[Any]:
    full = (
        select(pushes.c.project_id)
        .where(pushes.c.status == _RUNNING)
        .group_by(pushes.c.project_id)
        .having(func.count() >= most_of_project)
    )
    return (
        select(*_CLAIMED)
        .where(
            pushes.c.status == _QUEUED,
            pushes.c.project_id.not_in(full),
            or_(pushes.c.holder == holder, _is_free(now)),
        )
        .order_by(pushes.c.created_at, pushes.c.id)
        .limit(1)
    )


def _is_free(now: datetime) -> ColumnElement[bool]:
    leased_until = pushes.c.leased_until
    # The last of these was leased before the clock was set back.
    return or_(leased_until.is_(None), leased_until <= now, leased_until > now + LONGEST_LEASE)


def _bounded(until: datetime, now: datetime) -> datetime:
    return min(until, now + LONGEST_LEASE)


def _ended(now: datetime) -> dict[str, object]:
    return {"finished_at": now, "waits_for": "[]", "holder": None, "leased_until": None}


def _change_held(
    connection: Connection, push_id: str, holder: str, values: dict[str, Any]
) -> Row[Any] | None:
    """Change the push's row if it is the holder's, and return it in part; otherwise None."""
    held = and_(pushes.c.id == push_id, pushes.c.holder == holder, pushes.c.status == _RUNNING)
    changed = update(pushes).where(held).values(values).returning(pushes.c.canceled_at)
    return connection.execute(changed).first()


def _forget_sealed(connection: Connection, push_ids: Sequence[str]) -> None:
    if push_ids:
        connection.execute(
            delete(push_authorizations).where(push_authorizations.c.push_id.in_(push_ids))
        )


# --- transfers ------------------------------------------------------------------------------


def _put_transfers(connection: Connection, push_id: str, reported: Iterable[Transfer]) -> None:
    """Write these transfers, the new ones behind those that there are."""
    transfers = {(one.place, one.digest): one for one in reported}
    if not transfers:
        return
    moved = [
        {
            "of_push": push_id,
            "in_registry": one.place.registry,
            "in_repository": one.place.repository.value,
            "of_digest": str(one.digest),
            **_movement(one),
        }
        for one in transfers.values()
    ]
    # All but the first time every one of them has its row.
    if connection.execute(_MOVE_TRANSFER, moved).rowcount == len(moved):
        return
    of_push = push_transfers.c.push_id == push_id
    keys = select(push_transfers.c.registry, push_transfers.c.repository, push_transfers.c.digest)
    known = {tuple(row) for row in connection.execute(keys.where(of_push))}
    last = connection.scalar(select(func.max(push_transfers.c.position)).where(of_push))
    rows = [
        {
            "push_id": push_id,
            **_place_columns(one.place),
            "digest": str(one.digest),
            **_movement(one),
        }
        for one in transfers.values()
        if (*_place_values(one.place), str(one.digest)) not in known
    ]
    start = 0 if last is None else last + 1
    if rows:
        connection.execute(
            insert(push_transfers),
            [{**row, "position": position} for position, row in enumerate(rows, start)],
        )


def _movement(transfer: Transfer) -> dict[str, object]:
    return {
        "size_bytes": transfer.size_bytes,
        "sent_bytes": transfer.sent_bytes,
        "state": transfer.state.value,
    }


def _transfers(
    connection: Connection, push_ids: Collection[str]
) -> dict[str, tuple[Transfer, ...]]:
    query = (
        select(push_transfers)
        .where(push_transfers.c.push_id.in_(push_ids))
        .order_by(push_transfers.c.push_id, push_transfers.c.position)
    )
    found: dict[str, list[Transfer]] = {}
    for row in connection.execute(query):
        found.setdefault(row.push_id, []).append(
            Transfer(
                _place(row.registry, row.repository),
                Digest.parse(row.digest),
                row.size_bytes,
                row.sent_bytes,
                TransferState(row.state),
            )
        )
    return {push_id: tuple(transfers) for push_id, transfers in found.items()}


def _with_few_transfers(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """The first of these pushes, as many as have few transfers together; one at least."""
    counts = {
        row.push_id: row.transfers
        for row in connection.execute(
            select(push_transfers.c.push_id, func.count().label("transfers"))
            .where(push_transfers.c.push_id.in_([row.id for row in rows]))
            .group_by(push_transfers.c.push_id)
        )
    }
    room = _PAGE_TRANSFERS
    for number, row in enumerate(rows):
        room -= counts.get(row.id, 0)
        if room < 0 and number:
            return rows[:number]
    return rows


# --- a push as its row has it ---------------------------------------------------------------


def _find(connection: Connection, push_id: str) -> Push | None:
    row = connection.execute(select(pushes).where(pushes.c.id == push_id)).first()
    if row is None:
        return None
    return _push(row, _transfers(connection, [push_id]).get(push_id, ()))


def _push(row: Row[Any], transfers: tuple[Transfer, ...]) -> Push:
    return Push(
        id=row.id,
        project_id=row.project_id,
        build_id=row.build_id,
        target=row.target,
        source=Digest.parse(row.source),
        destinations=tuple(
            Destination(_place(registry, repository), Tag(tag))
            for registry, repository, tag in json.loads(row.destinations)
        ),
        created_at=row.created_at,
        created_by=row.created_by,
        platforms=tuple(json.loads(row.platforms)),
        with_referrers=row.with_referrers,
        status=PushStatus(row.status),
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=row.error,
        digest=Digest.parse(row.digest) if row.digest else None,
        transfers=transfers,
        waits_for=tuple(_place(*place) for place in json.loads(row.waits_for)),
        is_canceled=row.canceled_at is not None,
    )


# Never as REGISTRY/REPOSITORY: read again, a registry without a dot would be Docker Hub's.
def _place_values(place: Place) -> tuple[str, str]:
    return place.registry, place.repository.value


def _place_columns(place: Place) -> dict[str, str]:
    return {"registry": place.registry, "repository": place.repository.value}


def _place(registry: str, repository: str) -> Place:
    return Place(registry, RepositoryName(repository))


def _places_text(places: Iterable[Place]) -> str:
    return json.dumps([_place_values(place) for place in sorted(places)])
