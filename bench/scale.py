"""`python -m bench.scale`: what 100,000 builds cost, beside 100; and how fast 1,000 of them expire.

What is compared is done in turns, so that a machine that slows down slows both, and as ratios.
A data folder is filled directly, through the schema: builds of one image each, with a manifest, a
tag and ten blobs. Only the images that expire, and the one that is pulled, have their bytes on the
disk: nothing else ever asks for them. Distribution gets the same images as files, all with their
bytes, because it reads all of them to collect some; nothing is served meanwhile, as it asks for.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import Table, insert, select, update

from bench import peers
from bench.peers import Peer, ask
from bench.workloads import manifest_gets
from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import (
    blobs,
    builds,
    manifest_references,
    manifests,
    receipts,
    repositories,
    repository_blobs,
    retained_manifests,
    retentions,
    tags,
)

_LAYERS = 9
_LAYER_BYTES = 4096
_BATCH = 2_000
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_RETENTION = timedelta(days=7)

_FEW = 100
_EXPIRE = 1_000
# What distribution takes for it is looked at up to so many times as long.
_PEER_TIMES = 50
_PULL_SECONDS = 3
_SETTINGS = {"LAYOVER_REAPER_INTERVAL": "1s", "LAYOVER_GC_GRACE": "1s"}


@dataclass(frozen=True)
class Image:
    """One build's image: its blobs by digest, and its manifest."""

    build_id: str
    blobs: dict[str, bytes]
    body: bytes

    @property
    def digest(self) -> str:
        return _digest(self.body)


@dataclass(frozen=True)
class Folder:
    """A data folder whose server is stopped, and its one project."""

    path: Path
    project: str
    pulled: Image
    """The image that stays."""

    @contextmanager
    def served(self) -> Iterator[Peer]:
        with peers.layover(self.path, _SETTINGS) as peer:
            yield peer


@dataclass(frozen=True)
class Expiry:
    """How long it took until bytes were gone, and the pulls a second then, of those around it."""

    seconds: float
    pulls_meanwhile: float
    seconds_alone: float
    """With nothing asked of the server meanwhile."""


def main() -> None:
    arguments = _parse()
    rounds = arguments.rounds
    folder = Path(tempfile.mkdtemp(prefix="layover-bench-"))
    try:
        few = _fill(folder / "few", _FEW)
        many = _fill(folder / "many", arguments.builds, 2 * rounds * _EXPIRE)
        print(f"{arguments.builds:,} builds with {arguments.builds * (_LAYERS + 1):,} blobs,")
        print(f"beside {_FEW}; medians of {rounds} rounds (lowest to highest)")
        _compare_starts(few, many, rounds)
        with few.served() as of_few, many.served() as of_many:
            _compare_reads(few, of_few, many, of_many, rounds)
            ours = _compare_expiry(folder / "alone", many, of_many, rounds)
        shutil.rmtree(few.path)
        shutil.rmtree(many.path)
        limit = _PEER_TIMES * ours
        theirs = _distribution(folder / "distribution", arguments.peer_images, limit)
        print(f"distribution's garbage-collect of {_EXPIRE:,} of {arguments.peer_images:,} images")
        if theirs is None:
            print(f"  was ended after {limit:.0f} s, {_PEER_TIMES} times layover's {ours:.2f} s")
        else:
            print(f"  {theirs:.2f} s; of layover's {ours:.2f} s it is {theirs / ours:.1f}x")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--builds", type=int, default=100_000)
    parser.add_argument("--peer-images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _compare_starts(few: Folder, many: Folder, rounds: int) -> None:
    seconds: dict[str, list[float]] = {"few": [], "many": []}
    for _ in range(rounds):
        for name, folder in (("few", few), ("many", many)):
            with folder.served() as peer:
                seconds[name].append(peer.start_seconds)
    _tell("start", "s", seconds["few"], seconds["many"])


def _compare_reads(few: Folder, of_few: Peer, many: Folder, of_many: Peer, rounds: int) -> None:
    """Ask both in turn, so that a machine that slows down slows both."""
    rates: tuple[list[float], list[float]] = ([], [])
    tags: tuple[list[float], list[float]] = ([], [])
    listings: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for at, (folder, peer) in enumerate(((few, of_few), (many, of_many))):
            rates[at].append(manifest_gets(peer, folder.pulled.digest, _PULL_SECONDS))
            tags[at].append(_median_ms(peer, f"/v2/{folder.project}/tags/list?n=100"))
            listings[at].append(_median_list_ms(peer, folder.project))
    _tell("manifest GET", "a second", *rates)
    _tell("tags, first page", "ms", *tags)
    _tell("builds, first page", "ms", *listings)


def _compare_expiry(alone: Path, many: Folder, of_many: Peer, rounds: int) -> float:
    """Let builds expire in a folder that has no others, and among the many; return the median of
    the seconds that it takes among them when nothing is asked of the server."""
    of_alone: list[Expiry] = []
    of_all: list[Expiry] = []
    for number in range(rounds):
        folder = _fill(alone, 2 * _EXPIRE, 2 * _EXPIRE)
        # What never was on the disk goes from it for nothing; the others are there since long.
        os.sync()
        with folder.served() as peer:
            of_alone.append(_expiry(folder, peer, 0))
        shutil.rmtree(alone)
        of_all.append(_expiry(many, of_many, 2 * number * _EXPIRE))
    alone_seconds = [one.seconds_alone for one in of_all]
    _tell(
        f"{_EXPIRE:,} expire, bytes gone",
        "s",
        [one.seconds_alone for one in of_alone],
        alone_seconds,
    )
    _tell(
        f"{_EXPIRE:,} expire, while pulled",
        "s",
        [one.seconds for one in of_alone],
        [one.seconds for one in of_all],
    )
    _tell(
        "pulls meanwhile, of usual",
        "",
        [one.pulls_meanwhile for one in of_alone],
        [one.pulls_meanwhile for one in of_all],
    )
    return statistics.median(alone_seconds)


def _tell(what: str, unit: str, few: list[float], many: list[float]) -> None:
    ratios = [theirs / ours for ours, theirs in zip(few, many, strict=True)]
    print(
        f"  {what:26} {statistics.median(few):9,.2f} {statistics.median(many):9,.2f} {unit:8}"
        f" {statistics.median(ratios):5.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def _fill(path: Path, count: int, expiring: int = 0) -> Folder:
    """Make a data folder with `count` builds, of which the first ones have their bytes, and the
    last one, which stays."""
    with peers.layover(path, _SETTINGS) as peer:
        project = peer.repository
    data = path / "data"
    database = Database(f"sqlite:///{data / 'layover.db'}")
    now = datetime.now(UTC)
    pulled: Image | None = None
    try:
        with database.engine.begin() as connection:
            repository = connection.execute(
                insert(repositories)
                .values(name=project, project_id=project, created_at=now)
                .returning(repositories.c.id)
            ).scalar_one()
            for first in range(0, count, _BATCH):
                images = [_image(number) for number in range(first, min(count, first + _BATCH))]
                for table, rows in _rows(images, first, project, repository, now).items():
                    connection.execute(insert(table), rows)
                for number, image in enumerate(images, first):
                    if number < expiring or number == count - 1:
                        _write(data / "blobs", image)
                pulled = images[-1]
    finally:
        database.close()
    assert pulled is not None
    return Folder(path, project, pulled)


def _image(number: int) -> Image:
    contents = [f"{number}-{layer}".encode().ljust(_LAYER_BYTES) for layer in range(_LAYERS)]
    contents.append(json.dumps({"number": number}).encode())
    described = [{"digest": _digest(one), "size": len(one)} for one in contents]
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                **described[-1],
            },
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer}
                for layer in described[:-1]
            ],
        }
    ).encode()
    return Image(f"b{number:09}", {_digest(one): one for one in contents}, body)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _write(root: Path, image: Image) -> None:
    for digest, content in image.blobs.items():
        path = root / _key(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _key(digest: str) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}/{encoded[:2]}/{encoded}"


def _rows(
    images: list[Image], first: int, project: str, repository: int, now: datetime
) -> dict[Table, list[dict[str, object]]]:
    """The rows of builds `first` and on, in the order in which they may be inserted."""
    in_repository = {"repository_id": repository}
    numbered = list(enumerate(images, first + 1))
    return {
        builds: [
            {
                "id": image.build_id,
                "project_id": project,
                "status": "finished",
                "command": "build",
                "save": True,
                "retention_seconds": int(_RETENTION.total_seconds()),
                "options": "[]",
                "created_at": now,
                "seen_at": now,
                "finished_at": now,
                "step_count": 0,
                "log_size_bytes": 0,
            }
            for image in images
        ],
        retentions: [
            {
                "id": number,
                "project_id": project,
                "build_id": image.build_id,
                "created_at": now,
                "expires_at": now + _RETENTION + timedelta(seconds=number),
            }
            for number, image in numbered
        ],
        blobs: [
            {"digest": digest, "size_bytes": len(content), "key": _key(digest), "created_at": now}
            for image in images
            for digest, content in image.blobs.items()
        ],
        repository_blobs: [
            {**in_repository, "digest": digest, "linked_at": now, "leased_until": now}
            for image in images
            for digest in image.blobs
        ],
        manifests: [
            {
                **in_repository,
                "digest": image.digest,
                "media_type": _MANIFEST_TYPE,
                "annotations": "{}",
                "body": image.body,
                "pushed_at": now,
            }
            for image in images
        ],
        manifest_references: [
            {**in_repository, "manifest_digest": image.digest, "digest": digest, "kind": "blob"}
            for image in images
            for digest in image.blobs
        ],
        retained_manifests: [
            {**in_repository, "retention_id": number, "digest": image.digest}
            for number, image in numbered
        ],
        tags: [
            {
                **in_repository,
                "name": image.build_id,
                "digest": image.digest,
                "build_id": image.build_id,
                "retention_id": number,
                "updated_at": now,
            }
            for number, image in numbered
        ],
    }


def _median_ms(peer: Peer, path: str) -> float:
    headers = peer.headers()

    def once() -> float:
        began = time.perf_counter()
        ask(peer.port, "GET", path, headers)
        return (time.perf_counter() - began) * 1000

    return statistics.median(once() for _ in range(21))


def _median_list_ms(peer: Peer, project: str) -> float:
    secret = (peer.folder / "data" / "admin-token").read_text().strip()
    headers = {"Authorization": f"Bearer {secret}"}
    body = json.dumps({"projectId": project}).encode()

    def once() -> float:
        began = time.perf_counter()
        path = "/layover.v1.BuildsService/ListBuilds"
        ask(peer.port, "POST", path, headers, body, "application/json")
        return (time.perf_counter() - began) * 1000

    return statistics.median(once() for _ in range(21))


def _expiry(folder: Folder, peer: Peer, first: int) -> Expiry:
    """Let builds be over from the `first` on: as many alone as while one is pulled."""
    seconds_alone = _expire(folder, range(first, first + _EXPIRE))
    usual = [_usual_gets(folder, peer)]
    with _pulling(peer, folder.pulled) as meanwhile:
        seconds = _expire(folder, range(first + _EXPIRE, first + 2 * _EXPIRE))
    usual.append(_usual_gets(folder, peer))
    return Expiry(seconds, statistics.mean(meanwhile) / statistics.mean(usual), seconds_alone)


def _usual_gets(folder: Folder, peer: Peer) -> float:
    """Pulls a second with nothing collected: the receipts come behind the bytes."""
    unsigned = select(receipts.c.build_id).where(receipts.c.signed_at.is_(None)).limit(1)
    database = Database(f"sqlite:///{folder.path / 'data' / 'layover.db'}")
    try:
        while True:
            with database.engine.connect() as connection:
                if connection.execute(unsigned).first() is None:
                    break
            time.sleep(0.1)
    finally:
        database.close()
    return manifest_gets(peer, folder.pulled.digest, _PULL_SECONDS)


def _expire(folder: Folder, expiring: range) -> float:
    """Let these builds be over, but for the one that is pulled, and wait for their bytes to go;
    return the seconds."""
    data = folder.path / "data"
    images = [_image(number) for number in expiring]
    images = [image for image in images if image.build_id != folder.pulled.build_id]
    doomed = [data / "blobs" / _key(digest) for image in images for digest in image.blobs]
    database = Database(f"sqlite:///{data / 'layover.db'}")
    over = datetime.now(UTC) - timedelta(seconds=1)
    with database.engine.begin() as connection:
        connection.execute(
            update(retentions)
            .where(
                retentions.c.id.in_([number + 1 for number in expiring]),
                retentions.c.build_id != folder.pulled.build_id,
            )
            .values(expires_at=over)
        )
    database.close()
    began = time.perf_counter()
    while any(path.exists() for path in reversed(doomed)):
        time.sleep(0.02)
    return time.perf_counter() - began


@contextmanager
def _pulling(peer: Peer, pulled: Image) -> Iterator[list[float]]:
    """Pull for as long as the block runs; the pulls in each second of it, once it is over."""
    rates: list[float] = []
    over = threading.Event()

    def pull() -> None:
        while not over.is_set():
            rate = manifest_gets(peer, pulled.digest, 1)
            # The last one ended behind the block.
            if not over.is_set() or not rates:
                rates.append(rate)

    thread = threading.Thread(target=pull)
    thread.start()
    try:
        yield rates
    finally:
        over.set()
        thread.join()


def _distribution(folder: Path, count: int, limit: float) -> float | None:
    """The seconds that distribution takes to collect images of which it has `count`; None where
    it has not ended after `limit`."""
    root = folder / "data" / "docker" / "registry" / "v2"
    repository = root / "repositories" / "bench"
    for number in range(count):
        image = _image(number)
        for digest, content in {**image.blobs, image.digest: image.body}.items():
            path = root / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
        for digest in image.blobs:
            _link(repository / "_layers" / "sha256" / digest[7:], digest)
        of_manifests = repository / "_manifests"
        _link(of_manifests / "revisions" / "sha256" / image.digest[7:], image.digest)
        # What expires has no tag any more.
        if number >= _EXPIRE:
            tag = of_manifests / "tags" / image.build_id
            _link(tag / "current", image.digest)
            _link(tag / "index" / "sha256" / image.digest[7:], image.digest)
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        "storage:\n"
        f"  filesystem: {{rootdirectory: {folder / 'data'}}}\n"
        "  delete: {enabled: true}\n"
        "http: {addr: '127.0.0.1:0'}\n"
    )
    command = [peers.find("registry"), "garbage-collect", "--delete-untagged", str(config)]
    began = time.perf_counter()
    nowhere = subprocess.DEVNULL
    try:
        subprocess.run(command, check=True, timeout=limit, stdout=nowhere, stderr=nowhere)
    except subprocess.TimeoutExpired:
        return None
    seconds = time.perf_counter() - began
    gone = next(islice(_image(0).blobs, 1))
    assert not (root / "blobs" / "sha256" / gone[7:9] / gone[7:] / "data").exists()
    return seconds


def _link(folder: Path, digest: str) -> None:
    folder.mkdir(parents=True)
    (folder / "link").write_text(digest)


if __name__ == "__main__":
    main()
