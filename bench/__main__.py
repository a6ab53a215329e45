"""`python -m bench [NAME...]`: runs the workloads in turn on each peer, and prints ratios.

The peers take turns within a round, so that a machine that slows down slows all of them; what is
quoted is the median of the rounds' ratios, with the lowest and the highest.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import peers, workloads
from bench.peers import Peer
from bench.workloads import Blob

Run = Callable[[Peer], float]


def main() -> None:
    arguments = _parse()
    folder = Path(tempfile.mkdtemp(prefix="layover-bench-"))
    try:
        with ExitStack() as stack:
            layover = stack.enter_context(peers.layover(folder / "layover"))
            distribution = stack.enter_context(peers.distribution(folder / "distribution"))
            nginx = stack.enter_context(peers.nginx(folder / "nginx"))
            blob = _make_blob(folder / "blob", arguments.blob_mib << 20)
            registries = [layover, distribution]
            for peer in registries:
                # The same bytes everywhere, so the same digest.
                digest = peer.push_manifest("bench")
                workloads.monolithic_upload(peer, blob)
            shutil.copy(blob.path, folder / "nginx" / "v2" / "bench" / "blobs" / blob.digest)
            table: dict[str, tuple[Sequence[Peer], Run]] = {
                "manifest-by-digest": (
                    registries,
                    lambda peer: workloads.manifest_gets(peer, digest, arguments.seconds),
                ),
                "manifest-by-tag": (
                    registries,
                    lambda peer: workloads.manifest_gets(peer, "bench", arguments.seconds),
                ),
                "blob-get-1": (
                    [*registries, nginx],
                    lambda peer: workloads.blob_get(peer, blob, 1),
                ),
                "blob-get-8": (
                    [*registries, nginx],
                    lambda peer: workloads.blob_get(peer, blob, 8),
                ),
                "upload-monolithic": (
                    registries,
                    lambda peer: workloads.monolithic_upload(peer, blob),
                ),
                "upload-chunked": (registries, lambda peer: workloads.chunked_upload(peer, blob)),
            }
            for name in arguments.names or table:
                if name not in table:
                    sys.exit(f"error: no workload {name!r}; there are {', '.join(table)}")
                _compare(name, *table[name], arguments.rounds)
    finally:
        shutil.rmtree(folder)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="workloads; all when none is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of a manifest run")
    parser.add_argument("--blob-mib", type=int, default=1024)
    return parser.parse_args()


def _make_blob(path: Path, size_bytes: int) -> Blob:
    """Bytes that do not compress."""
    hash_ = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size_bytes >> 20):
            block = os.urandom(1 << 20)
            file.write(block)
            hash_.update(block)
    return Blob(path, f"sha256:{hash_.hexdigest()}")


def _compare(name: str, compared: Sequence[Peer], run: Run, rounds: int) -> None:
    rates: dict[str, list[float]] = {peer.name: [] for peer in compared}
    for peer in compared:
        run(peer)  # not counted: caches fill
    for _ in range(rounds):
        for peer in compared:
            rates[peer.name].append(run(peer))
    print(name)
    for peer_name, values in rates.items():
        line = f"  {peer_name:13} {statistics.median(values):10,.0f}"
        if peer_name != "layover":
            ratios = [ours / theirs for ours, theirs in zip(rates["layover"], values, strict=True)]
            line += (
                f"   layover is {statistics.median(ratios):.2f}x"
                f" ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(line, flush=True)


main()
