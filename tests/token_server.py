"""A token server as registries send their clients to, which signs what they verify.

It answers both ways that Docker's clients know: GET with Basic credentials, and POST as OAuth 2
(password and refresh token). It runs in a thread of the tests' own process, so that they can look
at what it was asked, and change what it says meanwhile.
"""

import base64
import json
import ssl
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.certificates import Certificates

ISSUER, SERVICE = "tests", "registry of the tests"

# How much later than its time distribution still takes a token.
_LEEWAY = timedelta(seconds=60)


@dataclass(frozen=True)
class Credentials:
    """What a user signs in with."""

    user: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """For `Authorization: Basic` (RFC 7617)."""
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


CREDENTIALS = Credentials("pusher", "a password of the tests")
REFRESH_TOKEN = "a refresh token of the tests"


@dataclass(frozen=True)
class TokenRequest:
    """What the server was asked for; `user` is None for a stranger."""

    method: str
    service: str
    scopes: tuple[str, ...]
    user: str | None


class TokenServer:
    """A token server on a port of 127.0.0.1. `stop` ends it."""

    def __init__(
        self,
        folder: Path,
        *,
        life: timedelta = timedelta(minutes=5),
        certificates: Certificates | None = None,
    ) -> None:
        """Make it and start it; its key's certificate is put into `folder`.

        `life` is how long a registry takes a token of it, and may be changed at any time.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.life = life
        self.asked: list[TokenRequest] = []
        # The one kind that zot verifies.
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        certificate = _certificate_of(self._key)
        self.root_certificate = folder / "tokens.pem"
        self.root_certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        der = certificate.public_bytes(serialization.Encoding.DER)
        self._chain = [base64.b64encode(der).decode()]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.certificate, certificates.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if certificates is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def realm(self) -> str:
        """What a registry names in its challenge."""
        return f"{self._scheme}://{self.host}/token"

    def sign(
        self, *scopes: str, user: str = CREDENTIALS.user, life: timedelta | None = None
    ) -> str:
        """A token for these scopes (`repository:NAME:pull,push`), good for `life` from now on."""
        now = datetime.now(UTC)
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "jti": uuid4().hex,
            "nbf": int((now - _LEEWAY).timestamp()),
            "iat": int(now.timestamp()),
            # So that the registry refuses it when its time is over, and not a minute later.
            "exp": int((now + (self.life if life is None else life) - _LEEWAY).timestamp()),
            "access": [access for scope in scopes if (access := _access(scope)) is not None],
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"x5c": self._chain})

    def stop(self) -> None:
        """End it. Idempotent."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def answer(self, request: TokenRequest, is_refreshable: bool) -> dict[str, Any]:
        """What it says to one that signed in."""
        self.asked.append(request)
        token = self.sign(*request.scopes, user=request.user or "")
        return {
            "token": token,
            "access_token": token,
            "expires_in": int(self.life.total_seconds()),
            "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **({"refresh_token": REFRESH_TOKEN} if is_refreshable else {}),
        }


def _access(scope: str) -> dict[str, object] | None:
    # A name may have a port in it: the type is before the first colon, actions behind the last.
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    if not (kind and name and actions):
        return None
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _certificate_of(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Layover's tests' token server")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def _handler_of(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            asked = urllib.parse.parse_qs(query)
            user = self._signed_in()
            if path != "/token":
                self._answer(HTTPStatus.NOT_FOUND, {})
            elif user is None:
                self._refuse()
            else:
                scopes = tuple(one for text in asked.get("scope", []) for one in text.split())
                service = asked.get("service", [""])[0]
                request = TokenRequest("GET", service, scopes, user)
                refreshable = asked.get("offline_token") == ["true"]
                self._answer(HTTPStatus.OK, server.answer(request, refreshable))

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            form = {name: one[0] for name, one in urllib.parse.parse_qs(content.decode()).items()}
            match form.get("grant_type"):
                case "password":
                    is_known = (form.get("username"), form.get("password")) == (
                        CREDENTIALS.user,
                        CREDENTIALS.password,
                    )
                case "refresh_token":
                    is_known = form.get("refresh_token") == REFRESH_TOKEN
                case _:
                    is_known = False
            if self.path != "/token":
                self._answer(HTTPStatus.NOT_FOUND, {})
            elif not is_known:
                self._refuse()
            else:
                scopes = tuple(form.get("scope", "").split())
                request = TokenRequest("POST", form.get("service", ""), scopes, CREDENTIALS.user)
                refreshable = form.get("access_type") == "offline"
                self._answer(HTTPStatus.OK, server.answer(request, refreshable))

        def _signed_in(self) -> str | None:
            if self.headers.get("authorization") == f"Basic {CREDENTIALS.basic}":
                return CREDENTIALS.user
            return None

        def _refuse(self) -> None:
            told = {"errors": [{"code": "UNAUTHORIZED", "message": "wrong user or password"}]}
            self._answer(HTTPStatus.UNAUTHORIZED, told, {"WWW-Authenticate": 'Basic realm="tests"'})

        def _answer(
            self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: `asked` says it."""

    return Handler
