"""Receipts: what became of a collected build, signed, for whoever has to show it."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from layover.builds.errors import BuildGone, BuildUnknown
from layover.builds.life import BuildService
from layover.identity.access import Action, may_in_build
from layover.identity.models import Principal, ProjectUnknown
from layover.retention.models import (
    BuildNotOver,
    Receipt,
    ReceiptItem,
    ReceiptPending,
    SignedReceipt,
)
from layover.retention.ports import RetentionStore

KEY_BYTES = 32

_PAGE = 100


class ReceiptService:
    """Signs receipts when all of a build is collected, and shows them to who may see builds."""

    def __init__(
        self,
        store: RetentionStore,
        key: bytes,
        now: Callable[[], datetime],
        longest_collection: timedelta,
    ) -> None:
        """`key` is the seed that all replicas share; `longest_collection` is how long after a
        build's end the last of it may be collected: a lease's length and an interval."""
        self._store, self._now = store, now
        self._key = Ed25519PrivateKey.from_private_bytes(key)
        self._longest_collection = longest_collection

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    async def sign_decided(self, after: str) -> str | None:
        """Sign the receipts of builds of which nothing waits any more, a page of them, from behind
        the build ID `after`; return the ID that the next page is behind, None after the last."""
        receipts, more = await self._store.decided_receipts(after, _PAGE)
        now = self._now()
        documents = [(receipt.build_id, _document(receipt, now)) for receipt in receipts]
        if documents:
            await self._store.sign_receipts(
                [(build_id, text, self._key.sign(text)) for build_id, text in documents], now
            )
        return more

    async def find(
        self, builds: BuildService, principal: Principal, build_id: str
    ) -> SignedReceipt:
        """The build's receipt. Raises BuildUnknown, ActionDenied, BuildNotOver, ReceiptPending."""
        stored = await self._store.find_receipt(build_id)
        # One of a failed build is begun at its failure.
        if stored is None or stored.document is None or stored.signature is None:
            try:
                await builds.find(principal, build_id, Action.SEE_BUILDS)
            except BuildGone as error:
                expected_by = error.gone.at + self._longest_collection
                raise ReceiptPending(build_id, expected_by) from None
            raise BuildNotOver(build_id)
        try:
            await builds.project(principal, Action.SEE_BUILDS, stored.project_id)
        except ProjectUnknown:
            raise BuildUnknown(build_id) from None
        if not may_in_build(principal, build_id):
            raise BuildUnknown(build_id)
        return SignedReceipt(stored.document, stored.signature, self.public_key)


def _document(receipt: Receipt, now: datetime) -> bytes:
    freed = [item for item in receipt.items if item.kept_by is None]
    kept = [item for item in receipt.items if item.kept_by is not None]
    document = {
        "build": receipt.build_id,
        "project": receipt.project_id,
        "reason": receipt.reason,
        "ended_at": _time(receipt.ended_at),
        "collected_at": _time(now),
        "freed": [_item(item) for item in freed],
        "freed_bytes": sum(item.size_bytes for item in freed),
        "kept": [{**_item(item), "by": item.kept_by} for item in kept],
        "kept_bytes": sum(item.size_bytes for item in kept),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _item(item: ReceiptItem) -> dict[str, object]:
    return {"digest": item.digest, "kind": item.kind, "size_bytes": item.size_bytes}


def _time(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
