from ipaddress import ip_network
from pathlib import Path

import pytest
import structlog

from layover.outbound.opening import open_outbound, outbound_rules
from layover.settings import Settings, SettingsError

pytestmark = pytest.mark.anyio


def test_a_server_on_loopback_dials_it_for_its_clients_and_no_other_server_does() -> None:
    assert outbound_rules(Settings(listen="127.0.0.1:0")).may_dial("127.0.0.1")
    for listen in ("0.0.0.0:0", "10.0.0.1:0", "[::]:0"):
        rules = outbound_rules(Settings(listen=listen))
        assert not rules.may_dial("127.0.0.1")
        assert not rules.may_dial("::1")


@pytest.mark.parametrize("for_pushes", [True, False])
def test_one_behind_a_proxy_on_its_machine_does_not_either(for_pushes: bool) -> None:
    settings = Settings(listen="127.0.0.1:0", public_url="https://registry.example.com")
    rules = outbound_rules(settings, for_pushes=for_pushes)
    assert not rules.may_dial("127.0.0.1")
    assert not rules.may_be_plain("127.0.0.1", 8500)


def test_networks_and_insecure_hosts_are_the_settings() -> None:
    rules = outbound_rules(
        Settings(
            listen="0.0.0.0:0",
            outbound_networks=(ip_network("10.0.0.0/8"),),
            outbound_insecure_hosts=("Registry.lan:5000", "[FD00::1]:80"),
        )
    )
    assert rules.may_dial("10.1.2.3")
    rules.check_url("http", "registry.lan", 5000)
    rules.check_url("http", "fd00::1", None)


def test_pushes_alone_reach_loopback_without_tls_and_only_from_a_server_there() -> None:
    assert outbound_rules(Settings(listen="127.0.0.1:0"), for_pushes=True).plain_loopback
    assert not outbound_rules(Settings(listen="127.0.0.1:0")).plain_loopback
    assert not outbound_rules(Settings(listen="0.0.0.0:0"), for_pushes=True).plain_loopback


@pytest.mark.parametrize(
    ("issuer", "named"),
    [
        ("http://login.lan/realms/a", "login.lan:80"),
        ("https://Login.lan", "login.lan:443"),
        ("http://[fd00::1]:8080", "[fd00::1]:8080"),
    ],
)
def test_the_provider_of_the_settings_may_be_anywhere_and_nothing_beside_it(
    issuer: str, named: str
) -> None:
    rules = outbound_rules(
        Settings(listen="0.0.0.0:0", oidc_issuer=issuer, oidc_client_id="layover")
    )
    assert rules.may_dial("10.1.2.3", named)
    for other in ("", "other.lan:443", f"{named}1", named.rpartition(":")[0]):
        assert not rules.may_dial("10.1.2.3", other)
    # Without TLS where its own address says so.
    assert (named in rules.insecure_hosts) is issuer.startswith("http://")


def test_no_push_goes_to_the_provider() -> None:
    issuer = "http://login.lan/realms/a"
    settings = Settings(listen="0.0.0.0:0", oidc_issuer=issuer, oidc_client_id="layover")
    rules = outbound_rules(settings, for_pushes=True)
    assert not rules.may_dial("10.1.2.3", "login.lan:80")
    assert not rules.is_insecure("login.lan", 80)


async def test_what_is_allowed_by_itself_is_said_in_the_log_once() -> None:
    with structlog.testing.capture_logs() as logged:
        async with open_outbound(Settings(listen="127.0.0.1:0")):
            pass
        async with open_outbound(Settings(listen="0.0.0.0:0")):
            pass
    assert [entry["event"] for entry in logged] == ["outbound_loopback_allowed"]


def test_an_authority_that_is_none_is_told_with_its_setting(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not PEM")
    with pytest.raises(SettingsError, match="outbound_ca_cert"):
        open_outbound(Settings(outbound_ca_cert=path))
