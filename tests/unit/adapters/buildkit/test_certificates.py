from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from layover.adapters.buildkit.certificates import CLIENT_LIFETIME, SERVER_NAME, Authority

START = datetime(2026, 3, 1, tzinfo=UTC)


def at(time: datetime, folder: Path) -> Authority:
    return Authority(folder, lambda: time)


def load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def client_of(authority: Authority) -> x509.Certificate:
    cert = authority.client_credentials("build1").cert
    assert cert is not None
    return load(cert)


def test_the_authority_outlives_restarts(tmp_path: Path) -> None:
    first, second = at(START, tmp_path), at(START + timedelta(days=100), tmp_path)
    assert first.client_credentials("a").ca_cert == second.client_credentials("b").ca_cert


def test_an_authority_that_ends_within_a_year_is_replaced(tmp_path: Path) -> None:
    first, second = at(START, tmp_path), at(START + timedelta(days=3660), tmp_path)
    assert first.client_credentials("a").ca_cert != second.client_credentials("b").ca_cert


def test_an_authority_made_when_the_clock_was_ahead_is_replaced(tmp_path: Path) -> None:
    at(START + timedelta(days=300), tmp_path)
    authority = load(at(START, tmp_path).client_credentials("a").ca_cert)
    assert authority.not_valid_before_utc <= START


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem"])
@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\n"])
def test_a_broken_authority_is_made_anew(tmp_path: Path, name: str, text: str) -> None:
    at(START, tmp_path)
    (tmp_path / name).write_text(text)
    assert client_of(at(START, tmp_path)).issuer == load((tmp_path / "ca.pem").read_text()).subject


def test_an_authority_whose_halves_do_not_fit_is_made_anew(tmp_path: Path) -> None:
    at(START, tmp_path / "a")
    at(START, tmp_path / "b")
    (tmp_path / "a" / "ca.pem").write_bytes((tmp_path / "b" / "ca.pem").read_bytes())
    mixed = at(START, tmp_path / "a")
    authority = load(mixed.client_credentials("x").ca_cert)
    client_of(mixed).verify_directly_issued_by(authority)


def test_a_builds_certificate_is_a_clients_and_good_for_a_day(tmp_path: Path) -> None:
    authority = at(START, tmp_path)
    certificate = client_of(authority)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.not_valid_after_utc == START + CLIENT_LIFETIME
    certificate.verify_directly_issued_by(load(authority.client_credentials("x").ca_cert))


def test_a_builds_certificate_is_no_authority(tmp_path: Path) -> None:
    basic = client_of(at(START, tmp_path)).extensions.get_extension_for_class(x509.BasicConstraints)
    assert not basic.value.ca


@pytest.mark.parametrize("host", ["127.0.0.1", "builder.example", "::1"])
def test_the_daemons_certificate_is_good_for_its_name(tmp_path: Path, host: str) -> None:
    authority = at(START, tmp_path)
    cert_path, _ = authority.write_server_certificate(host)
    root = load(authority.client_credentials("x").ca_cert)
    policy = PolicyBuilder().store(Store([root])).time(START + timedelta(days=1))
    certificate = load(cert_path.read_text())
    policy.build_server_verifier(x509.DNSName(SERVER_NAME)).verify(certificate, [])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("another.name")).verify(certificate, [])


def test_only_the_owner_reads_what_is_written(tmp_path: Path) -> None:
    at(START, tmp_path / "certs").write_server_certificate("127.0.0.1")
    paths = sorted((tmp_path / "certs").iterdir())
    assert [path.name for path in paths] == ["ca-key.pem", "ca.pem", "server-key.pem", "server.pem"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)


def test_no_key_shows_in_a_representation(tmp_path: Path) -> None:
    assert "PRIVATE KEY" not in repr(at(START, tmp_path).client_credentials("build1"))
