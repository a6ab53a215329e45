"""A registry at work: images that come, move and go; and whether all that is left is whole."""

import os
import random
import threading
import time

from tests.e2e.registry import Registry, descriptor, digest_of, image, index
from tests.e2e.server import LayoverServer
from tests.e2e.test_server_life import NO_BUILDER

THREADS = 2

# What nothing needs goes within seconds.
EAGER = {**NO_BUILDER, "REAPER_INTERVAL": "1s", "GC_GRACE": "5s"}


class Traffic:
    """Pushes, moves, overwrites and deletes images for as long as it is told to."""

    def __init__(self, server: LayoverServer, number: int) -> None:
        name = f"{server.project_id}/traffic{number}"
        self._registry = Registry(server, name, server.basic_auth)
        self._random = random.Random(number)
        self._stop = threading.Event()
        self.rounds = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._round()
                self.rounds += 1
                time.sleep(0.02)
        except BaseException as error:
            self.error = error

    def _round(self) -> None:
        tag = f"t{self._random.randrange(8)}"
        kind = self._random.randrange(4)
        if kind == 0:
            named = self._registry("HEAD", f"manifests/{tag}").headers["Docker-Content-Digest"]
            # An image that an index needs is refused.
            self._registry("DELETE", f"manifests/{named or tag}")
            return
        shared = f"shared {self._random.randrange(5)}".encode()
        body = self._push(shared, os.urandom(4096))
        if kind == 1:
            other = self._push(shared, os.urandom(64))
            body = index(body, other)
        assert self._registry.push_manifest(tag, body).status == 201
        if kind == 2:
            subject = descriptor("application/vnd.oci.image.manifest.v1+json", body)
            note = image(shared, subject=subject, artifactType="application/vnd.example.note")
            assert self._registry.push_manifest(digest_of(note), note).status == 201

    def _push(self, *layers: bytes) -> bytes:
        for content in (b"{}", *layers):
            self._registry.push_blob(content)
        body = image(*layers)
        assert self._registry.push_manifest(digest_of(body), body).status == 201
        return body


def check_all(server: LayoverServer) -> int:
    """Read all that the repositories list, down to each blob; return how many blobs that were."""
    read = set[tuple[str, str]]()
    for number in range(THREADS):
        name = f"{server.project_id}/traffic{number}"
        registry = Registry(server, name, server.basic_auth)
        for tag in registry("GET", "tags/list").json()["tags"] or []:
            _check(registry, tag, read)
    return len(read)


def _check(registry: Registry, reference: str, read: set[tuple[str, str]]) -> None:
    found = registry("GET", f"manifests/{reference}")
    assert found.status == 200, (registry.repository, reference, found)
    digest = digest_of(found.body)
    assert found.headers["Docker-Content-Digest"] == digest
    manifest = found.json()
    for child in manifest.get("manifests", []):
        _check(registry, child["digest"], read)
    for referrer in registry("GET", f"referrers/{digest}").json()["manifests"]:
        _check(registry, referrer["digest"], read)
    for blob in [manifest["config"], *manifest["layers"]] if "layers" in manifest else []:
        if (registry.repository, blob["digest"]) not in read:
            content = registry("GET", f"blobs/{blob['digest']}")
            assert (content.status, digest_of(content.body)) == (200, blob["digest"])
            read.add((registry.repository, blob["digest"]))
