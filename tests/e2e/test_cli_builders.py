"""Builders as the command line meets them: over TLS, two at once, and a server lost on the way."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.e2e.conftest import ServerFactory
from tests.e2e.images import busybox_context
from tests.e2e.processes import Background, environment, find, free_port, remove, wait_until
from tests.e2e.server import LAYOVER

# The builder's certificate has this name alone, which no resolver knows.
SERVER_NAME = "builder.layover.internal"


@dataclass(frozen=True)
class KeyPair:
    """PEM files of an authority, and of a certificate by it with its key."""

    ca: Path
    certificate: Path
    key: Path


def make_key_pair(folder: Path) -> KeyPair:
    """A certificate with which builder and client know each other."""
    folder.mkdir()
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the builders' authority")])

    def certificate(
        subject: x509.Name, public_key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
        )

    authority = certificate(ca_name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    own = (
        certificate(subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    )
    pair = KeyPair(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    pem = serialization.Encoding.PEM
    pair.ca.write_bytes(authority.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    pair.certificate.write_bytes(own.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair


class OwnBuilder:
    """A BuildKit daemon of a test's own."""

    def __init__(self, folder: Path, *flags: str | Path) -> None:
        folder.mkdir()
        self.address = f"tcp://127.0.0.1:{free_port()}"
        command: list[str | Path] = [
            find("buildkitd"),
            "--addr",
            self.address,
            "--root",
            folder / "root",
        ]
        command += ["--otel-socket-path", folder / "otel.sock", *flags]
        self._folder = folder
        self._daemon = Background(command, env=environment(folder), log=folder / "log")
        wait_until(lambda: "running server on" in self._daemon.log(), timeout=30, what="buildkitd")

    def remove(self) -> None:
        self._daemon.stop()
        remove(self._folder)


@pytest.fixture
def start_builder(own_folder: Path) -> Iterator[Callable[..., OwnBuilder]]:
    started: list[OwnBuilder] = []

    def start(*flags: str | Path) -> OwnBuilder:
        started.append(OwnBuilder(own_folder / f"builder{len(started)}", *flags))
        return started[-1]

    yield start
    for builder in started:
        builder.remove()


def test_a_builder_over_tls_is_built_on_and_followed(
    start_builder: Callable[..., OwnBuilder], start_server: ServerFactory, tmp_path: Path
) -> None:
    pair = make_key_pair(tmp_path / "builders")
    builder = start_builder(
        *("--tlscacert", pair.ca, "--tlscert", pair.certificate, "--tlskey", pair.key)
    )
    described = {
        "name": "over-tls",
        "address": builder.address,
        "server_name": SERVER_NAME,
        "ca_cert": str(pair.ca),
        "cert": str(pair.certificate),
        "key": str(pair.key),
    }
    server = start_server(settings={"BUILDERS": json.dumps([described])})
    context = busybox_context(tmp_path / "context", "built over TLS")
    (context / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "echo", "over TLS"]\n'
    )
    build = server.save(context)
    (shown,) = json.loads(server.cli("builds", "show", build.id, "-o", "json").stdout)
    assert any('"over TLS"' in step["name"] for step in shown["steps"])
    assert "\nover TLS\n" in server.cli("builds", "show", build.id, "--log").stdout


def test_each_platform_is_built_on_the_builder_that_is_native_to_it(
    start_builder: Callable[..., OwnBuilder], start_server: ServerFactory, tmp_path: Path
) -> None:
    described = [
        {
            "name": name,
            # Nothing is run in the build, so that a builder can pass for another machine's.
            "address": start_builder("--oci-worker-platform", platform).address,
            "platforms": [platform],
        }
        for name, platform in (("amd", "linux/amd64"), ("arm", "linux/arm64"))
    ]
    server = start_server(settings={"BUILDERS": json.dumps(described)})
    context = busybox_context(tmp_path / "context", "built on two")
    build = server.save(
        context, "--platform=linux/amd64,linux/arm64", "--save-tag", "both", "--progress=plain"
    )
    index = server.manifest(build.id).json()
    platforms = [m["platform"]["architecture"] for m in index["manifests"]]
    assert sorted(name for name in platforms if name != "unknown") == ["amd64", "arm64"]
    digest = server.manifest("both").headers["Docker-Content-Digest"]
    assert digest == server.manifest(build.id).headers["Docker-Content-Digest"]
    (shown,) = json.loads(server.cli("builds", "show", build.id, "-o", "json").stdout)
    assert sorted(shown["images"][0]["platforms"]) == ["linux/amd64", "linux/arm64"]
    assert {name[:13] for name in (step["name"] for step in shown["steps"])} >= {
        "[linux/amd64 ",
        "[linux/arm64 ",
    }


def told(log: Path, words: bytes) -> Callable[[], bool]:
    return lambda: words in log.read_bytes()


def test_a_server_that_is_lost_and_comes_back_costs_no_build(
    start_builder: Callable[..., OwnBuilder], start_server: ServerFactory, tmp_path: Path
) -> None:
    builder = start_builder()
    described = [{"name": "own", "address": builder.address}]
    server = start_server(settings={"BUILDERS": json.dumps(described)})
    context = busybox_context(tmp_path / "context", "built without its server")
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\n"
        f'RUN ["/bin/busybox", "sh", "-c", "echo {time.time_ns()}; /bin/busybox sleep 4"]\n'
        'RUN ["/bin/busybox", "echo", "after the loss"]\n'
    )
    for flags in ([], ["--save"]):
        log = tmp_path / f"build{len(flags)}.log"
        with log.open("wb") as output:
            build = subprocess.Popen(
                [LAYOVER, "build", "--no-cache", *flags, str(context)],
                env=server.cli_env(),
                stdin=subprocess.DEVNULL,
                stderr=output,
            )
        slow_step, waiting = told(log, b"sleep 4"), told(log, b"Waiting for the server")
        wait_until(slow_step, timeout=30, what="the slow step")
        server.process.signal(signal.SIGKILL)
        server.process.wait(10)
        if not flags:
            # Longer away than the build takes: its end is told when the server is back.
            wait_until(waiting, timeout=60, what="the build's end")
        server.start()
        assert build.wait(timeout=90) == 0, log.read_text()
        (listed,) = json.loads(server.cli("list", "builds", "--limit=1", "-o", "json").stdout)
        assert (listed["status"], listed["saved"]) == ("finished", bool(flags))
