"""An OpenID Connect provider in a process of its own, for the tests of several suites.

    with oidc_provider(tmp_path) as provider:
        issuer = provider.issuer("github")        # http://127.0.0.1:PORT/github, keys of its own
        token = issuer.sign({"aud": url, "repository": "acme/app"})
        issuer.rotate()

Every issuer has discovery, a JWKS, and for a relying party the authorization code flow with PKCE:
`register_client`, `add_user`, and `sign_in`, which does what a person in a browser would. What a
provider never signs (another's key, `alg` none, HMAC with the public key) it signs when asked.
"""

import contextlib
import json
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.certificates import Certificates

ROOT = Path(__file__).resolve().parents[2]

__all__ = ["Issuer", "OidcProvider", "oidc_provider"]


@dataclass(frozen=True)
class Issuer:
    """One issuer of the provider. Its defaults make tokens that are good for an hour."""

    url: str
    control: httpx.Client
    name: str

    def sign(
        self,
        claims: Mapping[str, Any] | None = None,
        *,
        algorithm: str = "RS256",
        key: str = "current",
        headers: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
    ) -> str:
        """A token with these claims beside `iss`, `sub`, `iat`, `nbf` and `exp`.

        `key` is "current", "foreign" (of another issuer, under the current key's ID) or "header"
        (fresh, and put into the token's own header as `jwk`). With `algorithm` HS256 it is signed
        with the public key as secret, with "none" by nobody. `without` leaves claims or members
        of the header out.
        """
        now = int(time.time())
        all_claims = {
            "iss": self.url,
            "sub": "subject",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            **(claims or {}),
        }
        return self.sign_exactly(
            {name: value for name, value in all_claims.items() if name not in without},
            algorithm=algorithm,
            key=key,
            headers=headers,
            without=without,
        )

    def sign_exactly(
        self,
        claims: object,
        *,
        algorithm: str = "RS256",
        key: str = "current",
        headers: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
    ) -> str:
        """As `sign`, with nothing added to the claims."""
        answer = self._tell(
            "sign",
            claims=claims,
            algorithm=algorithm,
            key=key,
            headers=dict(headers or {}),
            without=list(without),
        )
        return str(answer["token"])

    def rotate(self, *, keep_old: bool = False) -> None:
        """Sign with new keys, under new IDs, from now on."""
        self._tell("rotate", keep_old=keep_old)

    def answer_with(self, document: str, **how: Any) -> None:
        """Let `document` ("discovery" or "jwks") be answered otherwise: `status`, `body` (text),
        `json`, `headers`, `merge` (members put into the true one). With nothing, as ever."""
        self._tell("answer", document=document, how=how)

    def asked(self, document: str) -> int:
        """How often "discovery" or "jwks" was asked for."""
        return int(self._tell("asked")[document])

    def add_user(self, name: str, password: str, **claims: Any) -> None:
        """Somebody who can sign in; the claims stand in the ID tokens about them."""
        self._tell("user", name=name, password=password, claims=claims)

    def register_client(self, client_id: str, secret: str, *redirect_uris: str) -> None:
        """A relying party."""
        self._tell("client", client_id=client_id, secret=secret, redirect_uris=list(redirect_uris))

    def next_id_token(self, **changes: Any) -> None:
        """Spoil the next ID token that the token endpoint gives: `claims` over the true ones (None
        leaves one out), and `sign`'s `algorithm` and `key`."""
        self._tell("next_id_token", changes=changes)

    def sign_in(self, authorization_url: str, user: str, password: str) -> str:
        """What a browser does at the authorization URL: returns where it is sent to afterwards.

        Raises AssertionError when the provider shows an error page instead.
        """
        page = self.control.get(authorization_url)
        assert page.status_code == 200, page.text
        parts = urllib.parse.urlsplit(authorization_url)
        answer = self.control.post(
            f"{self.url}/authorize?{parts.query}", data={"user": user, "password": password}
        )
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def _tell(self, what: str, **facts: Any) -> dict[str, Any]:
        answer = self.control.post(f"/control/{self.name}/{what}", json=facts)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told


@dataclass(frozen=True)
class OidcProvider:
    """The provider's process."""

    url: str
    control: httpx.Client

    @property
    def host_port(self) -> str:
        """As `outbound_insecure_hosts` wants it."""
        return urllib.parse.urlsplit(self.url).netloc

    def issuer(self, name: str) -> Issuer:
        """An issuer, made when first named."""
        return Issuer(f"{self.url}/{name}", self.control, name)


@contextlib.contextmanager
def oidc_provider(folder: Path, certificates: Certificates | None = None) -> Iterator[OidcProvider]:
    """Start a provider on a free port of 127.0.0.1, with HTTPS if there are certificates."""
    command = [sys.executable, "-m", "tests.oidc_provider"]
    if certificates is not None:
        command += ["--cert", str(certificates.certificate), "--key", str(certificates.key)]
    log = folder / "oidc-provider.log"
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=output, stdin=subprocess.PIPE, cwd=ROOT
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            url = json.loads(line)["url"]
            verify = ssl.create_default_context(cafile=certificates.ca if certificates else None)
            with httpx.Client(base_url=url, trust_env=False, verify=verify, timeout=30) as control:
                yield OidcProvider(url, control)
        finally:
            process.terminate()
