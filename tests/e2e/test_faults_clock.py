"""The clock jumps an hour either way, under pushes: what is there stays, and nothing gets stuck."""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sized
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, update

from layover.adapters.sql import schema
from tests.e2e.processes import MissingEngineError, wait_until
from tests.e2e.registry import Registry, code, digest_of, image
from tests.e2e.replicas import NO_BUILDER
from tests.e2e.server import LayoverServer

HOUR = 3600


class Clock:
    """What a server takes for the time, by libfaketime."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        libraries = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        if not libraries:
            raise MissingEngineError("no libfaketime; run scripts/install-engines libfaketime")
        self.env = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Read for each question, so that it jumps while the server runs.
            "FAKETIME_NO_CACHE": "1",
            # Nobody sets a machine's own clock, which counts from its start.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset_seconds: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_seconds:+d}\n")
        new.rename(self._file)


@pytest.fixture
def clock(own_folder: Path) -> Clock:
    return Clock(own_folder)


@pytest.fixture
def server(own_folder: Path, clock: Clock) -> Iterator[LayoverServer]:
    """One that collects each second, with leases of an hour: longer than the jump is too easy."""
    server = LayoverServer(
        own_folder / "server",
        settings={"BUILDERS": NO_BUILDER, "REAPER_INTERVAL": "1s", "GC_GRACE": "50m"},
    )
    server.env.update(clock.env)
    try:
        server.start()
        assert server.project_id
        yield server
        assert "job_failed" not in server.process.log()
    finally:
        server.stop()
        print(server.process.log()[-20_000:])
        server.remove()


def check_whole(registry: Registry, body: bytes, layers: list[bytes]) -> None:
    assert registry("GET", f"manifests/{digest_of(body)}").body == body
    for layer in layers:
        assert registry("GET", f"blobs/{digest_of(layer)}").body == layer


def check_nothing_lost(server: LayoverServer) -> None:
    _, verified = server.verify()
    # A clock that was set forward delays collection by the grace time, and that is told.
    assert {finding["kind"] for finding in verified["findings"]} <= {"collection-late"}


def let_it_collect() -> None:
    time.sleep(3)


def test_an_hour_forward_and_back_loses_nothing(server: LayoverServer, clock: Clock) -> None:
    registry = Registry(server, f"{server.project_id}/clock", server.basic_auth)
    database = create_engine(f"sqlite:///{server.data_folder / 'layover.db'}")
    with database.begin() as connection:
        connection.execute(update(schema.projects).values(retention_seconds=HOUR // 2))
    database.dispose()
    short = registry.push_image("short", b"a layer for half an hour")
    told = registry.push_blob(b"what its client was told is there")

    clock.set(HOUR)
    # By the clock its time is over, and so it does not show.
    assert code(registry("GET", "manifests/short")) == "MANIFEST_UNKNOWN"
    let_it_collect()
    clock.set(0)
    # A clock that was wrong for a while has taken nothing away.
    check_whole(registry, short, [b"a layer for half an hour"])
    assert registry("HEAD", f"blobs/{told}").status == 200
    let_it_collect()
    check_whole(registry, short, [b"a layer for half an hour"])

    clock.set(-HOUR)
    let_it_collect()
    check_whole(registry, short, [b"a layer for half an hour"])
    # What is pushed now is there for its time from now on.
    early = registry.push_image("early", b"pushed an hour ago")
    check_whole(registry, early, [b"pushed an hour ago"])
    clock.set(0)
    assert registry("GET", "manifests/early").status == 404
    check_nothing_lost(server)


def _all_go_on(pushed: Mapping[str, Sized], before: Mapping[str, int]) -> bool:
    return all(len(images) > before[name] for name, images in pushed.items())


def test_pushes_go_on_while_the_clock_jumps(server: LayoverServer, clock: Clock) -> None:
    pushed: dict[str, list[tuple[bytes, list[bytes]]]] = {}
    again = 0
    over = threading.Event()

    def push_on(name: str) -> None:
        nonlocal again
        registry = Registry(server, f"{server.project_id}/{name}", server.basic_auth)
        shared = [b"shared %d" % number for number in range(3)]
        while not over.is_set():
            layers = [*shared, os.urandom(1000)]
            body = image(*layers)
            for attempt in range(3):
                for content in (b"{}", *layers):
                    # As clients do: what is there is not sent again.
                    if registry("HEAD", f"blobs/{digest_of(content)}").status != 200:
                        registry.push_blob(content)
                answer = registry.push_manifest(f"t{len(pushed[name])}", body)
                if answer.status == 201:
                    pushed[name].append((body, layers))
                    break
                # What it was told a moment before the jump was told an hour ago.
                assert code(answer) == "MANIFEST_BLOB_UNKNOWN"
                again += 1
                assert attempt < 2, answer.body

    for name in ("one", "two"):
        pushed[name] = []
    threads = [threading.Thread(target=push_on, args=(name,)) for name in pushed]
    session_registry = Registry(server, f"{server.project_id}/session", server.basic_auth)
    session = session_registry.start()
    content = b"".join(b"%d" % number for number in range(5))
    for thread in threads:
        thread.start()
    try:
        for number, offset in enumerate([0, HOUR, 0, -HOUR, 0]):
            clock.set(offset)
            # An upload that is under way goes on.
            chunk = session_registry(
                "PATCH", session, b"%d" % number, {"Content-Range": f"{number}-{number}"}
            )
            assert chunk.status == 202, chunk
            before = {name: len(images) for name, images in pushed.items()}
            let_it_collect()
            # However slow the machine is.
            wait_until(
                partial(_all_go_on, pushed, before), timeout=120, what="another push of each"
            )
    finally:
        over.set()
        for thread in threads:
            thread.join()
    finished = session_registry("PUT", f"{session}?digest={digest_of(content)}")
    assert finished.status == 201
    assert session_registry("GET", f"blobs/{digest_of(content)}").body == content
    # Not more often than the clock jumps, for each of the two.
    assert again <= 2 * 4
    for name, images in pushed.items():
        registry = Registry(server, f"{server.project_id}/{name}", server.basic_auth)
        for body, layers in images:
            check_whole(registry, body, layers)
    check_nothing_lost(server)
