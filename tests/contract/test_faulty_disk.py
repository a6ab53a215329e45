"""The disk under the registry fails, or is slow: pushes are made again or wait, nothing is lost.

The faults are put under the system's own calls, for the files of the blob store alone.
"""

import asyncio
import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from layover.errors import StorageError
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from tests.contract.registry_api import USER, Answer, RegistryApi
from tests.contract.test_collection import World
from tests.contract.test_verification import verifier
from tests.stores import REPOSITORY, Stores, image, opened

pytestmark = pytest.mark.anyio

# What reading, writing and making durable come down to.
CALLS = ("pread", "pwrite", "fsync")
IMAGES = 6


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """SQLite and files."""
    with opened(tmp_path) as stores:
        yield stores


@contextmanager
def under_each_call(
    monkeypatch: pytest.MonkeyPatch, folder: Path, fault: Callable[[], None]
) -> Iterator[None]:
    """Call `fault`, in the caller's thread, before each call for a file of the blob store."""

    def faulty(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(file: int, *arguments: Any) -> Any:
            if Path(f"/proc/self/fd/{file}").readlink().is_relative_to(folder / "blobs"):
                fault()
            return call(file, *arguments)

        return run

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, faulty(getattr(os, name)))
        yield


def layers_of(number: int) -> list[bytes]:
    return [b"everybody's", b"layer %d" % number * 1000]


async def push_blob(api: RegistryApi, content: bytes) -> Answer:
    path = f"/v2/{REPOSITORY}/blobs/uploads/?digest={Digest.of(content)}"
    return await api.call(USER, "POST", path, content)


async def push_manifest(api: RegistryApi, number: int) -> Answer:
    path, body = f"/v2/{REPOSITORY}/manifests/t{number}", image(*layers_of(number))
    return await api.call(USER, "PUT", path, body, {"content-type": OCI_MANIFEST})


async def check_whole(api: RegistryApi, number: int) -> None:
    manifest = await api.call(USER, "GET", f"/v2/{REPOSITORY}/manifests/t{number}")
    assert manifest.body == image(*layers_of(number))
    for content in (b"{}", *layers_of(number)):
        path = f"/v2/{REPOSITORY}/blobs/{Digest.of(content)}"
        assert (await api.call(USER, "GET", path)).body == content


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_what_a_failing_disk_breaks_off_is_done_again_and_nothing_is_lost(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    api, world, chance = RegistryApi(stores), World(stores), random.Random(1)
    await api.token(USER)
    refusal = {errno.EIO: 503, errno.ENOSPC: 507}[number]
    failed = {"push": 0, "pull": 0}

    def fault() -> None:
        if chance.random() < 1 / 10:
            raise OSError(number, os.strerror(number))

    async def push(of: int) -> None:
        for content in (b"{}", *layers_of(of)):
            while (answer := await push_blob(api, content)).status != 201:
                assert answer.status == refusal
                failed["push"] += 1
        assert (await push_manifest(api, of)).status == 201

    async def pull(of: int) -> None:
        for content in layers_of(of):
            try:
                path = f"/v2/{REPOSITORY}/blobs/{Digest.of(content)}"
                answer = await api.call(USER, "GET", path)
            except StorageError:
                # The answer had begun, and breaks off.
                failed["pull"] += 1
            else:
                assert answer.body == content

    with under_each_call(monkeypatch, stores.folder, fault):
        async with asyncio.TaskGroup() as tasks:
            for of in range(IMAGES):
                tasks.create_task(push(of))
        async with asyncio.TaskGroup() as tasks:
            for of in range(IMAGES):
                tasks.create_task(pull(of))
    assert failed["push"] and failed["pull"]
    for of in range(IMAGES):
        await check_whole(api, of)
    await world.collect()
    assert (await verifier(stores).run()).findings == ()
    # What was broken off has given its space back.
    kept = {b"{}", *(content for of in range(IMAGES) for content in layers_of(of))}
    files = [path for path in (stores.folder / "blobs").rglob("*") if path.is_file()]
    assert sorted(path.read_bytes() for path in files) == sorted(kept)


async def test_on_a_slow_disk_pushes_wait_and_neither_they_nor_others_suffer(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, world = RegistryApi(stores), World(stores)
    for content in (b"{}", *layers_of(0)):
        await push_blob(api, content)
    await push_manifest(api, 0)
    waits, goes_on = threading.Semaphore(0), threading.Event()

    def fault() -> None:
        waits.release()
        goes_on.wait()

    with under_each_call(monkeypatch, stores.folder, fault):
        contents = [content for of in range(1, IMAGES) for content in layers_of(of)]
        pushes = [asyncio.create_task(push_blob(api, content)) for content in contents]
        try:
            for _ in pushes:
                await asyncio.to_thread(waits.acquire)
            # What needs no file is answered meanwhile.
            for reference in ("t0", str(Digest.of(image(*layers_of(0))))):
                path = f"/v2/{REPOSITORY}/manifests/{reference}"
                assert (await api.call(USER, "GET", path)).status == 200
            assert (await api.call(USER, "GET", f"/v2/{REPOSITORY}/tags/list")).status == 200
            # A session does not end while it waits, and nobody takes away what it has.
            api.pass_by(timedelta(days=2))
            world.clock.pass_by(timedelta(days=2))
            assert await api.uploads.clean_up() == 0
            assert not any(push.done() for push in pushes)
        finally:
            goes_on.set()
        assert [(await push).status for push in pushes] == [201] * len(contents)
    for of in range(1, IMAGES):
        assert (await push_manifest(api, of)).status == 201
    await world.collect()
    for of in range(IMAGES):
        await check_whole(api, of)
    assert (await verifier(stores, api.now).run()).findings == ()
