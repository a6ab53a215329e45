"""What is dialled is the address that was judged."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import httpcore
import httpx
import pytest
import uvloop

from layover.outbound.client import outbound_client, system_resolve
from layover.outbound.rules import (
    LOOPBACK,
    AddressForbidden,
    OutboundRules,
    PlainHttpForbidden,
)
from tests.certificates import make_certificates
from tests.unit.outbound.server import FakeResolver, listening, plain

pytestmark = pytest.mark.anyio

NAME = "issuer.test"
ONE = (ip_network("127.0.0.1/32"),)


def rules(port: int, networks: object = ONE) -> OutboundRules:
    assert isinstance(networks, tuple)
    return OutboundRules(networks, frozenset({f"{NAME}:{port}", f"127.0.0.1:{port}"}))


async def test_a_name_is_asked_for_once_and_what_was_judged_is_dialled() -> None:
    async with listening("127.0.0.1") as good, listening("127.0.0.2", good.port) as bad:
        # Rebinding: whoever asked a second time would be sent to the other one.
        resolver = FakeResolver([["127.0.0.1"], ["127.0.0.2"]])
        async with outbound_client(rules(good.port), resolve=resolver) as client:
            answer = await client.get(f"http://{NAME}:{good.port}/")
        assert answer.status_code == 200
        assert (good.connections, bad.connections) == (1, 0)
        assert resolver.asked == [NAME]


async def test_a_name_that_moves_into_the_servers_network_is_refused_at_its_next_connection() -> (
    None
):
    async with listening("127.0.0.1") as good, listening("127.0.0.2", good.port) as bad:
        resolver = FakeResolver([["127.0.0.1"], ["127.0.0.2"]])
        good.answer = plain(b"{}", "200 OK", "Connection: close")
        async with outbound_client(rules(good.port), resolve=resolver) as client:
            await client.get(f"http://{NAME}:{good.port}/")
            with pytest.raises(AddressForbidden, match="outbound_networks"):
                await client.get(f"http://{NAME}:{good.port}/")
        assert bad.connections == 0


async def test_of_a_names_addresses_only_those_that_are_allowed_are_dialled() -> None:
    async with listening("127.0.0.1") as good, listening("127.0.0.2", good.port) as bad:
        for answer in (["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]):
            resolver = FakeResolver([answer])
            async with outbound_client(rules(good.port), resolve=resolver) as client:
                assert (await client.get(f"http://{NAME}:{good.port}/")).status_code == 200
        assert (good.connections, bad.connections) == (2, 0)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::1]"],
)
async def test_no_way_of_writing_loopback_reaches_it(host: str) -> None:
    async with listening("127.0.0.1") as server:
        everywhere = frozenset({f"{host}:{server.port}"})
        async with outbound_client(OutboundRules(insecure_hosts=everywhere)) as client:
            for scheme in ("http", "https"):
                with pytest.raises((AddressForbidden, httpx.ConnectError, httpx.InvalidURL)):
                    await client.get(f"{scheme}://{host}:{server.port}/")
        assert server.connections == 0


async def test_a_refusal_names_the_host_and_never_its_addresses() -> None:
    resolver = FakeResolver([["10.1.2.3"]])
    async with outbound_client(OutboundRules(), resolve=resolver) as client:
        with pytest.raises(AddressForbidden) as refused:
            await client.get("https://intranet.example/")
    assert "intranet.example" in str(refused.value)
    assert "10.1.2.3" not in str(refused.value)
    assert refused.value.addresses == ("10.1.2.3",)


async def test_without_tls_only_a_listed_host_is_asked_for_at_all() -> None:
    resolver = FakeResolver([["127.0.0.1"]])
    async with outbound_client(OutboundRules(LOOPBACK), resolve=resolver) as client:
        with pytest.raises(PlainHttpForbidden):
            await client.get(f"http://{NAME}/")
    assert resolver.asked == []


async def test_a_redirect_is_not_followed_and_a_followed_one_is_judged() -> None:
    async with listening() as server:
        server.answer = plain(b"", "302 Found", "Location: http://127.0.0.2/")
        async with outbound_client(rules(server.port)) as client:
            assert (await client.get(f"http://127.0.0.1:{server.port}/")).status_code == 302
            with pytest.raises(PlainHttpForbidden):
                await client.get(f"http://127.0.0.1:{server.port}/", follow_redirects=True)
            server.answer = plain(b"", "302 Found", "Location: https://127.0.0.2/")
            with pytest.raises(AddressForbidden):
                await client.get(f"http://127.0.0.1:{server.port}/", follow_redirects=True)


async def test_tls_asks_for_the_name_that_was_meant(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with listening(certificates=certificates) as server:
        resolver = FakeResolver([["127.0.0.1"]])
        async with outbound_client(
            OutboundRules(LOOPBACK), certificates.ca, resolve=resolver
        ) as client:
            assert (await client.get(f"https://localhost:{server.port}/")).status_code == 200
            # The same server under a name that its certificate does not have.
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(f"https://{NAME}:{server.port}/")
        async with outbound_client(OutboundRules(LOOPBACK), resolve=resolver) as client:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(f"https://localhost:{server.port}/")


async def test_no_proxy_and_no_password_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    async with listening() as server, listening() as proxy:
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with outbound_client(rules(server.port)) as client:
            await client.get(f"http://127.0.0.1:{server.port}/")
        assert proxy.connections == 0
        assert "authorization" not in server.heard[0].lower()


async def test_an_address_that_does_not_answer_leaves_time_for_the_next() -> None:
    # A full backlog swallows what is sent to it, as a firewall does.
    with socket.create_server(("127.0.0.2", 0), backlog=0) as silent:
        port = silent.getsockname()[1]
        filling = [socket.socket() for _ in range(4)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(("127.0.0.2", port))
        async with listening("127.0.0.1", port) as good:
            resolver = FakeResolver([["127.0.0.2", "127.0.0.1"]])
            timeout = httpx.Timeout(10, connect=1)
            async with outbound_client(
                rules(port, LOOPBACK), resolve=resolver, timeout=timeout
            ) as client:
                assert (await client.get(f"http://{NAME}:{port}/")).status_code == 200
            assert good.connections == 1
        for each in filling:
            each.close()


async def test_a_name_that_nobody_resolves_in_time_is_given_up_on() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with outbound_client(
        OutboundRules(), resolve=never, timeout=httpx.Timeout(10, connect=0.01)
    ) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("https://slow.example/")


@pytest.mark.parametrize("error", [OSError("no such host"), UnicodeError("label too long")])
async def test_a_name_that_is_none_is_an_error_of_the_connection(error: Exception) -> None:
    async def fails(host: str, port: int) -> list[str]:
        raise error

    async with outbound_client(OutboundRules(), resolve=fails) as client:
        with pytest.raises(httpx.ConnectError, match="cannot find host"):
            await client.get("https://unknown.example/")


async def test_a_body_is_streamed_both_ways() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async with listening() as server:
        server.answer = plain(b"x" * 100_000)
        async with outbound_client(rules(server.port)) as client:
            url = f"http://127.0.0.1:{server.port}/"
            async with client.stream("PUT", url, content=parts()) as answer:
                got = [len(part) async for part in answer.aiter_raw(1000)]
        assert sum(got) == 100_000
        assert "transfer-encoding: chunked" in server.heard[0].lower()


async def test_a_connection_that_breaks_is_an_error_of_httpx() -> None:
    async with listening() as server:

        async def breaks(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            writer.close()

        server.answer = breaks
        async with outbound_client(rules(server.port)) as client:
            with pytest.raises(httpx.RemoteProtocolError) as broken:
                await client.get(f"http://127.0.0.1:{server.port}/")
    assert isinstance(broken.value.__cause__, httpcore.RemoteProtocolError)


def test_the_servers_loop_resolves_as_any_does_and_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    assert uvloop.run(system_resolve("127.0.0.1", 80)) == ["127.0.0.1"]
    assert "127.0.0.1" in uvloop.run(system_resolve("localhost", 80))
    for name in ("a" * 64, "a\0b", "no-such-host.invalid"):
        with pytest.raises((OSError, ValueError)):
            uvloop.run(system_resolve(name, 80))
    # The server's process waits for every thread at its end.
    assert set(threading.enumerate()) == before


async def test_the_systems_resolver_gives_each_address_once() -> None:
    assert await system_resolve("127.0.0.1", 80) == ["127.0.0.1"]
    for name in ("a" * 64, "a\0b"):
        with pytest.raises((OSError, ValueError)):
            await system_resolve(name, 80)
