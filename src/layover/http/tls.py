"""How HTTPS is served: which versions and ciphers, and how long a handshake may take."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import uvloop

# TLS 1.3 has no others. Of 1.2 those that keep what was recorded secret when the key is lost, and
# that are not broken by telling padding from bytes (RFC 9325, section 4.2).
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

HANDSHAKE_SECONDS = 20.0


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """What serves this certificate. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    # A client could make the server compute handshakes without end.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # OpenSSL would ask the terminal for a passphrase, and a service has none.
    context.load_cert_chain(cert, key, password="")
    return context


class ServerLoop(uvloop.Loop):
    """uvloop, whose servers hang up on a client that does not finish its TLS handshake in time.

    uvicorn (0.54) does not say how long to wait, and uvloop (0.23) does for a minute then.
    """

    handshake_seconds = HANDSHAKE_SECONDS

    async def create_server(  # type: ignore[override]  # what uvloop's takes, whatever that is
        self, *args: Any, **options: Any
    ) -> asyncio.AbstractServer:
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", self.handshake_seconds)
        return await super().create_server(*args, **options)
