"""A server whose bucket fails for a while: nothing is lost, and it recovers by itself."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from layover.adapters.blobs.objects import Bucket
from tests.e2e.processes import run, wait_until
from tests.e2e.registry import Registry, digest_of, image
from tests.e2e.server import LAYOVER, LayoverServer
from tests.faulty_s3 import Fault, FaultyS3, sound
from tests.objects import ACCESS_KEY, REGION, SECRET_KEY, S3Server

MIB = 1 << 20
# All but a bucket that says nothing for 15 seconds; that one comes once.
FAULTS: list[Fault] = ["500", "503", "cut answer", "cut request", "no answer", "refused"]
SETTINGS = {
    "BUILDERS": '[{"name": "none", "address": "tcp://127.0.0.1:1"}]',
    "REAPER_INTERVAL": "1s",
    "BLOB_STORE_REGION": REGION,
    "BLOB_STORE_ACCESS_KEY": ACCESS_KEY,
    "BLOB_STORE_SECRET_KEY": SECRET_KEY,
}


@pytest.fixture
def faulty(s3: S3Server) -> Iterator[FaultyS3]:
    proxy = FaultyS3(s3)
    yield proxy
    proxy.close()


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    return s3.bucket()


@pytest.fixture
def server(
    own_folder: Path, bucket: Bucket, faulty: FaultyS3, postgres_url: str
) -> Iterator[LayoverServer]:
    """A server on PostgreSQL and on a bucket that it reaches through the faulty network."""
    settings = {
        **SETTINGS,
        "DATABASE_URL": postgres_url,
        "BLOB_STORE_URL": bucket.url,
        "BLOB_STORE_ENDPOINT": faulty.url,
    }
    server = LayoverServer(own_folder / "server", settings=settings)
    server.start()
    yield server
    faulty.fail(sound)
    server.stop()
    print(server.process.log()[-20_000:])
    server.remove()


def layers_of(number: int) -> tuple[bytes, bytes]:
    """A small layer, and one that takes a multipart upload."""
    source = random.Random(number)
    return source.randbytes(100_000), source.randbytes(7 * MIB)


def push(registry: Registry, number: int) -> bool:
    """Push an image a chunk at a time; False where a request of it failed."""
    for content in (b"{}", *layers_of(number)):
        session = registry("POST", "blobs/uploads/")
        if session.status != 202:
            return False
        path = session.headers["Location"]
        half = len(content) // 2
        for chunk in (content[:half], content[half:]):
            if registry("PATCH", path, chunk).status != 202:
                return False
        if registry("PUT", f"{path}?digest={digest_of(content)}").status != 201:
            return False
    return registry.push_manifest(f"image-{number}", image(*layers_of(number))).status == 201


def is_whole(registry: Registry, number: int) -> bool:
    return all(
        registry("GET", f"blobs/{digest_of(content)}").body == content
        for content in layers_of(number)
    )


def test_pushes_and_pulls_go_on_while_a_third_of_all_requests_fails(
    server: LayoverServer, faulty: FaultyS3, s3: S3Server, bucket: Bucket
) -> None:
    registry = Registry(server, f"{server.project_id}/app", server.basic_auth)
    chance = random.Random(1)

    def plan(number: int, _method: str, _path: str) -> Fault | None:
        if number == 10:
            return "hang"
        return chance.choice(FAULTS) if chance.random() < 1 / 3 else None

    faulty.fail(plan)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda number: push(registry, number), range(6))) == [True] * 6
        assert list(pool.map(lambda number: is_whole(registry, number), range(6))) == [True] * 6
    assert {*FAULTS, "hang"} <= set(faulty.faults)
    faulty.fail(sound)
    wait_until(lambda: not leftovers(server), timeout=20, what="the collector")
    assert s3.unfinished(bucket) == []
    server.assert_whole()


def test_a_bucket_that_is_away_for_a_while_is_waited_for(
    server: LayoverServer, faulty: FaultyS3
) -> None:
    registry = Registry(server, f"{server.project_id}/app", server.basic_auth)
    assert push(registry, 0)
    faulty.fail(lambda *_: "503")
    with ThreadPoolExecutor(2) as pool:
        pushed = pool.submit(push, registry, 1)
        pulled = pool.submit(is_whole, registry, 0)
        wait_until(lambda: len(faulty.faults) > 5, timeout=30, what="requests that fail")
        time.sleep(3)
        assert not pushed.done()
        faulty.fail(sound)
        assert (pushed.result(), pulled.result()) == (True, True)
    assert is_whole(registry, 1)
    server.assert_whole()


def leftovers(server: LayoverServer) -> bool:
    """Whether bytes wait for the collector."""
    command = (LAYOVER, "admin", "gc", "--dry-run", "--data-dir", server.data_folder, "-o", "json")
    return bool(json.loads(run(command, env=server.env).stdout))
