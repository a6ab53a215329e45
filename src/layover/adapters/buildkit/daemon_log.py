"""The embedded daemon's output, passed on as log lines of the server."""

import asyncio
import json
from collections import deque

import structlog

_KEPT_LINES = 3
_MAX_LINE = 2_000
_FAILURES = ("error", "fatal", "panic")
# What it says before it can log, or as its very last: a line that is no log entry.
_PLAIN = "plain"

_log = structlog.get_logger("buildkitd")


class DaemonLog:
    """Reads the daemon's output to its end, and remembers its last words."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def last_words(self) -> str:
        """The last of what it said went wrong, for when it ends on its own; may be empty."""
        return " / ".join(self._last)

    async def read(self) -> None:
        while True:
            try:
                line = await self._stream.readline()
            except ValueError:
                # Longer than the reader's limit, which dropped it.
                continue
            if not line:
                return
            self._pass_on(line.decode(errors="replace").strip()[:_MAX_LINE])

    def _pass_on(self, line: str) -> None:
        level, message, facts = _parse(line)
        if not message:
            return
        if level in _FAILURES or level == _PLAIN:
            self._last.append(message + (f": {facts['error']}" if "error" in facts else ""))
        # A step lower than the daemon's own: it tells of every failed build as an error, and of
        # how it is set up as a warning. That it ended is reported by who runs it.
        if level in _FAILURES:
            _log.warning("buildkitd_logged", text=message, **facts)
        elif level == "warning":
            _log.info("buildkitd_logged", text=message, **facts)
        else:
            _log.debug("buildkitd_logged", text=message, **facts)


def _parse(line: str) -> tuple[str, str, dict[str, str]]:
    """Level, message and error of a JSON line; any other line is a message of its own."""
    try:
        entry = json.loads(line)
    except ValueError:
        return _PLAIN, line, {}
    if not isinstance(entry, dict):
        return _PLAIN, line, {}
    facts = {"error": str(entry["error"])} if entry.get("error") else {}
    return str(entry.get("level", "info")), str(entry.get("msg", "")), facts
