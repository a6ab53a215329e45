"""What retention needs of a database."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from layover.retention.models import Doomed, Receipt, Removal, StoredReceipt


class RetentionStore(Protocol):
    """What is over, and what nothing needs any more. Every method is one small transaction, and
    every one can be done again after a crash."""

    async def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        """Let `holder` alone do what `name` is until `until`. False while another one does."""
        ...

    async def release_lease(self, name: str, holder: str) -> None:
        """Give the lease back, if `holder` has it."""
        ...

    async def end_due(self, now: datetime, limit: int) -> int:
        """End the retentions whose time has come, the oldest first; return how many."""
        ...

    async def release_ended(self, now: datetime, limit: int) -> int:
        """Let go what ended retentions retain, and their tags; return how much that was.

        What their builds held is written down for the receipts first.
        """
        ...

    async def collect_manifests(self, now: datetime, limit: int) -> int:
        """Look at manifests that may be unneeded, and delete those that are; return how many
        were looked at."""
        ...

    async def collect_links(self, now: datetime, limit: int) -> int:
        """Look at blobs that repositories may not need, and unlink those that they do not. The
        bytes of a blob without a link are doomed. Returns how many links were looked at."""
        ...

    async def doomed(self, after: str, limit: int) -> list[Doomed]:
        """Bytes to remove, by their keys, from behind the key `after`."""
        ...

    async def forget_doomed(self, keys: Collection[str]) -> None:
        """The bytes are removed."""
        ...

    async def decided_receipts(self, after: str, limit: int) -> tuple[list[Receipt], str | None]:
        """Of the next `limit` unsigned receipts, by build behind `after`, those whose build is
        collected whole; and where to go on, None at the end."""
        ...

    async def sign_receipts(
        self, signed: Sequence[tuple[str, bytes, bytes]], now: datetime
    ) -> None:
        """Keep documents and their signatures, as (build ID, document, signature)."""
        ...

    async def find_receipt(self, build_id: str) -> StoredReceipt | None: ...

    async def forget_gone(self, before: datetime, receipts_before: datetime, limit: int) -> int:
        """Forget what went before `before`, and receipts signed before `receipts_before`."""
        ...

    async def plan(self, now: datetime) -> list[Removal]:
        """What a collection at `now` would take away; nothing is changed."""
        ...
