"""A registry is reached over TLS, or without where that is known to be right."""

from pathlib import Path

import pytest

from layover.client.errors import ClientError
from layover.client.push_errors import (
    RegistryNotTrusted,
    RegistryUnreachable,
)
from layover.client.registries import RegistryInvalid
from layover.client.registry_authorization import authorize
from layover.client.registry_dialing import dialing
from layover.oci.references import Destination
from tests.certificates import make_certificates
from tests.unit.client.registry_server import (
    TOKEN,
    Env,
    Names,
    RegistryServer,
    Reply,
    Request,
    authorize_one,
    log_in,
    serving,
    tells_nothing,
    with_tokens,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_pauses")]


async def test_a_registry_on_loopback_may_do_without_tls(env: Env) -> None:
    async with serving() as registry:
        with_tokens(registry)
        assert (await authorize_one(registry, log_in(env, registry.registry))).token == TOKEN


async def test_another_may_where_its_user_lists_it(env: Env) -> None:
    async with serving(host="registry.test") as registry:
        with_tokens(registry)
        log_in(env, registry.registry)
        names = Names(registry_test="127.0.0.1")
        hint = f"LAYOVER_INSECURE_REGISTRIES={registry.registry} here, .*outbound_insecure_hosts"
        for listed in ("", "other.test:5000", "registry.test", "registry.test:1"):
            env["LAYOVER_INSECURE_REGISTRIES"] = listed
            with pytest.raises(RegistryUnreachable, match=hint):
                await authorize_one(registry, env, names)
        assert registry.heard == []
        env["LAYOVER_INSECURE_REGISTRIES"] = f"other.test:5000, {registry.registry}"
        assert (await authorize_one(registry, env, names)).token == TOKEN


async def test_a_list_that_names_no_hosts_is_told(registry: RegistryServer, env: Env) -> None:
    with pytest.raises(RegistryInvalid):
        await authorize_one(registry, {**env, "LAYOVER_INSECURE_REGISTRIES": "user@host"})


async def test_a_certificate_that_nobody_signed_is_no_reason_to_do_without(
    registry: RegistryServer, env: Env, tmp_path: Path
) -> None:
    with_tokens(registry)
    env["SSL_CERT_FILE"] = str(make_certificates(tmp_path / "others").ca)
    with pytest.raises(RegistryNotTrusted, match="SSL_CERT_FILE"):
        await authorize_one(registry, log_in(env, registry.registry))
    assert registry.heard == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(
    registry: RegistryServer, env: Env, status: int
) -> None:
    with_tokens(registry)
    signing_in, failures = registry.handle, {"/v2/": 2, "/token": 2}

    def handle(request: Request) -> Reply:
        failures[request.path] -= 1
        return Reply(status) if failures[request.path] >= 0 else signing_in(request)

    registry.handle = handle
    assert (await authorize_one(registry, log_in(env, registry.registry))).token == TOKEN
    for path in failures:
        failures |= {"/v2/": 0, "/token": 0, path: 3}
        # Of a registry with TLS, and so not of the answer that it would have without.
        with pytest.raises(RegistryUnreachable, match=f"answered with status {status}") as failure:
            await authorize_one(registry, env)
        assert tells_nothing(failure)


async def test_a_registry_that_is_not_there_is_told(registry: RegistryServer, env: Env) -> None:
    async with serving() as gone:
        pass
    with pytest.raises(RegistryUnreachable, match=f"{gone.registry} cannot be reached"):
        await authorize_one(gone, env)
    for text in ("registry.test/a", "[1]:5000/a", "[::1::]/a", "999.1.1.1/a"):
        nowhere = Destination.parse(text).place
        with pytest.raises(RegistryUnreachable, match="no address that can be dialled"):
            await authorize([nowhere], env, resolve=Names(registry_test="no address"))


async def test_a_realm_that_is_not_there_is_told(registry: RegistryServer, env: Env) -> None:
    async with serving() as gone:
        pass
    with_tokens(registry, realm=f"https://{gone.registry}/token")
    with pytest.raises(RegistryUnreachable, match=f"{gone.registry} cannot be reached") as failure:
        await authorize_one(registry, log_in(env, registry.registry))
    assert tells_nothing(failure)


@pytest.mark.parametrize("content", ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n", "\xe9"])
def test_a_file_of_authorities_that_holds_none_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(content)
    with pytest.raises(ClientError, match="SSL_CERT_FILE"):
        dialing({"SSL_CERT_FILE": str(file)})
