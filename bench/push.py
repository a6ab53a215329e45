"""`python -m bench.push`: an image from Layover to distribution, beside what skopeo and crane do.

All three read from the same Layover and write to a distribution of their own that was empty, in
turns. `layover push` has the server do it; the two others carry the bytes through themselves. With
--delay every byte to the destination waits for so long on its way, there and back, in a program in
between that all three go through.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import queue
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import peers
from bench.peers import Peer, ask, find, session_path

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """A Layover with a saved build."""

    peer: Peer
    build_id: str
    token: str

    @property
    def image(self) -> str:
        return f"127.0.0.1:{self.peer.port}/{self.peer.repository}:{self.build_id}"


Copy = Callable[[Source, str, Path], None]


def main() -> None:
    arguments = _parse()
    folder = Path(tempfile.mkdtemp(prefix="layover-bench-"))
    try:
        with peers.layover(folder / "layover") as peer:
            source = _save(peer, arguments.layers, arguments.mib << 20)
            print(
                f"{arguments.mib} MiB in {arguments.layers} layers, {arguments.delay} ms there"
                f" and back; medians of {arguments.rounds} rounds (lowest to highest)"
            )
            _compare(source, folder, arguments.rounds, arguments.delay / 2000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--delay", type=float, default=0, metavar="MS")
    return parser.parse_args()


def _compare(source: Source, folder: Path, rounds: int, delay_seconds: float) -> None:
    copies: dict[str, Copy] = {"layover": _layover, "skopeo": _skopeo, "crane": _crane}
    fresh: dict[str, list[float]] = {name: [] for name in copies}
    again: dict[str, list[float]] = {name: [] for name in copies}
    server: list[float] = []
    grown: list[float] = []
    for _ in range(rounds):
        for name, copy in copies.items():
            before = _forget_peak_mib(source)
            with _destination(folder / "destination", delay_seconds) as host:
                reference = f"{host}/bench/image:v1"
                fresh[name].append(_seconds(copy, source, reference, folder))
                again[name].append(_seconds(copy, source, reference, folder))
            shutil.rmtree(folder / "destination")
            if name == "layover":
                server.append(_server_seconds(source))
                grown.append(_memory_mib(source, "VmHWM") - before)
    _tell("fresh", fresh)
    _tell("again", again)
    print(f"  again, of that the server's own: {statistics.median(server):.2f} s")
    print(f"  the server's memory grew by {max(grown):.0f} MiB at most")


def _tell(what: str, seconds: dict[str, list[float]]) -> None:
    ours = seconds["layover"]
    for name, theirs in seconds.items():
        line = f"  {what:6} {name:8} {statistics.median(theirs):8.2f} s"
        if name != "layover":
            ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
            line += (
                f"   layover is {statistics.median(ratios):.2f}x as fast"
                f" ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(line, flush=True)


def _seconds(copy: Copy, source: Source, reference: str, folder: Path) -> float:
    # Neither remembers anything of an earlier turn, nor is anything left to be written.
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    subprocess.run(["sync"], check=True)
    began = time.perf_counter()
    copy(source, reference, home)
    return time.perf_counter() - began


def _layover(source: Source, reference: str, home: Path) -> None:
    _run(
        home,
        ".venv/bin/layover",
        "push",
        source.build_id,
        *("-t", reference, "--progress=quiet"),
        LAYOVER_URL=f"http://127.0.0.1:{source.peer.port}",
        LAYOVER_TOKEN=source.token,
    )


def _skopeo(source: Source, reference: str, home: Path) -> None:
    _run(
        home,
        *("skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false"),
        *("--dest-tls-verify=false", "--src-creds", f"x-token:{source.token}"),
        *(f"docker://{source.image}", f"docker://{reference}"),
    )


def _crane(source: Source, reference: str, home: Path) -> None:
    auth = base64.b64encode(f"x-token:{source.token}".encode()).decode()
    host = source.image.partition("/")[0]
    (home / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    _run(home, "crane", "copy", "--insecure", source.image, reference, DOCKER_CONFIG=str(home))


def _run(home: Path, program: str, *arguments: str, **more: str) -> None:
    path = program if "/" in program else find(program)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **more}
    done = subprocess.run(
        [path, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"error: {program} failed: {done.stderr[-2000:]}")


def _server_seconds(source: Source) -> float:
    """How long the server itself took for the newest push."""
    body = json.dumps({"projectId": source.peer.repository, "pageSize": 1}).encode()
    headers = {"Authorization": f"Bearer {source.token}"}
    path = "/layover.v1.PushesService/ListPushes"
    answer = ask(source.peer.port, "POST", path, headers, body, "application/json")
    push = json.loads(answer.body)["pushes"][0]
    times = [_moment(push[name]) for name in ("createdAt", "finishedAt")]
    return times[1] - times[0]


def _moment(text: str) -> float:
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds + float(f"0.{fraction or 0}")


def _forget_peak_mib(source: Source) -> float:
    """Forget how much the server ever took (proc_pid_clear_refs(5)); return what it takes now."""
    (_process(source) / "clear_refs").write_text("5")
    return _memory_mib(source, "VmRSS")


def _memory_mib(source: Source, name: str) -> float:
    for line in (_process(source) / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"error: the system does not tell {name}")


def _process(source: Source) -> Path:
    for process in Path("/proc").glob("[0-9]*"):
        command = (process / "cmdline").read_bytes()
        if b"serve" in command and str(source.peer.folder / "data").encode() in command:
            return process
    raise SystemExit("error: the server is not there any more")


# --- what is copied ------------------------------------------------------------------------------


def _save(peer: Peer, layers: int, size_bytes: int) -> Source:
    """Save a build of random layers, as a builder does."""
    token = (peer.folder / "data" / "admin-token").read_text().strip()
    service = "/depot.cli.v1.BuildService"

    def call(method: str, secret: str, message: object) -> dict[str, object]:
        body = json.dumps(message).encode()
        headers = {"Authorization": f"Bearer {secret}"}
        answer = ask(peer.port, "POST", f"{service}/{method}", headers, body, "application/json")
        document: dict[str, object] = json.loads(answer.body)
        return document

    options = [{"command": "COMMAND_BUILD", "save": True}]
    created = call("CreateBuild", token, {"projectId": peer.repository, "options": options})
    build_id, build_token = str(created["buildId"]), str(created["buildToken"])
    config = b"{}"
    described = [_push(peer, config)]
    for _ in range(layers):
        described.append(_push(peer, os.urandom(size_bytes // layers)))
    kinds = ["application/vnd.oci.image.config.v1+json"]
    kinds += ["application/vnd.oci.image.layer.v1.tar"] * layers
    descriptors = [
        {"mediaType": kind, "digest": digest, "size": size}
        for kind, (digest, size) in zip(kinds, described, strict=True)
    ]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": descriptors[0],
            "layers": descriptors[1:],
        }
    ).encode()
    basic = base64.b64encode(f"x-token:{build_token}".encode()).decode()
    path = f"/v2/{peer.repository}/manifests/{build_id}"
    ask(peer.port, "PUT", path, {"Authorization": f"Basic {basic}"}, manifest, _MANIFEST_TYPE)
    call("FinishBuild", build_token, {"buildId": build_id, "success": {}})
    return Source(peer, build_id, token)


def _push(peer: Peer, content: bytes) -> tuple[str, int]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    session = session_path(peer.start_upload())
    peer.request("PUT", f"{session}digest={digest}", content, "application/octet-stream")
    return digest, len(content)


# --- where it goes -------------------------------------------------------------------------------


@contextmanager
def _destination(folder: Path, delay_seconds: float) -> Iterator[str]:
    """An empty distribution, and how it is reached."""
    with ExitStack() as stack:
        peer = stack.enter_context(peers.distribution(folder))
        port = peer.port
        if delay_seconds:
            port = stack.enter_context(_delayed(port, delay_seconds))
        yield f"127.0.0.1:{port}"


@contextmanager
def _delayed(target: int, seconds: float) -> Iterator[int]:
    """A port whose bytes arrive at the target's, and the target's at its clients, so much later."""
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(connect, "127.0.0.1", 0, limit=_PIECE_BYTES)
        async with server:
            ports.put(server.sockets[0].getsockname()[1])
            await over.wait()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection costs a way there and back before anything is sent.
        await asyncio.sleep(2 * seconds)
        back, there = await asyncio.open_connection("127.0.0.1", target, limit=_PIECE_BYTES)
        with contextlib.suppress(OSError, ExceptionGroup, asyncio.CancelledError):
            async with asyncio.TaskGroup() as group:
                group.create_task(_forward(reader, there, seconds))
                group.create_task(_forward(back, writer, seconds))
        there.close()
        writer.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ports.get()
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    # What is on its way, with the time of its arrival: the line holds as much as it takes.
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)

    async def leave() -> None:
        piece = b"something"
        while piece:
            piece = await reader.read(_PIECE_BYTES)
            await line.put((loop.time() + seconds, piece))

    async with asyncio.TaskGroup() as group:
        group.create_task(leave())
        while True:
            at, piece = await line.get()
            await asyncio.sleep(at - loop.time())
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    main()
