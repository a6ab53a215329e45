"""What a collected build held, and what became of it, on a transaction's connection."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, func, insert, select, update

from layover.adapters.sql.registry_rows import TO_BLOB, TO_MANIFEST, parts
from layover.adapters.sql.retention_rows import DELETED, EXPIRED
from layover.adapters.sql.schema import (
    blobs,
    doomed_objects,
    manifest_references,
    manifests,
    receipts,
    repositories,
    repository_blobs,
    retained_manifests,
    retentions,
)
from layover.retention.models import Receipt, ReceiptItem

# Of an item of a receipt: what becomes of it is not known yet.
_WAITS = ""


def reason_of(ended: Any) -> str:
    return DELETED if ended.end_reason == DELETED else EXPIRED


def open_receipts(connection: Connection, ended: dict[int, Any]) -> None:
    """Write down what builds held, before the first of it goes.

    What a failed build held was written down when it failed; the rest is said at its time's end.
    """
    of_builds = {row.build_id: row for row in ended.values() if row.build_id is not None}
    known = select(receipts.c.build_id, receipts.c.ended_at).where(
        receipts.c.build_id.in_(of_builds)
    )
    for before in connection.execute(known).all():
        row = of_builds.pop(before.build_id)
        if before.ended_at != row.ended_at:
            own = receipts.c.build_id == row.build_id
            text = connection.execute(select(receipts.c.held).where(own)).scalar_one()
            held = json.dumps({**json.loads(text), "reason": reason_of(row)})
            connection.execute(update(receipts).where(own).values(ended_at=row.ended_at, held=held))
    if not of_builds:
        return
    ids = {row.id: row.build_id for row in of_builds.values()}
    items: dict[str, list[list[Any]]] = {build_id: [] for build_id in of_builds}
    of_manifests = (
        select(
            retained_manifests.c.retention_id,
            manifests.c.repository_id,
            manifests.c.digest,
            func.length(manifests.c.body).label("size_bytes"),
        )
        .join(
            manifests,
            and_(
                manifests.c.repository_id == retained_manifests.c.repository_id,
                manifests.c.digest == retained_manifests.c.digest,
            ),
        )
        .where(retained_manifests.c.retention_id.in_(ids))
        .order_by(manifests.c.digest)
    )
    for row in connection.execute(of_manifests):
        entry = [TO_MANIFEST, row.repository_id, row.digest, row.size_bytes]
        items[ids[row.retention_id]].append(entry)
    of_blobs = (
        select(retained_manifests.c.retention_id, blobs.c.digest, blobs.c.size_bytes)
        .join(
            manifest_references,
            and_(
                manifest_references.c.repository_id == retained_manifests.c.repository_id,
                manifest_references.c.manifest_digest == retained_manifests.c.digest,
                manifest_references.c.kind == TO_BLOB,
            ),
        )
        .join(blobs, blobs.c.digest == manifest_references.c.digest)
        .where(retained_manifests.c.retention_id.in_(ids))
        .distinct()
        .order_by(blobs.c.digest)
    )
    for retention_id, digest, size_bytes in connection.execute(of_blobs):
        items[ids[retention_id]].append([TO_BLOB, None, digest, size_bytes])
    connection.execute(
        insert(receipts),
        [
            {
                "build_id": build_id,
                "project_id": row.project_id,
                "ended_at": row.ended_at,
                "held": json.dumps({"reason": reason_of(row), "items": items[build_id]}),
            }
            for build_id, row in of_builds.items()
        ],
    )


def decided(connection: Connection, rows: Sequence[Any]) -> list[Receipt]:
    """The receipts of those collected builds of which nothing waits for the end of a lease."""
    opened = [(row, json.loads(row.held)) for row in rows]
    left = _Left(connection)
    for row, held in opened:
        left.ask(row.project_id, held["items"])
    decided: list[Receipt] = []
    for row, held in opened:
        items = [
            ReceiptItem(digest, kind, size_bytes, left.keeper(row.project_id, where, digest))
            for kind, where, digest, size_bytes in held["items"]
        ]
        if all(item.kept_by != _WAITS for item in items):
            receipt = Receipt(
                row.build_id, row.project_id, held["reason"], row.ended_at, tuple(items)
            )
            decided.append(receipt)
    return decided


class _Left:
    """What is left of what builds held, asked for many at once: most of it is gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # By project or repository, and digest.
        self._there: set[tuple[str | int, str]] = set()
        self._doomed: set[str] = set()
        self._keepers: dict[tuple[str | int, str], str] = {}

    def ask(self, project_id: str, items: list[list[Any]]) -> None:
        """Find out which of a build's items are still there."""
        by_place: dict[tuple[str, str | int], set[str]] = {}
        for kind, repository_id, digest, _ in items:
            by_place.setdefault((kind, repository_id or project_id), set()).add(digest)
        for (kind, place), digests in by_place.items():
            for part in parts(digests):
                if kind == TO_MANIFEST:
                    there = select(manifests.c.digest).where(
                        manifests.c.repository_id == place, manifests.c.digest.in_(part)
                    )
                else:
                    there = (
                        select(repository_blobs.c.digest)
                        .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
                        .where(
                            repository_blobs.c.digest.in_(part), repositories.c.project_id == place
                        )
                    )
                    # Gone from the project, its bytes may still wait to be removed.
                    doomed = select(doomed_objects.c.digest).where(
                        doomed_objects.c.digest.in_(part)
                    )
                    self._doomed |= set(self._connection.execute(doomed).scalars())
                found = self._connection.execute(there).scalars()
                self._there |= {(place, digest) for digest in found}

    def keeper(self, project_id: str, repository_id: int | None, digest: str) -> str | None:
        """What keeps the manifest or blob: a build's ID where it is one; None when it is gone."""
        place = repository_id or project_id
        if (place, digest) not in self._there:
            return _WAITS if repository_id is None and digest in self._doomed else None
        key = (place, digest)
        if key not in self._keepers:
            if repository_id is None:
                users = _users_of_blob(project_id, digest)
            else:
                users = _users_of_manifest(repository_id, digest)
            self._keepers[key] = _keeper(self._connection, users)
        return self._keepers[key]


_KEEPER = (
    select(retentions.c.build_id, repositories.c.name, retained_manifests.c.digest)
    .where(retentions.c.ended_at.is_(None))
    .limit(1)
)


def _users_of_manifest(repository_id: int, digest: str) -> Select[Any]:
    """What retains the manifest."""
    retained = retained_manifests.join(
        retentions, retentions.c.id == retained_manifests.c.retention_id
    ).join(repositories, repositories.c.id == retained_manifests.c.repository_id)
    return _KEEPER.select_from(retained).where(
        retained_manifests.c.repository_id == repository_id,
        retained_manifests.c.digest == digest,
    )


def _users_of_blob(project_id: str, digest: str) -> Select[Any]:
    """What retains the project's manifests that name the blob."""
    # Without the sum SQLite begins with what the repository retains, and reads all of it.
    naming = manifest_references.join(
        repositories, repositories.c.id == manifest_references.c.repository_id
    )
    retained = naming.join(
        retained_manifests,
        and_(
            retained_manifests.c.repository_id == manifest_references.c.repository_id + 0,
            retained_manifests.c.digest == manifest_references.c.manifest_digest,
        ),
    ).join(retentions, retentions.c.id == retained_manifests.c.retention_id)
    return _KEEPER.select_from(retained).where(
        manifest_references.c.digest == digest,
        manifest_references.c.kind == TO_BLOB,
        repositories.c.project_id == project_id,
    )


def _keeper(connection: Connection, users: Select[Any]) -> str:
    """A build that is among `users`, or else any of them; where nothing is it waits to be
    collected."""
    # Without an order: a base image's layer is retained by as many as there are.
    for narrowed in (users.where(retentions.c.build_id.is_not(None)), users):
        keeper = connection.execute(narrowed).first()
        if keeper is not None:
            return keeper.build_id or f"{keeper.name}@{keeper.digest}"
    return _WAITS
