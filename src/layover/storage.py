"""Opens what a server keeps its state in, and waits at the start for what is away."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import structlog
from sqlalchemy import URL

from layover.adapters.sql.database import Database
from layover.adapters.sql.engines import InvalidDatabaseUrl
from layover.adapters.sql.migrate import DatabaseUnreachable
from layover.errors import LayoverError, StorageUnavailable
from layover.settings import Settings, SettingsError

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class StartupTimedOut(LayoverError):
    """Something that the server cannot work without was away for too long."""

    def __init__(self, part: str, attempts: int, waited: float, reason: Exception) -> None:
        super().__init__(
            f"gave up on the {part} after {waited:.0f} s and {attempts} attempts"
            f" (startup_timeout): {reason}"
        )


def open_database(settings: Settings) -> Database:
    """The metadata database of the settings, not connected yet. Raises SettingsError."""
    url = settings.database_url.get_secret_value()
    if not url:
        return Database(URL.create("sqlite", database=str(settings.data_dir / "layover.db")))
    try:
        return Database(url)
    except InvalidDatabaseUrl as error:
        raise SettingsError(f"database_url: {error}") from None


class Patience:
    """Tries again what could not be reached, up to a limit from when it was made."""

    def __init__(self, limit: timedelta, missing: dict[str, str]) -> None:
        """`missing` is kept up to date: the parts that are waited for, each with what to say."""
        self._limit_seconds = limit.total_seconds()
        self._missing = missing
        self._began_at = time.monotonic()

    async def until(self, part: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """What `attempt` returns once it does not raise DatabaseUnreachable or StorageUnavailable.

        Raises StartupTimedOut; every other error at once.
        """
        attempts, pause = 0, _FIRST_PAUSE_SECONDS
        self._missing[part] = "not reached yet"
        while True:
            attempts += 1
            try:
                result = await attempt()
            except (DatabaseUnreachable, StorageUnavailable) as error:
                waited = time.monotonic() - self._began_at
                if waited >= self._limit_seconds:
                    raise StartupTimedOut(part, attempts, waited, error) from error
                # Not the reason: whoever asks for it needs no token, and it names hosts.
                self._missing[part] = "away: see the server's log"
                _log.warning(
                    "waiting_at_start",
                    part=part,
                    reason=str(error),
                    attempts=attempts,
                    waited_seconds=round(waited),
                    limit_seconds=round(self._limit_seconds),
                )
                await asyncio.sleep(min(pause, self._limit_seconds - waited))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self._missing.pop(part, None)
                if attempts > 1:
                    _log.info("reached_at_start", part=part, attempts=attempts)
                return result
