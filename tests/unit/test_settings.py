from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from layover.settings import (
    Settings,
    SettingsError,
    load,
    parse_duration,
    parse_size,
    unknown_variables,
)


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No layover.toml in the working folder, and no LAYOVER_* but a test's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("LISTEN", "DATA_DIR", "PUBLIC_URL", "REAPER_INTERVAL", "TLS_CERT", "TLS_KEY"):
        monkeypatch.delenv(f"LAYOVER_{name}", raising=False)


@given(
    count=st.integers(0, 36500),
    unit=st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]),
)
def test_a_duration_is_a_number_and_a_unit(count: int, unit: tuple[str, int]) -> None:
    assert parse_duration(f"{count}{unit[0]}") == timedelta(seconds=count * unit[1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "-5s",
        "1.5h",
        "5 s",
        "5S",
        "1h30m",
        "5w",
        "1e3s",
        "\N{ARABIC-INDIC DIGIT ONE}s",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="90s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "999999999999999d", "999999999999999s"])
def test_a_duration_that_no_calendar_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="36500d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0B", 0), ("500MiB", 500 << 20), ("20GiB", 20 << 30), ("1tib", 1 << 40), (" 1KiB ", 1024)],
)
def test_a_size_is_a_number_and_a_binary_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "20", "20GB", "-1GiB", "1.5GiB", "GiB", "1 GiB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="20GiB"):
        parse_size(text)


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [load().listen]
    (tmp_path / "layover.toml").write_text('listen = "127.0.0.1:1"\nreaper_interval = "5m"\n')
    seen.append(load().listen)
    monkeypatch.setenv("LAYOVER_LISTEN", "127.0.0.1:2")
    seen.append(load().listen)
    settings = load(overrides={"listen": "127.0.0.1:3"})
    seen.append(settings.listen)
    assert seen == [f"127.0.0.1:{port}" for port in (5000, 1, 2, 3)]
    # What nobody overrode is still the file's.
    assert settings.reaper_interval == timedelta(minutes=5)


def test_a_file_of_another_name_is_read_instead_of_the_default_one(tmp_path: Path) -> None:
    (tmp_path / "layover.toml").write_text('listen = "127.0.0.1:1"\n')
    (tmp_path / "other.toml").write_text('listen = "127.0.0.1:2"\n')
    assert load(tmp_path / "other.toml").listen_port == 2


def test_builders_are_tables_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "layover.toml").write_text(
        '[[builders]]\nname = "arm"\naddress = "tcp://10.0.0.1:1234"\nplatforms = ["linux/arm64"]\n'
    )
    assert [(builder.name, builder.platforms) for builder in load().builders] == [
        ("arm", ("linux/arm64",))
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("listen = 5", "listen"),
        ('listen = "5000"', "listen"),
        ('listen = ":5000"', "listen"),
        ('listen = "::1:5000"', "listen"),
        ('listen = "127.0.0.1:65536"', "listen"),
        ('listen = "127.0.0.1:http"', "listen"),
        ('listen = "127.0.0.1:\N{SUPERSCRIPT TWO}"', "listen"),
        ('listen = "a b:5000"', "listen"),
        ('public_url = "registry.example.com"', "public_url"),
        ('public_url = "ftp://registry.example.com"', "public_url"),
        ('public_url = "https://"', "public_url"),
        ('public_url = "https://host/registry"', "public_url"),
        ('public_url = "https://user@host"', "public_url"),
        ('public_url = "https://host?a=b"', "public_url"),
        ('public_url = "https://host:port"', "public_url"),
        ("public_url = 'https://ho\"st'", "public_url"),
        ('reaper_interval = "soon"', "reaper_interval"),
        ('reaper_interval = "0s"', "reaper_interval"),
        ('upload_lifetime = "0s"', "upload_lifetime"),
        ("build_client_timeout = -5", "build_client_timeout"),
        ("startup_timeout = -5", "startup_timeout"),
        ("shutdown_timeout = -5", "shutdown_timeout"),
        ("builder_wait = -5", "builder_wait"),
        ('builder_cache = "20GB"', "builder_cache"),
        ('builder_listen = "127.0.0.1:70000"', "builder_listen"),
        ('builder_listen = "127.0.0.1"', "builder_listen"),
        ('log_format = "xml"', "log_format"),
        ('tls_cert = "cert.pem"', "tls_key"),
        ('tls_cert = "no.pem"\ntls_key = "no.pem"', "no.pem"),
        ("reaper_interval = 4000000000", "at most 36500d"),
        ('gc_grace = "0s"', "gc_grace has to be longer than 0s"),
        ("builder_cache = -1", "builder_cache: Input should be greater than or equal to 0"),
        ('lisen = "127.0.0.1:5000"', "lisen: no such setting; did you mean listen?"),
        ('reaper-interval = "5m"', "reaper-interval: no such setting; did you mean reaper_interv"),
        ('repear_intervall = "5m"', "did you mean reaper_interval?"),
        ("[server]\nlisten = 5", "server: no such setting; there are "),
        (
            '[[builders]]\nname = "a"\nadress = "tcp://10.0.0.1:1"',
            "builders.0.adress: no such setting; did you mean address?",
        ),
        (
            '[[builders]]\nname = "a"\naddress = "tcp://10.0.0.1:1"\ncolour = "red"',
            "builders.0.colour: no such setting; there are address, ca_cert, cert, ",
        ),
        (
            '[[builders]]\nname = "a"\naddress = "tcp://10.0.0.1:1"\nlisten = "127.0.0.1:1"',
            "builders.0.listen: no setting of builders: as the server's own, it goes above",
        ),
        ("listen", "layover.toml"),
        ("\x00", "layover.toml"),
        ('[[builders]]\nname = "a"', "builders.0.address"),
        ('[[builders]]\nname = "a"\naddress = "10.0.0.1:1234"', "tcp://"),
        ('[[builders]]\nname = "a"\naddress = "tcp://10.0.0.1"', "tcp://"),
        ('[[builders]]\nname = "a"\naddress = "tcp://10.0.0.1:1"\nca_cert = "ca.pem"', "ca_cert"),
        ('[[builders]]\nname = "a"\naddress = "tcp://10.0.0.1:1"\n' * 2, "same name"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "layover.toml").write_text(text)
    with pytest.raises(SettingsError) as refused:
        load()
    assert named in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no settings file .*other\.toml"):
        load(tmp_path / "other.toml")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "layover.toml").write_bytes(b"listen = '\xff'")
    with pytest.raises(SettingsError, match=r"layover\.toml"):
        load()


def test_a_wrong_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYOVER_REAPER_INTERVAL", "soon")
    with pytest.raises(SettingsError, match="reaper_interval"):
        load()
    monkeypatch.delenv("LAYOVER_REAPER_INTERVAL")
    monkeypatch.setenv("LAYOVER_BUILDERS", "[{")
    with pytest.raises(SettingsError, match="builders") as refused:
        load()
    assert "layover.toml" not in str(refused.value)


def test_a_wrong_table_in_the_environment_is_named_as_one_in_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAYOVER_BUILDERS", '[{"name": "a", "adress": "tcp://10.0.0.1:1"}]')
    with pytest.raises(SettingsError, match=r"builders\.0\.adress: .*did you mean address\?"):
        load()


def test_a_variable_that_nothing_reads_is_told_with_the_one_that_was_meant() -> None:
    environment = {
        "LAYOVER_REAPER_INTERVALL": "5m",
        "layover_data_folder": "data",
        "LAYOVER_COLOUR": "red",
        "LAYOVER_TOKENS": "secret",
        "NOT_LAYOVER_LISTEN": "",
    }
    assert unknown_variables(environment) == {
        "LAYOVER_COLOUR": None,
        "LAYOVER_REAPER_INTERVALL": "LAYOVER_REAPER_INTERVAL",
        "LAYOVER_TOKENS": "LAYOVER_TOKEN",
        "layover_data_folder": "LAYOVER_DATA_DIR",
    }


def test_every_setting_and_what_the_client_reads_is_a_known_variable() -> None:
    names = [*Settings.model_fields, "url", "token", "project_id", "config_dir", "debug"]
    known = {f"LAYOVER_{name.upper()}": "" for name in names}
    assert unknown_variables(known) == {}
    assert unknown_variables({name.lower(): "" for name in known}) == {}


@pytest.mark.parametrize(
    ("overrides", "url", "registry_host"),
    [
        ({"listen": "127.0.0.1:5001"}, "http://127.0.0.1:5001", "127.0.0.1:5001"),
        ({"listen": "0.0.0.0:5001"}, "http://127.0.0.1:5001", "127.0.0.1:5001"),
        ({"listen": "[::]:5001"}, "http://127.0.0.1:5001", "127.0.0.1:5001"),
        ({"listen": "[::1]:5001"}, "http://[::1]:5001", "[::1]:5001"),
        ({"public_url": "https://r.example.com"}, "https://r.example.com", "r.example.com"),
        ({"public_url": "https://r.example.com/"}, "https://r.example.com", "r.example.com"),
        ({"public_url": "http://[::1]:80"}, "http://[::1]:80", "[::1]:80"),
    ],
)
def test_clients_are_told_an_address_that_they_can_use(
    overrides: dict[str, str], url: str, registry_host: str
) -> None:
    settings = load(overrides=overrides)
    assert (settings.url, settings.registry_host) == (url, registry_host)


def test_a_certificate_makes_the_address_https(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).touch()
    settings = load(overrides={"tls_cert": "cert.pem", "tls_key": "key.pem"})
    assert settings.url == "https://127.0.0.1:5000"


def test_every_setting_has_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize("url", ["mysql://user:s3cret@host/x", "s3cret", "postgresql:/s3cret"])
def test_a_wrong_database_url_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("LAYOVER_DATABASE_URL", url)
    with pytest.raises(SettingsError, match="database_url") as refused:
        load()
    assert "s3cret" not in str(refused.value)


def test_a_database_url_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://user:s3cret@host/x"
    monkeypatch.setenv("LAYOVER_DATABASE_URL", url)
    settings = load()
    assert settings.database_url.get_secret_value() == url
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()}"


@pytest.mark.parametrize(
    "value",
    [["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"], "10.0.0.0/8, 192.0.2.7,2001:db8::/32,"],
)
def test_trusted_proxies_are_addresses_and_networks(value: object) -> None:
    settings = load(overrides={"trusted_proxies": value})
    assert [str(network) for network in settings.trusted_proxies] == [
        *("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32")
    ]


def test_trusted_proxies_come_from_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "layover.toml").write_text('trusted_proxies = ["192.0.2.0/24"]')
    assert [str(network) for network in load().trusted_proxies] == ["192.0.2.0/24"]
    monkeypatch.setenv("LAYOVER_TRUSTED_PROXIES", "127.0.0.1,::1")
    assert [str(network) for network in load().trusted_proxies] == ["127.0.0.1/32", "::1/128"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nginx", "10.0.0.0/8"),
        ("10.0.0.1/8", "host bits"),
        ("0.0.0.0/0", "everybody"),
        ("::/0", "everybody"),
        ([7], "trusted_proxies"),
        (7, "trusted_proxies"),
    ],
)
def test_proxies_that_cannot_be_trusted_are_refused(value: object, reason: str) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies") as caught:
        load(overrides={"trusted_proxies": value})
    assert reason in str(caught.value)


def test_networks_and_hosts_to_dial_are_lists_in_a_file_and_in_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "layover.toml").write_text(
        'outbound_networks = ["10.0.0.0/8"]\noutbound_insecure_hosts = ["registry.lan:5000"]\n'
    )
    assert load().outbound_networks == (ip_network("10.0.0.0/8"),)
    assert load().outbound_insecure_hosts == ("registry.lan:5000",)
    monkeypatch.setenv("LAYOVER_OUTBOUND_NETWORKS", "10.0.0.0/8, fd00::/8")
    monkeypatch.setenv("LAYOVER_OUTBOUND_INSECURE_HOSTS", "a:1,[::1]:2")
    assert load().outbound_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert load().outbound_insecure_hosts == ("a:1", "[::1]:2")
    monkeypatch.setenv("LAYOVER_OUTBOUND_NETWORKS", "")
    assert load().outbound_networks == ()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("outbound_networks", ("intranet",)),
        ("outbound_networks", ("10.0.0.1/8",)),
        ("outbound_networks", "[10"),
        ("outbound_insecure_hosts", ("registry.lan",)),
        ("outbound_insecure_hosts", ("http://registry.lan:5000",)),
        ("outbound_insecure_hosts", ("registry.lan:70000",)),
        ("outbound_ca_cert", "missing.pem"),
    ],
)
def test_what_cannot_be_dialled_is_refused_with_its_setting(setting: str, value: object) -> None:
    with pytest.raises(
        SettingsError, match=setting if setting != "outbound_ca_cert" else "no file"
    ):
        load(overrides={setting: value})


@pytest.mark.parametrize(
    ("listen", "is_loopback"),
    [
        ("127.0.0.1:5000", True),
        ("127.1.2.3:5000", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("0.0.0.0:5000", False),
        ("[::]:5000", False),
        ("10.0.0.1:5000", False),
        ("localhost.example.com:5000", False),
    ],
)
def test_a_server_knows_whether_it_serves_loopback_alone(listen: str, is_loopback: bool) -> None:
    assert load(overrides={"listen": listen}).serves_loopback_alone == is_loopback


@pytest.mark.parametrize(
    ("settings", "is_alone"),
    [
        ({"public_url": "http://127.0.0.1:8443"}, True),
        ({"public_url": "http://[::1]:8443"}, True),
        ({"public_url": "https://registry.example.com"}, False),
        ({"trusted_proxies": "127.0.0.1/32"}, False),
    ],
)
def test_a_server_behind_a_proxy_on_its_machine_serves_others(
    settings: dict[str, str], is_alone: bool
) -> None:
    loaded = load(overrides={"listen": "127.0.0.1:5000", **settings})
    assert loaded.serves_loopback_alone == is_alone


def test_the_provider_s_secret_is_never_shown() -> None:
    settings = Settings(
        oidc_issuer="https://login.example.com/realms/a",
        oidc_client_id="layover",
        oidc_client_secret=SecretStr("the-secret"),
    )
    assert "the-secret" not in repr(settings)
    assert settings.oidc_client_secret.get_secret_value() == "the-secret"


@pytest.mark.parametrize(
    "values",
    [
        {"oidc_issuer": "https://login.example.com"},
        {"oidc_client_id": "layover"},
        {"oidc_client_secret": "the-secret"},
        {"oidc_issuer": "login.example.com", "oidc_client_id": "layover"},
        {"oidc_issuer": "ftp://login.example.com", "oidc_client_id": "layover"},
        {"oidc_issuer": "https://a/?b=c", "oidc_client_id": "layover"},
        {"oidc_issuer": "https://user:pass@login.example.com", "oidc_client_id": "layover"},
    ],
)
def test_a_provider_is_named_whole_or_not_at_all(values: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as refused:
        load(overrides=dict(values))
    assert "oidc_" in str(refused.value)
    assert "the-secret" not in str(refused.value)
