import contextlib
import select
import socket
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from layover.identity.models import FirstTenant, Principal, TokenKind
from layover.settings import Settings, SettingsError
from layover.startup import (
    ADMIN_TOKEN_FILE,
    TlsRenewal,
    check_tls,
    greeting,
    keep_admin_token,
    listening,
    locked,
)


def make_certificate(folder: Path, name: str, passphrase: bytes | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "layover")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    paths = folder / f"{name}.pem", folder / f"{name}-key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return paths


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "data"):
        with pytest.raises(SettingsError, match="another server"), locked(tmp_path / "data"):
            pass
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "data"):
        pass


def test_a_new_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    with locked(tmp_path / "deep" / "data"):
        assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700


def test_a_data_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="data_dir"), locked(tmp_path / "file"):
        pass
    with pytest.raises(SettingsError, match="data_dir"), locked(tmp_path / "file" / "data"):
        pass


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = Settings(listen=f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(SettingsError, match="listen"), listening(settings):
            pass


@pytest.mark.parametrize("listen", ["203.0.113.1:0", "host.invalid:0"])
def test_an_address_that_is_not_this_machines_is_refused(listen: str) -> None:
    with pytest.raises(SettingsError, match="listen"), listening(Settings(listen=listen)):
        pass


def test_port_zero_takes_a_free_one() -> None:
    with listening(Settings(listen="127.0.0.1:0")) as listener:
        assert listener.getsockname()[1] > 0


def test_a_client_that_vanished_without_a_word_is_noticed() -> None:
    with (
        listening(Settings(listen="127.0.0.1:0")) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60


def test_a_client_that_takes_nothing_of_its_response_is_given_up() -> None:
    with (
        listening(Settings(listen="127.0.0.1:0"), timedelta(milliseconds=200)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.send(bytes(1 << 16))
            gone = select.poll()
            gone.register(accepted, select.POLLERR | select.POLLHUP)
            assert gone.poll(60_000)


def test_nobody_holds_a_response_for_longer_than_minutes() -> None:
    with (
        listening(Settings(listen="127.0.0.1:0")) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            timeout = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert 0 < timeout <= 120_000


def test_a_certificate_and_its_key_are_taken(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "a")
    check_tls(Settings(tls_cert=cert, tls_key=key))
    check_tls(Settings())


def test_a_certificate_that_cannot_be_served_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    cert, key = make_certificate(tmp_path, "a")
    _, other_key = make_certificate(tmp_path, "b")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for pair in ((cert, other_key), (key, cert), (nonsense, key), (cert, nonsense)):
        with pytest.raises(SettingsError, match="tls_cert"):
            check_tls(Settings(tls_cert=pair[0], tls_key=pair[1]))


@pytest.mark.anyio
async def test_a_renewed_certificate_is_served_once_its_key_is_there_too(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "a")
    new_cert, new_key = make_certificate(tmp_path, "b")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    renewal = TlsRenewal(context, Settings(tls_cert=cert, tls_key=key))
    old = cert.read_text()
    await renewal.check()
    assert served(context) == ssl.PEM_cert_to_DER_cert(old)
    cert.write_text(new_cert.read_text())
    await renewal.check()
    assert served(context) == ssl.PEM_cert_to_DER_cert(old)
    new_key.replace(key)
    await renewal.check()
    assert served(context) == ssl.PEM_cert_to_DER_cert(new_cert.read_text())
    cert.unlink()
    await renewal.check()
    assert served(context) == ssl.PEM_cert_to_DER_cert(new_cert.read_text())


def served(context: ssl.SSLContext) -> bytes | None:
    """The certificate that a client is shown, as DER."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    for side in (client, server, client):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return client.getpeercert(binary_form=True)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "a", b"secret")
    assert "ENCRYPTED" in key.read_text()
    with pytest.raises(SettingsError, match="tls_key") as refused:
        check_tls(Settings(tls_cert=cert, tls_key=key))
    assert isinstance(refused.value.__cause__, ssl.SSLError)


def test_the_admin_token_is_its_owners_alone_whatever_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / ADMIN_TOKEN_FILE
    path.write_text("older and longer than the new one")
    path.chmod(0o644)
    keep_admin_token(tmp_path, "secret")
    assert path.read_text() == "secret\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_takes_no_token_is_named(tmp_path: Path) -> None:
    (tmp_path / ADMIN_TOKEN_FILE).mkdir()
    with pytest.raises(SettingsError, match=ADMIN_TOKEN_FILE):
        keep_admin_token(tmp_path, "secret")


def test_the_first_start_shows_ids_token_and_what_to_type_next(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, public_url="https://r.example.com")
    keep_admin_token(tmp_path, "layover_secret")
    admin = Principal("token", TokenKind.USER, user_id="user")
    tenant = FirstTenant(
        "project", "default", "default", "admin", admin, "organization", datetime.now(UTC)
    )
    text = greeting(settings, tenant)
    for part in ("organization", "project", "user", "layover_secret", "docker login r.example.com"):
        assert part in text
    assert "layover passwd   # then sign in at https://r.example.com/signin as admin" in text
    assert "layover_secret" not in greeting(settings, None)
    assert greeting(settings, None) == "Layover listens on https://r.example.com\n"
