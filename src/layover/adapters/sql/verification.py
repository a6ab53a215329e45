"""The VerificationStore in SQL. What is wrong is told by verification_rows.py and
verification_manifests.py; what mends it asks the same again, in the transaction that writes.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    select,
    update,
)

from layover.adapters.sql.database import Database
from layover.adapters.sql.registry_rows import TO_BLOB
from layover.adapters.sql.retention_rows import is_live, is_visible
from layover.adapters.sql.schema import (
    blobs,
    builds,
    doomed_objects,
    manifest_references,
    manifests,
    projects,
    repositories,
    repository_blobs,
    retentions,
    tags,
    uploads,
)
from layover.adapters.sql.verification_manifests import check_page, mend_manifest
from layover.adapters.sql.verification_rows import (
    CHECKS,
    NOTHING,
    OF_WHOLE_IMAGES,
    Check,
    builds_with_blob,
    take_time,
    told,
)
from layover.retention.findings import BlobRow, Finding, FindingKind, UploadRow, Use

# Rows that are read before the next ones are asked for.
_ROWS = 1_000
# Longer than clocks of servers differ, and than a request takes from its time to its transaction.
_SECOND_LOOK_SECONDS = 0.5
# What is mended in one transaction: a push waits for one of these at most.
_MENDED_AT_ONCE = 100
# Of one kind; whoever has more has lost the database.
_MOST_FINDINGS = 10_000


class SqlVerificationStore:
    """The VerificationStore of a metadata database."""

    def __init__(self, database: Database, *, may_miss_blobs: bool = False) -> None:
        """`may_miss_blobs`: images are taken without blobs that their repository does not know."""
        self._database, self._may_miss_blobs = database, may_miss_blobs

    # --- rows ---------------------------------------------------------------------------------

    async def check_file(self) -> list[Finding]:
        return await self._database.read(_check_file)

    async def counts(self, now: datetime) -> dict[str, int]:
        def count(table: Any, *conditions: ColumnElement[bool]) -> Any:
            return select(func.count()).select_from(table).where(*conditions).scalar_subquery()

        numbers = {
            "projects": count(projects),
            "repositories": count(repositories),
            "builds": count(builds),
            "tags": count(tags),
            "manifests": count(manifests),
            "blobs": count(blobs),
            "bytes": select(func.coalesce(func.sum(blobs.c.size_bytes), 0)).scalar_subquery(),
            "quarantined": count(blobs, blobs.c.quarantined_at.is_not(None)),
            "uploads": count(uploads, uploads.c.expires_at > now),
            "expiredUploads": count(uploads, uploads.c.expires_at <= now),
            "doomedObjects": count(doomed_objects),
            "endedRetentions": count(retentions, ~is_live(now)),
        }
        query = select(*(number.label(name) for name, number in numbers.items()))

        def work(connection: Connection) -> dict[str, int]:
            take_time(connection)
            row = connection.execute(query).one()
            return {name: int(row[position]) for position, name in enumerate(numbers)}

        return await self._database.read(work)

    async def check_rows(self, now: Callable[[], datetime], *, repair: bool) -> list[Finding]:
        findings: list[Finding] = []
        for check in CHECKS:
            if not (self._may_miss_blobs and check.query in OF_WHOLE_IMAGES):
                findings += await self._check(check, now, repair)
        return findings

    async def _check(
        self, check: Check, now: Callable[[], datetime], repair: bool
    ) -> list[Finding]:
        findings: list[Finding] = []
        known: set[tuple[Any, ...]] = set()
        while True:
            found = [one for one in await self._found(check, now) if tuple(one[0]) not in known]
            known |= {tuple(row) for row, _ in found}
            if not repair or check.mend is None:
                return findings + [finding for _, finding in found]
            if not found:
                return findings
            # What is mended may show what is behind it: an index below an index.
            for some in _batches(found, _MENDED_AT_ONCE):
                findings += await self._mend(check, some, now())

    async def _found(
        self, check: Check, now: Callable[[], datetime]
    ) -> list[tuple[Row[Any], Finding]]:
        """The rows that are wrong, looked at twice: what a server wrote just now, it wrote at a
        time that our look was before, and what was over for it lived for us."""
        seen: set[tuple[Any, ...]] | None = None
        for _ in range(2):
            found = await self._database.read(partial(_look, check=check, now=now()))
            found = [one for one in found if seen is None or tuple(one[0]) in seen]
            if not found:
                break
            if seen is None:
                await asyncio.sleep(_SECOND_LOOK_SECONDS)
            seen = {tuple(row) for row, _ in found}
        return found

    async def _mend(
        self, check: Check, found: Sequence[tuple[Row[Any], Finding]], now: datetime
    ) -> list[Finding]:
        mend = check.mend
        assert mend is not None

        def work(connection: Connection) -> list[Finding]:
            mended = []
            for row, finding in found:
                asked = check.query(now).subquery()
                still = select(asked).where(
                    *(asked.c[name] == value for name, value in row._asdict().items())
                )
                if connection.execute(still).first() is not None:
                    mend(connection, row, now)
                    mended.append(replace(finding, is_repaired=True))
            return mended

        return await self._database.write(work)

    # --- manifests ----------------------------------------------------------------------------

    async def check_manifests(self, now: datetime, *, repair: bool) -> list[Finding]:
        findings: list[Finding] = []
        after: tuple[int, str] | None = (-1, "")
        while after is not None:
            page = await self._database.read(partial(check_page, after=after, now=now))
            for problem in page.problems:
                is_repaired = False
                if repair and problem.manifest is not None:
                    mend = partial(mend_manifest, problem=problem, now=now)
                    is_repaired = await self._database.write(mend)
                findings.append(replace(problem.finding, is_repaired=is_repaired))
            after = page.last
        return findings

    # --- blobs --------------------------------------------------------------------------------

    async def blobs(self, after: str, limit: int) -> list[BlobRow]:
        query = select(blobs).where(blobs.c.digest > after).order_by(blobs.c.digest).limit(limit)
        return await self._database.read(
            lambda connection: [_blob(row) for row in connection.execute(query)]
        )

    async def blob_bytes(self) -> int:
        query = select(func.coalesce(func.sum(blobs.c.size_bytes), 0))
        return await self._database.read(lambda connection: int(connection.scalar(query) or 0))

    async def is_still(self, blob: BlobRow) -> bool:
        query = select(blobs.c.digest).where(_is_blob(blob))
        return await self._database.read(
            lambda connection: connection.execute(query).first() is not None
        )

    async def uses(self, digest: str, now: datetime, *, visible: bool) -> list[Use]:
        def work(connection: Connection) -> list[Use]:
            links = (
                select(repositories.c.id, repositories.c.project_id, repositories.c.name)
                .join(repository_blobs, repository_blobs.c.repository_id == repositories.c.id)
                .where(repository_blobs.c.digest == digest)
            )
            if visible:
                links = links.where(
                    exists().where(
                        manifest_references.c.repository_id == repositories.c.id,
                        manifest_references.c.digest == digest,
                        manifest_references.c.kind == TO_BLOB,
                        is_visible(
                            manifest_references.c.repository_id,
                            manifest_references.c.manifest_digest,
                            now,
                        ),
                    )
                )
            return [
                Use(row.project_id, row.name, builds_with_blob(connection, row.id, digest, now))
                for row in connection.execute(links.order_by(repositories.c.name)).all()
            ]

        return await self._database.read(work)

    async def quarantine(self, blob: BlobRow, now: datetime) -> bool:
        statement = update(blobs).where(_is_blob(blob)).values(quarantined_at=now)
        return await self._database.write(
            lambda connection: connection.execute(statement).rowcount == 1
        )

    async def resize(self, blob: BlobRow, size_bytes: int) -> bool:
        statement = update(blobs).where(_is_blob(blob)).values(size_bytes=size_bytes)
        return await self._database.write(
            lambda connection: connection.execute(statement).rowcount == 1
        )

    async def unlinked(self, limit: int) -> list[BlobRow]:
        def work(connection: Connection) -> list[BlobRow]:
            take_time(connection)
            return [_blob(row) for row in connection.execute(_unlinked(limit))]

        return await self._database.read(work)

    async def forget_unlinked(self, limit: int) -> list[BlobRow]:
        def work(connection: Connection) -> list[BlobRow]:
            rows = [_blob(row) for row in connection.execute(_unlinked(limit))]
            for some in _batches(rows, _ROWS):
                connection.execute(
                    delete(blobs).where(blobs.c.digest.in_([blob.digest for blob in some]))
                )
            return rows

        if not await self.unlinked(1):
            return []
        return await self._database.write(work)

    # --- what names objects ---------------------------------------------------------------------

    async def name_keys(self, name: Callable[[Sequence[str]], None]) -> None:
        def work(connection: Connection) -> None:
            take_time(connection)
            for column in (blobs.c.key, doomed_objects.c.key):
                rows = connection.execution_options(yield_per=_ROWS).execute(select(column))
                for some in rows.scalars().partitions():
                    name(some)
            for text in connection.execution_options(yield_per=1).execute(select(uploads.c.parts)):
                name([key for key, _ in json.loads(text.parts)])

        await self._database.read(work)

    async def uploads(self, after: str, limit: int, now: datetime) -> list[UploadRow]:
        query = (
            select(uploads.c.id, uploads.c.parts, repositories.c.project_id, repositories.c.name)
            .join(repositories, repositories.c.id == uploads.c.repository_id)
            .where(uploads.c.id > after, uploads.c.expires_at > now)
            .order_by(uploads.c.id)
            .limit(limit)
        )
        return await self._database.read(
            lambda connection: [
                UploadRow(row.id, row.project_id, row.name, _parts(row.parts))
                for row in connection.execute(query)
            ]
        )

    async def is_upload_still(self, upload: UploadRow) -> bool:
        query = select(uploads.c.parts).where(uploads.c.id == upload.id)
        text = await self._database.read(lambda connection: connection.scalar(query))
        return text is not None and _parts(text) == upload.parts

    async def late(self, before: datetime) -> list[tuple[str, int, datetime]]:
        columns = {
            "ended retentions": retentions.c.ended_at,
            "expired retentions": retentions.c.expires_at,
            "expired uploads": uploads.c.expires_at,
            "manifests to check": manifests.c.check_at,
            "blobs to check": repository_blobs.c.check_at,
            "removed objects": doomed_objects.c.doomed_at,
        }

        def work(connection: Connection) -> list[tuple[str, int, datetime]]:
            found = []
            for what, column in columns.items():
                query = select(func.count(), func.min(column)).where(column <= before)
                if what == "expired retentions":
                    query = query.where(retentions.c.ended_at.is_(None))
                count, since = connection.execute(query).one()
                if count:
                    found.append((what, count, since))
            return found

        return await self._database.read(work)


def _look(connection: Connection, check: Check, now: datetime) -> list[tuple[Row[Any], Finding]]:
    take_time(connection)
    rows = connection.execute(check.query(now).limit(_MOST_FINDINGS)).all()
    return [(row, told(connection, check, row, now)) for row in rows]


def _check_file(connection: Connection) -> list[Finding]:
    # PostgreSQL checks its rows' keys whatever happens, and its files with tools of its own.
    if connection.dialect.name != "sqlite":
        return []
    findings = [
        Finding(FindingKind.DATABASE_DAMAGED, "layover.db", text, NOTHING + "restore a backup")
        for (text,) in connection.exec_driver_sql("PRAGMA integrity_check")
        if text != "ok"
    ]
    if findings:
        return findings
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        if (table, parent) == (repository_blobs.name, blobs.name):
            continue  # Found as a blob that is lost, with what needs it.
        problem = f"row {row} of {table} names a row of {parent} that is not there"
        findings.append(
            Finding(FindingKind.ROW_DANGLING, str(table), problem, NOTHING + "restore a backup")
        )
    return findings


def _unlinked(limit: int) -> Select[Any]:
    return (
        select(blobs)
        .where(
            ~exists().where(repository_blobs.c.digest == blobs.c.digest),
            # One that is needed lost its link, which is another finding.
            ~exists().where(
                manifest_references.c.digest == blobs.c.digest,
                manifest_references.c.kind == TO_BLOB,
            ),
        )
        .order_by(blobs.c.digest)
        .limit(limit)
    )


def _is_blob(blob: BlobRow) -> ColumnElement[bool]:
    is_quarantined = blobs.c.quarantined_at.is_not(None)
    return and_(
        blobs.c.digest == blob.digest,
        blobs.c.key == blob.key,
        blobs.c.size_bytes == blob.size_bytes,
        is_quarantined if blob.is_quarantined else ~is_quarantined,
    )


def _blob(row: Row[Any]) -> BlobRow:
    return BlobRow(row.digest, row.size_bytes, row.key, row.quarantined_at is not None)


def _parts(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((key, size) for key, size in json.loads(text) if size is not None)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
