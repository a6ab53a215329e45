"""Page tokens: where the next page of a listing begins, as text that says nothing secret."""

import base64
from datetime import UTC, datetime, timedelta

from layover.identity.management import InvalidChange, InvalidPlace, Place

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000

_LONGEST_TOKEN = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def page_size(asked: int) -> int:
    """How many to list: 0 asks for 100, above 1,000 gives 1,000. Raises InvalidChange."""
    if asked < 0:
        raise InvalidChange(f"page_size is negative: pass 1 to {MAX_PAGE_SIZE}, or 0 for 100")
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_key(at: datetime, key: str) -> str:
    """The token of the page behind what is of this time and has this key, without a colon."""
    microseconds = (at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{microseconds}:{key}".encode()).decode().rstrip("=")


def decode_key(token: str) -> tuple[datetime, str]:
    """What `encode_key` made a token of. Raises ValueError for anything else."""
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True).decode()
        microseconds, key = text.split(":")
        return _EPOCH + timedelta(microseconds=int(microseconds)), key
    except OverflowError as error:
        raise ValueError(token) from error


def encode_place(place: Place) -> str:
    return encode_key(place.created_at, place.id)


def decode_place(token: str) -> Place:
    """Raises InvalidPlace unless `token` is one that `encode_place` made."""
    if len(token) > _LONGEST_TOKEN:
        raise InvalidPlace
    try:
        return Place(*decode_key(token))
    except ValueError:
        raise InvalidPlace from None
