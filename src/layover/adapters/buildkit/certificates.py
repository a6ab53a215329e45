"""The certificates of the embedded BuildKit: an authority of its own, and what it signs.

    FOLDER/ca.pem, ca-key.pem          the authority, kept
    FOLDER/server.pem, server-key.pem  the daemon's, made anew at each start
    (in memory)                        one a build, valid for a day

Whoever has no build has no certificate, and so no access to the daemon.
"""

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from layover.builds.builders import Credentials

# The daemon's name, whatever address it is reached at.
SERVER_NAME = "buildkitd.layover.internal"

CLIENT_LIFETIME = timedelta(days=1)
_AUTHORITY_LIFETIME = timedelta(days=3650)
_RENEW_AUTHORITY_BEFORE = timedelta(days=365)
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        # The form that TLS libraries of every age read.
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()


class Authority:
    """Signs the daemon's certificate and its clients'."""

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        """Read the authority in `folder`, or make it; raises OSError."""
        self._folder = folder
        self._now = now
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._own = self._load() or self._create()

    @property
    def ca_path(self) -> Path:
        return self._folder / "ca.pem"

    def write_server_certificate(self, host: str) -> tuple[Path, Path]:
        """A new certificate for the daemon at `host`; returns its path and its key's."""
        names: list[x509.GeneralName] = [x509.DNSName(SERVER_NAME)]
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
        pair = self._sign(SERVER_NAME, _AUTHORITY_LIFETIME, ExtendedKeyUsageOID.SERVER_AUTH, names)
        cert_path, key_path = self._folder / "server.pem", self._folder / "server-key.pem"
        _write(cert_path, pair.cert_pem)
        _write(key_path, pair.key_pem)
        return cert_path, key_path

    def client_credentials(self, common_name: str) -> Credentials:
        """A client's own certificate, valid for a day."""
        pair = self._sign(common_name, CLIENT_LIFETIME, ExtendedKeyUsageOID.CLIENT_AUTH, [])
        return Credentials(ca_cert=self._own.cert_pem, cert=pair.cert_pem, key=pair.key_pem)

    def _load(self) -> KeyPair | None:
        try:
            certificate = x509.load_pem_x509_certificate(self.ca_path.read_bytes())
            key = serialization.load_pem_private_key(self._key_path.read_bytes(), password=None)
        except (FileNotFoundError, ValueError):
            # Missing, or cut short by a crash while it was made.
            return None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            return None
        if key.public_key() != certificate.public_key():
            return None
        if certificate.not_valid_after_utc - self._now() < _RENEW_AUTHORITY_BEFORE:
            return None
        if certificate.not_valid_before_utc > self._now():
            # Made when the machine's clock was ahead; nobody would take it for a long time.
            return None
        return KeyPair(certificate, key)

    def _create(self) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Layover embedded BuildKit")
        certificate = (
            self._builder(name, name, key, _AUTHORITY_LIFETIME + _RENEW_AUTHORITY_BEFORE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        pair = KeyPair(certificate, key)
        _write(self._key_path, pair.key_pem)
        _write(self.ca_path, pair.cert_pem)
        return pair

    def _sign(
        self,
        common_name: str,
        lifetime: timedelta,
        usage: x509.ObjectIdentifier,
        names: list[x509.GeneralName],
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._own.certificate
        builder = (
            self._builder(_name(common_name), issuer.subject, key, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._own.key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return KeyPair(builder.sign(self._own.key, hashes.SHA256()), key)

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        lifetime: timedelta,
    ) -> x509.CertificateBuilder:
        now = self._now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + lifetime)
        )

    @property
    def _key_path(self) -> Path:
        return self._folder / "ca-key.pem"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, text: str) -> None:
    """Put the file in place whole, readable by its owner alone from its first byte on."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
