"""`python -m bench.scale`: what 100,000 builds cost, beside 100; and how fast 1,000 of them expire.

A data folder is filled directly, through the schema: builds of one image each, with a manifest, a
tag and ten blobs. Only the images that expire, and the one that is pulled, have their bytes on the
disk: nothing else ever asks for them. Distribution gets images of the same form as files, fewer of
them (--peer-images), because it reads all of them to collect some.
"""

import argparse
import hashlib
import json
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

from sqlalchemy import Table, insert, update

from bench import peers
from bench.peers import Peer, ask
from bench.workloads import manifest_gets
from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import (
    blobs,
    builds,
    manifest_references,
    manifests,
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

_EXPIRE = 1_000
_PULL_SECONDS = 5


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
class Measured:
    """What a server with so many builds does."""

    builds: int
    start_seconds: float
    manifests_per_second: float
    tag_list_ms: float
    build_list_ms: float
    expiry_seconds: float
    pulls_meanwhile: float
    """The pulls a second while it collects, of those before."""


def main() -> None:
    arguments = _parse()
    folder = Path(tempfile.mkdtemp(prefix="layover-bench-"))
    try:
        small = _measure(folder / "small", _EXPIRE)
        shutil.rmtree(folder / "small")
        large = _measure(folder / "large", arguments.builds)
        shutil.rmtree(folder / "large")
        for measured in (small, large):
            print(
                f"{measured.builds:,} builds, {measured.builds * (_LAYERS + 1):,} blobs\n"
                f"  start                          {measured.start_seconds:8.2f} s\n"
                f"  manifest GET                   {measured.manifests_per_second:8,.0f} a second\n"
                f"  tags, first page               {measured.tag_list_ms:8.1f} ms\n"
                f"  builds, first page             {measured.build_list_ms:8.1f} ms\n"
                f"  {_EXPIRE:,} builds expire, bytes gone {measured.expiry_seconds:6.2f} s\n"
                f"  pulls meanwhile                {measured.pulls_meanwhile:8.0%} of before"
            )
        print(f"expiry, {large.builds:,} builds to {small.builds:,}:", end=" ")
        print(f"{large.expiry_seconds / small.expiry_seconds:.2f}x the time")
        seconds = _distribution(folder / "distribution", arguments.peer_images)
        print(f"distribution's garbage-collect of {_EXPIRE:,} of {arguments.peer_images:,} images:")
        print(f"  {seconds:.2f} s; layover is {seconds / large.expiry_seconds:.1f}x as fast")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--builds", type=int, default=100_000)
    parser.add_argument("--peer-images", type=int, default=10_000)
    return parser.parse_args()


def _measure(folder: Path, count: int) -> Measured:
    environment = {"LAYOVER_REAPER_INTERVAL": "1s", "LAYOVER_GC_GRACE": "1s"}
    with peers.layover(folder, environment) as peer:
        project = peer.repository
    data = folder / "data"
    pulled = _fill(data, project, count)
    began = time.perf_counter()
    with peers.layover(folder, environment) as peer:
        start_seconds = time.perf_counter() - began
        rate = statistics.median(
            manifest_gets(peer, pulled.digest, _PULL_SECONDS) for _ in range(3)
        )
        tag_list = _median_ms(peer, f"/v2/{project}/tags/list?n=100")
        build_list = _median_list_ms(peer, project)
        expiry, meanwhile = _expire(data, peer, pulled)
        return Measured(count, start_seconds, rate, tag_list, build_list, expiry, meanwhile / rate)


def _fill(data: Path, project: str, count: int) -> Image:
    """Put `count` builds into a data folder whose server is stopped; return one that stays."""
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
                    if number < _EXPIRE or number == count - 1:
                        _write(data / "blobs", image)
                pulled = images[-1]
    finally:
        database.close()
    assert pulled is not None
    return pulled


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


def _expire(data: Path, peer: Peer, pulled: Image) -> tuple[float, float]:
    """Let builds be over; the seconds until their bytes are gone, and the pulls a second then."""
    doomed = [data / "blobs" / _key(digest) for n in range(_EXPIRE) for digest in _image(n).blobs]
    if pulled.build_id == _image(_EXPIRE - 1).build_id:
        # Of 1,000 all but the one that is pulled.
        doomed = doomed[: -len(pulled.blobs)]
    over = datetime.now(UTC) - timedelta(seconds=1)
    database = Database(f"sqlite:///{data / 'layover.db'}")
    ending = (
        update(retentions)
        .where(retentions.c.id <= _EXPIRE, retentions.c.build_id != pulled.build_id)
        .values(expires_at=over)
    )
    with _pulling(peer, pulled) as rate, database.engine.begin() as connection:
        connection.execute(ending)
        connection.commit()
        began = time.perf_counter()
        while any(path.exists() for path in reversed(doomed)):
            time.sleep(0.02)
        seconds = time.perf_counter() - began
    database.close()
    return seconds, rate()


@contextmanager
def _pulling(peer: Peer, pulled: Image) -> Iterator["_Rate"]:
    """Pull all the while; the pulls a second, when it is over."""
    rate = _Rate(peer, pulled)
    rate.start()
    try:
        yield rate
    finally:
        rate.join()


class _Rate(threading.Thread):
    def __init__(self, peer: Peer, pulled: Image) -> None:
        super().__init__()
        self._peer, self._pulled, self._rate = peer, pulled, 0.0

    def run(self) -> None:
        self._rate = manifest_gets(self._peer, self._pulled.digest, _PULL_SECONDS)

    def __call__(self) -> float:
        self.join()
        return self._rate


def _distribution(folder: Path, count: int) -> float:
    """The seconds that distribution takes to collect images of which it has `count`."""
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
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    gone = next(islice(_image(0).blobs, 1))
    assert not (root / "blobs" / "sha256" / gone[7:9] / gone[7:] / "data").exists()
    return seconds


def _link(folder: Path, digest: str) -> None:
    folder.mkdir(parents=True)
    (folder / "link").write_text(digest)


if __name__ == "__main__":
    main()
