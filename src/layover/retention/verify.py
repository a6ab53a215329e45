"""Verification: everything that is stored is read again, and compared with what is said of it.

It goes on beside pushes and collections. The database is read in transactions, and in none of
them do its rows contradict each other; what a blob's bytes say is held against its row once
more before it counts. So what was merely under way is no finding.

A repair quarantines and never guesses. Bytes that are not what their name says are set aside and
their blob is no longer shown, so that the next push brings them again; rows that contradict each
other with nothing lost are mended; everything else is told and left alone. Each repair is one
transaction that asks again whether it is called for, and nothing depends on the next one.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from layover.errors import StorageError
from layover.oci.digest import Digest, InvalidDigest, new_hash
from layover.registry.ports import BlobStore
from layover.retention.findings import (
    BlobRow,
    Finding,
    FindingKind,
    Progress,
    UploadRow,
    Use,
    Verification,
)

_PAGE = 500
# More than one, since each waits for its disk or its network; few, since each hashes.
_BLOBS_AT_ONCE = 4
_READ_ATTEMPTS = 3
_READ_PAUSE_SECONDS = 0.5

# A collector that works has taken away what was due before that.
_LATE = timedelta(minutes=10)

_SET_ASIDE = "set the bytes aside and hide the blob, so that the next push brings it again"
_NOTHING = "nothing: "


class VerificationStore(Protocol):
    """What a verification asks of a database. Every method is one transaction, or pages of it."""

    async def check_file(self) -> list[Finding]:
        """What is wrong with the database's own file, and with its rows' foreign keys."""
        ...

    async def counts(self, now: datetime) -> dict[str, int]:
        """How much there is, by what it is."""
        ...

    async def check_rows(self, now: Callable[[], datetime], *, repair: bool) -> list[Finding]:
        """What rows contradict each other, mended where nothing is lost by it."""
        ...

    async def check_manifests(self, now: datetime, *, repair: bool) -> list[Finding]:
        """Read every manifest's bytes, and hold against them its digest and what is said of it."""
        ...

    async def blobs(self, after: str, limit: int) -> list[BlobRow]:
        """The next blobs by digest, behind `after`."""
        ...

    async def blob_bytes(self) -> int:
        """How many bytes all blobs have."""
        ...

    async def is_still(self, blob: BlobRow) -> bool:
        """Whether the blob's row says what it said."""
        ...

    async def uses(self, digest: str, now: datetime, *, visible: bool) -> list[Use]:
        """The repositories that link the blob; `visible`: where a visible manifest needs it."""
        ...

    async def quarantine(self, blob: BlobRow, now: datetime) -> bool:
        """Hide the blob, if its row still says the same."""
        ...

    async def resize(self, blob: BlobRow, size_bytes: int) -> bool:
        """Correct the blob's size, if its row still says the same."""
        ...

    async def forget_unlinked(self, limit: int) -> list[BlobRow]:
        """Delete the rows of blobs that no repository links; return them."""
        ...

    async def unlinked(self, limit: int) -> list[BlobRow]:
        """Blobs that no repository links."""
        ...

    async def name_keys(self, name: Callable[[Sequence[str]], None]) -> None:
        """Call `name` with every key that a row names, some at a time; maybe more than once."""
        ...

    async def uploads(self, after: str, limit: int, now: datetime) -> list[UploadRow]:
        """The next live upload sessions by ID, behind `after`."""
        ...

    async def is_upload_still(self, upload: UploadRow) -> bool:
        """Whether the session is there and has the same parts."""
        ...

    async def late(self, before: datetime) -> list[tuple[str, int, datetime]]:
        """What was due before then and is not collected: what, how many, since when at most."""
        ...


class Quarantine(Protocol):
    """Where bytes go that nobody is to see any more, and that are not to be deleted."""

    async def set_aside(self, key: str) -> str | None:
        """Move the key's bytes away; return where they are, None when there are none.

        Raises StorageFull, StorageUnavailable. Done again it goes on.
        """
        ...


class Verifier:
    """Reads everything again."""

    def __init__(
        self,
        store: VerificationStore,
        blobs: BlobStore,
        quarantine: Quarantine,
        now: Callable[[], datetime],
        grace: timedelta,
    ) -> None:
        """`grace` is how long after it was written an object that nothing names is left alone."""
        self._store, self._blobs, self._quarantine = store, blobs, quarantine
        self._now, self._grace = now, grace

    async def run(
        self,
        *,
        repair: bool = False,
        is_served: bool = False,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> Verification:
        """Verify everything, and with `repair` put right what can be.

        `is_served` says that a server is at work, so that what waits for its collector for
        long is a finding. Raises StorageError when the database or the blob store fails.
        """
        findings: list[Finding] = []
        report(Progress("Reading the database"))
        findings += await self._store.check_file()
        if any(finding.kind is FindingKind.DATABASE_DAMAGED for finding in findings):
            # Whatever else it would tell is not to be relied on.
            return Verification({}, tuple(findings))
        report(Progress("Reading manifests"))
        findings += await self._store.check_manifests(self._now(), repair=repair)
        report(Progress("Comparing rows"))
        findings += await self._store.check_rows(self._now, repair=repair)
        findings += await self._check_blobs(repair, report)
        report(Progress("Reading uploads"))
        findings += await self._check_uploads()
        report(Progress("Looking for what nothing names"))
        findings += await self._check_unlinked(repair)
        findings += [finding async for finding in self._orphans(repair)]
        if is_served:
            findings += await self._late()
        counts = await self._store.counts(self._now())
        return Verification(counts, tuple(findings))

    # --- blobs --------------------------------------------------------------------------------

    async def _check_blobs(self, repair: bool, report: Callable[[Progress], None]) -> list[Finding]:
        findings: list[Finding] = []
        done_bytes, total_bytes = 0, await self._store.blob_bytes()
        room = asyncio.Semaphore(_BLOBS_AT_ONCE)

        def tell(size_bytes: int) -> None:
            nonlocal done_bytes
            done_bytes += size_bytes
            report(Progress("Reading blobs", done_bytes, max(done_bytes, total_bytes)))

        async def check(blob: BlobRow) -> None:
            async with room:
                finding = await self._check_blob(blob, repair, tell)
                if finding is not None:
                    findings.append(finding)

        tell(0)
        after = ""
        while page := await self._store.blobs(after, _PAGE):
            async with asyncio.TaskGroup() as tasks:
                for blob in page:
                    tasks.create_task(check(blob))
            after = page[-1].digest
        return sorted(findings, key=lambda finding: finding.reference)

    async def _check_blob(
        self, blob: BlobRow, repair: bool, tell: Callable[[int], None]
    ) -> Finding | None:
        if blob.is_quarantined:
            tell(blob.size_bytes)
            return await self._check_quarantined(blob, repair)
        verdict = await self._verdict(blob, tell)
        if verdict is not None:
            # Once more: a flaw of the moment is none of the blob's, and one that was collected
            # meanwhile has no row any more.
            verdict = await self._verdict(blob, lambda _: None)
        if verdict is None or not await self._store.is_still(blob):
            return None
        kind, problem, size_bytes = verdict
        uses = await self._store.uses(blob.digest, self._now(), visible=False)
        if kind is FindingKind.BLOB_UNREADABLE:
            return _of_blob(kind, blob, uses, problem, _NOTHING + "see why the store fails")
        if size_bytes is not None:
            is_repaired = repair and await self._store.resize(blob, size_bytes)
            return _of_blob(kind, blob, uses, problem, "correct the row", is_repaired)
        finding = _of_blob(kind, blob, uses, problem, _SET_ASIDE)
        if repair and await self._store.quarantine(blob, self._now()):
            # Row first: a crash in between leaves bytes that the next repair sets aside.
            where = await self._quarantine.set_aside(blob.key)
            place = f" to {where}" if where else ""
            finding = replace(
                finding,
                # Not well again: somebody has to push it.
                repair=f"hid the blob{' and moved its bytes' + place if place else ''}:"
                " push it again",
            )
        return finding

    async def _check_quarantined(self, blob: BlobRow, repair: bool) -> Finding | None:
        if repair and await self._store.is_still(blob):
            # What a repair that was cut off left; a push since then has brought another key.
            await self._quarantine.set_aside(blob.key)
        uses = await self._store.uses(blob.digest, self._now(), visible=True)
        if not uses or not await self._store.is_still(blob):
            # Nobody needs it: it goes as everything goes.
            return None
        return _of_blob(
            FindingKind.BLOB_QUARANTINED,
            blob,
            uses,
            "its bytes were damaged or missing, and nobody has pushed it since",
            _NOTHING + "push it again",
        )

    async def _verdict(
        self, blob: BlobRow, tell: Callable[[int], None]
    ) -> tuple[FindingKind, str, int | None] | None:
        """What is wrong with a blob's bytes, and their size where only the row's is wrong."""
        for attempt in range(_READ_ATTEMPTS):
            told = 0

            def counted(size_bytes: int) -> None:
                nonlocal told
                told += size_bytes
                tell(size_bytes)

            try:
                return await self._read(blob, counted)
            except StorageError as error:
                tell(-told)
                if attempt == _READ_ATTEMPTS - 1:
                    return FindingKind.BLOB_UNREADABLE, f"its bytes cannot be read: {error}", None
                await asyncio.sleep(_READ_PAUSE_SECONDS)
        raise AssertionError

    async def _read(
        self, blob: BlobRow, tell: Callable[[int], None]
    ) -> tuple[FindingKind, str, int | None] | None:
        try:
            digest = Digest.parse(blob.digest)
        except InvalidDigest as error:
            return FindingKind.BLOB_DAMAGED, str(error), None
        size_bytes = await self._blobs.size(blob.key)
        if size_bytes is None:
            tell(blob.size_bytes)
            return FindingKind.BLOB_MISSING, f"no bytes at {blob.key}", None
        hash_ = new_hash(digest.algorithm)
        async with aclosing(self._blobs.read(blob.key, 0, size_bytes)) as blocks:
            async for block in blocks:
                # In a thread, so that several are hashed at once.
                await asyncio.to_thread(hash_.update, block)
                tell(len(block))
        actual = Digest(digest.algorithm, hash_.hexdigest())
        if actual != digest:
            length = "" if size_bytes == blob.size_bytes else f" and {size_bytes} bytes"
            return FindingKind.BLOB_DAMAGED, f"its bytes have digest {actual}{length}", None
        if size_bytes != blob.size_bytes:
            problem = f"it has {size_bytes} bytes, and its row says {blob.size_bytes}"
            return FindingKind.BLOB_SIZE, problem, size_bytes
        return None

    async def _check_unlinked(self, repair: bool) -> list[Finding]:
        if not repair:
            rows = await self._store.unlinked(_PAGE)
            return [_unlinked(blob, is_repaired=False) for blob in rows]
        findings: list[Finding] = []
        while rows := await self._store.forget_unlinked(_PAGE):
            for blob in rows:
                # Killed before this, its bytes are an orphan that the next repair finds.
                await self._quarantine.set_aside(blob.key)
                findings.append(_unlinked(blob, is_repaired=True))
        return findings

    # --- uploads and orphans ------------------------------------------------------------------

    async def _check_uploads(self) -> list[Finding]:
        findings: list[Finding] = []
        after = ""
        while page := await self._store.uploads(after, _PAGE, self._now()):
            for upload in page:
                for key, size_bytes in upload.parts:
                    found = await self._blobs.size(key)
                    if (found or 0) >= size_bytes or not await self._store.is_upload_still(upload):
                        continue
                    findings.append(
                        Finding(
                            FindingKind.UPLOAD_INCOMPLETE,
                            upload.id,
                            f"{found or 0} of the {size_bytes} acknowledged bytes are at {key}",
                            _NOTHING + "its client is told, and begins anew",
                            upload.project_id,
                            upload.repository,
                        )
                    )
            after = page[-1].id
        return findings

    async def _orphans(self, repair: bool) -> AsyncIterator[Finding]:
        """Objects that nothing named while they were there, and that are not new."""
        with _listed() as listed:
            await listed.fill(self._blobs)
            # A row is there before its object is, and as long. Asked twice: an object may have
            # been listed before its row was deleted, and be deleted itself by now.
            await self._store.name_keys(listed.remove)
            if not listed:
                return
            written_before = self._now() - self._grace
            for key, _ in listed.older_than(written_before):
                if await self._blobs.size(key) is None:
                    listed.remove([key])
            await self._store.name_keys(listed.remove)
            for key, size_bytes in listed.older_than(written_before):
                where = await self._quarantine.set_aside(key) if repair else None
                yield Finding(
                    FindingKind.OBJECT_ORPHANED,
                    key,
                    f"nothing names these {size_bytes} bytes",
                    f"moved them to {where}" if where else "move them to the quarantine",
                    is_repaired=where is not None,
                )

    async def _late(self) -> list[Finding]:
        now = self._now()
        return [
            Finding(
                FindingKind.COLLECTION_LATE,
                what,
                f"{count} have waited for the collector, since {since:%Y-%m-%dT%H:%M:%SZ} at most",
                _NOTHING + "the server's log says what keeps it",
            )
            for what, count, since in await self._store.late(now - self._grace - _LATE)
        ]


class _Listed:
    """What the blob store holds, in a table on the disk: it may be more than memory takes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE objects (key TEXT PRIMARY KEY, size, modified_at)")

    async def fill(self, blobs: BlobStore) -> None:
        async with aclosing(blobs.list_blobs()) as found:
            async for object_ in found:
                self._connection.execute(
                    "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)",
                    (object_.key, object_.size_bytes, object_.modified_at.timestamp()),
                )

    def remove(self, keys: Collection[str]) -> None:
        self._connection.executemany("DELETE FROM objects WHERE key = ?", [(key,) for key in keys])

    def __bool__(self) -> bool:
        return self._connection.execute("SELECT 1 FROM objects LIMIT 1").fetchone() is not None

    def older_than(self, time: datetime) -> list[tuple[str, int]]:
        return self._connection.execute(
            "SELECT key, size FROM objects WHERE modified_at < ? ORDER BY key",
            (time.timestamp(),),
        ).fetchall()


@contextmanager
def _listed() -> Iterator[_Listed]:
    # Named by nothing: SQLite makes a file of it once it outgrows its cache, and removes it.
    connection = sqlite3.connect("", check_same_thread=False)
    try:
        yield _Listed(connection)
    finally:
        connection.close()


def _of_blob(
    kind: FindingKind,
    blob: BlobRow,
    uses: Sequence[Use],
    problem: str,
    repair: str,
    is_repaired: bool = False,
) -> Finding:
    return Finding(
        kind,
        blob.digest,
        problem,
        repair,
        " ".join(sorted({use.project_id for use in uses})),
        " ".join(sorted({use.repository for use in uses})),
        tuple(sorted({build for use in uses for build in use.builds})),
        is_repaired,
    )


def _unlinked(blob: BlobRow, *, is_repaired: bool) -> Finding:
    return Finding(
        FindingKind.BLOB_UNLINKED,
        blob.digest,
        f"no repository shows its {blob.size_bytes} bytes, and nothing would ever remove them",
        "moved its bytes to the quarantine" if is_repaired else "move its bytes to the quarantine",
        is_repaired=is_repaired,
    )
