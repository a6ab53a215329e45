"""What is measured. Each workload gives a rate, the higher the better."""

import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Peer, session_path

_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Blob:
    """A large blob as a file, and its digest."""

    path: Path
    digest: str

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size


def manifest_gets(peer: Peer, reference: str, seconds: int, connections: int = 16) -> float:
    """Manifest GETs a second, by wrk."""
    headers = _header_flags(peer, "Accept: application/vnd.oci.image.manifest.v1+json")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *headers]
    output = subprocess.run(
        [*command, peer.url(f"manifests/{reference}")], check=True, capture_output=True, text=True
    ).stdout
    if "Non-2xx" in output:
        raise SystemExit(f"error: {peer.name} answered with errors:\n{output}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found is not None, output
    return float(found[1])


def blob_get(peer: Peer, blob: Blob, connections: int) -> float:
    """Megabytes a second, over so many downloads of the blob at once, by curl."""
    return _timed(
        blob.size_bytes * connections,
        connections,
        lambda: _curl(peer, "-o", "/dev/null", peer.url(f"blobs/{blob.digest}")),
    )


def monolithic_upload(peer: Peer, blob: Blob) -> float:
    """Megabytes a second, by one PUT of the whole, by curl."""

    def upload() -> None:
        session = f"http://127.0.0.1:{peer.port}{peer.start_upload()}digest={blob.digest}"
        _curl(peer, "-o", "/dev/null", "-T", str(blob.path), session)

    return _timed(blob.size_bytes, 1, upload)


def chunked_upload(peer: Peer, blob: Blob) -> float:
    """Megabytes a second, in ordered chunks of 16 MiB and a closing PUT."""

    def upload() -> None:
        session = peer.start_upload()
        with blob.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                answer = peer.request("PATCH", session, chunk, "application/octet-stream")
                session = session_path(answer.headers["location"])
        peer.request("PUT", f"{session}digest={blob.digest}", b"")

    return _timed(blob.size_bytes, 1, upload)


def _timed(size_bytes: int, workers: int, work: Callable[[], None]) -> float:
    with ThreadPoolExecutor(workers) as executor:
        began = time.perf_counter()
        for future in [executor.submit(work) for _ in range(workers)]:
            future.result()
        return size_bytes / 1e6 / (time.perf_counter() - began)


def _curl(peer: Peer, *arguments: str) -> None:
    headers = [
        part for name, value in peer.headers().items() for part in ("-H", f"{name}: {value}")
    ]
    subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", *headers, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _header_flags(peer: Peer, *more: str) -> list[str]:
    headers = [f"{name}: {value}" for name, value in peer.headers().items()]
    return [part for header in (*headers, *more) for part in ("-H", header)]
