"""Without TLS goes only what may."""

import asyncio
import ssl
from pathlib import Path

import pytest

from layover.adapters.registries.schemes import Schemes
from layover.oci.names import RepositoryName
from layover.oci.references import Place
from layover.outbound.client import outbound_client
from layover.outbound.rules import LOOPBACK, AddressForbidden, OutboundRules
from tests.certificates import make_certificates
from tests.unit.adapters.registries.fake import serving

pytestmark = pytest.mark.anyio


def place(host: str) -> Place:
    return Place(host, RepositoryName("acme/app"))


async def schemes_of(rules: OutboundRules, *hosts: str, ca: Path | None = None) -> list[str]:
    async with outbound_client(rules, ca) as client:
        schemes = Schemes(client, rules)
        return [str(await schemes.base(place(host))) for host in hosts]


async def test_what_is_listed_goes_without_tls_and_nothing_else() -> None:
    rules = OutboundRules(insecure_hosts=frozenset({"registry.lan:5000", "other.lan:80"}))
    hosts = ("registry.lan:5000", "other.lan", "registry.lan", "registry.lan:5001", "docker.io")
    assert await schemes_of(rules, *hosts) == [
        "http://registry.lan:5000",
        "http://other.lan",
        "https://registry.lan",
        "https://registry.lan:5001",
        "https://registry-1.docker.io",
    ]


async def test_loopback_goes_with_tls_where_nothing_says_otherwise() -> None:
    async with serving() as remote:
        assert await schemes_of(OutboundRules(LOOPBACK), remote.host) == [f"https://{remote.host}"]
    assert remote.heard == []


async def test_loopback_goes_without_tls_where_it_may_and_there_is_none() -> None:
    rules = OutboundRules(LOOPBACK, plain_loopback=True)
    async with serving() as remote:
        named = f"localhost:{remote.host.rpartition(':')[2]}"
        assert await schemes_of(rules, remote.host, named, remote.host) == [
            f"http://{remote.host}",
            f"http://{named}",
            f"http://{remote.host}",
        ]


async def test_many_questions_at_once_find_out_once() -> None:
    rules = OutboundRules(LOOPBACK, plain_loopback=True)
    async with serving() as remote, outbound_client(rules) as client:
        schemes = Schemes(client, rules)
        found = await asyncio.gather(*(schemes.base(place(remote.host)) for _ in range(9)))
        assert {str(url) for url in found} == {f"http://{remote.host}"}
        assert remote.hellos == 1


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_loopback_goes_with_tls_where_there_is_some(tmp_path: Path, is_trusted: bool) -> None:
    certificates = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    rules = OutboundRules(LOOPBACK, plain_loopback=True)
    async with serving(context=context) as remote:
        ca = certificates.ca if is_trusted else None
        # A certificate that cannot be verified is no reason to do without.
        assert await schemes_of(rules, remote.host, ca=ca) == [f"https://{remote.host}"]


async def test_loopback_that_may_not_be_dialled_is_not() -> None:
    rules = OutboundRules(plain_loopback=True)
    with pytest.raises(AddressForbidden):
        await schemes_of(rules, "127.0.0.1:5000")
