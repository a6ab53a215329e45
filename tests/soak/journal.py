"""What a run did and what it took: a line of JSON a request and an event, and their statistics."""

import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from layover.client.errors import ClientError

# Which event a request belongs to; each actor's task has its own.
_event: ContextVar[int] = ContextVar("event", default=0)

_SHOWN_ERRORS = 20


class Violation(Exception):
    """The server broke a promise."""


class Lost(Exception):
    """The server went away under a request: nobody knows what became of it."""


class Journal:
    """The log of a run. `grep` a digest or an event's number in it to see what led to an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", buffering=1 << 16)
        self.events: Counter[str] = Counter()
        self.statuses: Counter[tuple[str, str]] = Counter()
        self.errors: list[str] = []
        self.notes: Counter[str] = Counter()
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._began = time.time()

    def close(self) -> None:
        self._file.close()

    @property
    def event_count(self) -> int:
        return self.events.total()

    def request(
        self, method: str, url: str, path: str, status: int | str, began: float, ended: float
    ) -> None:
        kind = f"{method} {_kind_of(path)}"
        self.statuses[kind, str(status)] += 1
        self._seconds[kind].append(ended - began)
        port = url.rpartition(":")[2]
        self._write(
            {"event": _event.get(), "at": began, "took": round(ended - began, 4)},
            {"request": f"{method} {path}", "status": status, "port": port},
        )

    @contextmanager
    def event(self, kind: str, **facts: Any) -> Iterator[None]:
        """Count and time one event, with the requests within; a Violation in it is recorded."""
        self.events[kind] += 1
        number = self.event_count
        token = _event.set(number)
        began = time.time()
        self._write({"event": number, "at": began}, {"begins": kind, **facts})
        try:
            yield
        except (Violation, Lost, ClientError) as error:
            self.violation(f"event {number} ({kind}): {error}")
        finally:
            self._seconds[f"({kind})"].append(time.time() - began)
            _event.reset(token)

    def violation(self, text: str) -> None:
        """Record a broken promise; the run goes on and fails at its end."""
        self.errors.append(text)
        self._write({"event": _event.get(), "at": time.time()}, {"violation": text})
        if len(self.errors) <= _SHOWN_ERRORS:
            print(f"VIOLATION {text}", flush=True)

    def note(self, kind: str) -> None:
        """Count something that the report tells and that is no error."""
        self.notes[kind] += 1

    def _write(self, *parts: dict[str, Any]) -> None:
        line = {name: value for part in parts for name, value in part.items()}
        self._file.write(json.dumps(line) + "\n")

    def report(self) -> str:
        """The counts, and how long each kind of request and (event) took."""
        elapsed = time.time() - self._began
        lines = [
            f"{self.event_count} events in {elapsed:.0f} s, {sum(self.statuses.values())} requests",
            *(f"  {kind:34} {count:9}" for kind, count in sorted(self.events.items())),
            *(f"  {kind:34} {count:9}" for kind, count in sorted(self.notes.items())),
            f"{'':36} {'count':>9} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} {'max ms':>9}",
        ]
        for kind, seconds in sorted(self._seconds.items()):
            cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
            shown = [1000 * cuts[at] for at in (49, 94, 98)]
            times = " ".join(f"{value:9.1f}" for value in (*shown, 1000 * max(seconds)))
            lines.append(f"  {kind:34} {len(seconds):9} {times}")
        lines.append("answers:")
        for (kind, status), count in sorted(self.statuses.items()):
            lines.append(f"  {kind:34} {status:24} {count:9}")
        lines.append(f"errors: {len(self.errors)}")
        lines += [f"  {error}" for error in self.errors[:_SHOWN_ERRORS]]
        return "\n".join(lines)


def _kind_of(path: str) -> str:
    """The kind of a request's path, whatever the repository and the digest."""
    path, _, query = path.partition("?")
    for part in ("/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/", "/tags/list"):
        if part in path:
            if part == "/blobs/uploads/" and path.endswith(part):
                return "mount" if "mount=" in query else "uploads"
            if part == "/manifests/":
                return "manifest by digest" if "sha256:" in path else "manifest by tag"
            return {"/blobs/uploads/": "session", "/blobs/": "blob"}.get(part, part.strip("/"))
    return path.rpartition("/")[2]
