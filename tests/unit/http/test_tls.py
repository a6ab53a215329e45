import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from layover.http.tls import ServerLoop, server_context
from tests.unit.test_startup import make_certificate

OLD = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path, "server")


def client(lowest: ssl.TLSVersion, highest: ssl.TLSVersion, ciphers: str = "ALL") -> ssl.SSLContext:
    """A client that takes whatever it is offered, and any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # OpenSSL 3 would not even offer what is too old.
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = lowest, highest
    return context


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLObject:
    """The client's end after a handshake. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    served = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server)
    refused: ssl.SSLError | None = None
    for side in (asking, served) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            # The first is the reason, and the others follow from it.
            refused = refused or error
    if refused is not None:
        raise refused
    return asking


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("version", OLD)
def test_a_version_before_1_2_is_refused(pair: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    asking = client(version, version)
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
        shake_hands(asking, server_context(*pair))
    # Not for the client's sake: an older server takes it.
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    older.set_ciphers("ALL:@SECLEVEL=0")
    older.minimum_version = ssl.TLSVersion.TLSv1
    older.load_cert_chain(*pair)
    assert shake_hands(asking, older).version() in ("TLSv1", "TLSv1.1")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_1_2_and_1_3_are_served(pair: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    found = shake_hands(client(version, version), server_context(*pair)).version()
    assert found == version.name.replace("v1_", "v1.")


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256", "aNULL"])
def test_a_cipher_that_is_weak_or_keeps_no_secrets_is_refused(
    pair: tuple[Path, Path], cipher: str
) -> None:
    asking = client(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, cipher)
    with pytest.raises(ssl.SSLError):
        shake_hands(asking, server_context(*pair))


class Impatient(ServerLoop):
    handshake_seconds = 0.1


def test_a_handshake_that_does_not_come_is_not_waited_for(pair: tuple[Path, Path]) -> None:
    async def connect() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            asyncio.Protocol, "127.0.0.1", 0, ssl=server_context(*pair)
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                async with asyncio.timeout(30):
                    with contextlib.suppress(ConnectionResetError):
                        return await reader.read(-1)
                    return b""
            finally:
                writer.close()

    with asyncio.Runner(loop_factory=Impatient) as runner:
        assert runner.run(connect()) == b""
