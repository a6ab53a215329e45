import tomllib
from pathlib import Path

from layover.adapters.buildkit.daemon_config import DaemonConfig, RegistryAccess


def config(folder: Path, registry: RegistryAccess) -> DaemonConfig:
    return DaemonConfig(
        folder=folder,
        listen="tcp://127.0.0.1:1234",
        cert=folder / "server.pem",
        key=folder / "server-key.pem",
        ca_cert=folder / "ca.pem",
        cache_bytes=5 * 1024**3,
        registry=registry,
    )


def test_the_file_says_where_to_listen_how_much_to_keep_and_how_to_push() -> None:
    folder = Path('/data/a "quoted" \\ ü folder')
    registry = RegistryAccess("127.0.0.1:5000", plain_http=True)
    parsed = tomllib.loads(config(folder, registry).to_toml())
    assert parsed["root"] == str(folder / "root")
    assert parsed["grpc"]["address"] == ["tcp://127.0.0.1:1234"]
    assert parsed["grpc"]["tls"]["ca"] == str(folder / "ca.pem")
    assert parsed["worker"]["oci"]["gcpolicy"] == [{"all": True, "maxUsedSpace": 5 * 1024**3}]
    assert parsed["worker"]["containerd"] == {"enabled": False}
    assert parsed["registry"] == {"127.0.0.1:5000": {"http": True}}


def test_a_registry_with_a_certificate_is_trusted_by_it() -> None:
    registry = RegistryAccess("layover.example", ca_cert=Path("/etc/tls.pem"))
    parsed = tomllib.loads(config(Path("/data"), registry).to_toml())
    assert parsed["registry"] == {"layover.example": {"http": False, "ca": ["/etc/tls.pem"]}}


def test_the_trace_socket_fits_into_a_socket_address_however_long_the_folder_is() -> None:
    registry = RegistryAccess("127.0.0.1:5000")
    long = config(Path("/" + "long" * 50), registry)
    assert len(str(long.trace_socket)) < 108
    assert long.trace_socket != config(Path("/" + "lang" * 50), registry).trace_socket
    assert config(Path("/data"), registry).trace_socket == Path("/data/otel.sock")
