"""The one settings object of a server: defaults, then layover.toml, then LAYOVER_*, then flags."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as EnvironmentUnreadable

from layover import settings_problems, units
from layover.errors import LayoverError

# A name, an IPv4 address, or an IPv6 address in brackets.
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_LISTEN = re.compile(rf"{_HOST}:[0-9]{{1,5}}")
# What an address may hold is never repeated in an error: it may be a password.
_BLOB_STORE_URL = re.compile(r"(?:s3|gs|az)://[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*/?", re.ASCII)
_ENDPOINT = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?/?")
_PUBLIC_URL = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?/?")

_ISSUER = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")

_DATABASES = ("postgresql://", "postgres://")

DEFAULT_CONFIG_PATH = Path("layover.toml")

# How load() hands the file to the sources: an argument that is no setting.
_CONFIG_PATH = "_config_path"


class SettingsError(LayoverError):
    """A setting is missing, malformed, or at odds with another."""


def parse_duration(value: object) -> object:
    """Read `90s`, `15m`, `36h` or `7d` as a timedelta; leave what is no text to pydantic."""
    return units.read_duration(value) if isinstance(value, str) else value


def check_duration(duration: timedelta) -> timedelta:
    """Refuse what no calendar has, also where it was given in seconds."""
    if abs(duration) > units.LONGEST:
        raise ValueError(f"expected at most {units.LONGEST.days}d, not {duration.days}d")
    return duration


def parse_size(value: object) -> object:
    """Read `500MiB` or `20GiB` as a number of bytes; leave what is no text to pydantic."""
    return units.read_size(value) if isinstance(value, str) else value


def parse_list(value: object) -> object:
    """Read a text with commas in between, as the environment has it, as a list."""
    if not isinstance(value, str):
        return value
    return [item.strip() for item in value.split(",") if item.strip()]


def parse_networks(value: object) -> object:
    """Read a list of networks, or a text with commas in between, as the environment has it."""
    value = parse_list(value)
    return [_network(part) for part in value] if isinstance(value, list | tuple) else value


def _network(text: object) -> object:
    if isinstance(text, IPv4Network | IPv6Network):
        return text
    try:
        # A number is an address to it, and to nobody else.
        return ip_network(str(text))
    except ValueError as error:
        raise ValueError(
            f"expected an address or a network such as 10.0.0.0/8, not {text!r}: {error}"
        ) from error


Duration = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(check_duration)]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(parse_networks)
]
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_list)]


class BuilderSettings(BaseModel):
    """A BuildKit daemon of the pool: a `[[builders]]` table in layover.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="A name for logs and errors, unlike any other builder's.")
    address: str = Field(description="Where it listens, as tcp://HOST:PORT.")
    platforms: tuple[str, ...] = Field(
        default=(), description="What it builds natively, as linux/arm64; empty asks the daemon."
    )
    server_name: str = Field(
        default="", description="The name on its TLS certificate, where it is not the host's."
    )
    ca_cert: Path | None = Field(default=None, description="The CA of its certificate (PEM).")
    cert: Path | None = Field(default=None, description="Our client certificate (PEM).")
    key: Path | None = Field(default=None, description="The client certificate's key (PEM).")

    @model_validator(mode="after")
    def _check(self) -> "BuilderSettings":
        parts = urlsplit(self.address)
        if parts.scheme != "tcp" or not parts.hostname or not parts.port:
            raise ValueError(f"address has to be tcp://HOST:PORT, not {self.address!r}")
        if len({self.ca_cert is None, self.cert is None, self.key is None}) > 1:
            raise ValueError("ca_cert, cert and key go together: give all three or none")
        for path in (self.ca_cert, self.cert, self.key):
            if path is not None and not path.is_file():
                raise ValueError(f"no file {path}")
        return self


class Settings(BaseSettings):
    """Everything that a server can be told. Durations as 90s, 36h or 7d; sizes as 20GiB."""

    model_config = SettingsConfigDict(env_prefix="LAYOVER_", frozen=True, extra="forbid")

    data_dir: Path = Field(
        default=Path("layover-data"),
        description="The folder of the database, the blobs and the embedded builder.",
    )
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description=(
            "The PostgreSQL database of the metadata, as postgresql://USER@HOST:PORT/DATABASE;"
            " SQLite in `data_dir` when empty. A password can be left to PGPASSWORD or ~/.pgpass."
        ),
    )
    blob_store_url: str = Field(
        default="",
        description=(
            "The bucket of the blobs, as s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or"
            " az://CONTAINER/PREFIX; a folder in `data_dir` when empty."
        ),
    )
    blob_store_endpoint: str = Field(
        default="",
        description=(
            "The address of an S3 server that is not Amazon's, as https://s3.example.com."
        ),
    )
    blob_store_region: str = Field(
        default="", description="The S3 bucket's region; AWS_REGION when empty."
    )
    blob_store_access_key: SecretStr = Field(
        default=SecretStr(""),
        description=(
            "The S3 access key's ID; when empty, what AWS_*, GOOGLE_* or AZURE_* variables or the"
            " machine's own identity say."
        ),
    )
    blob_store_secret_key: SecretStr = Field(
        default=SecretStr(""), description="The S3 access key's secret."
    )
    listen: str = Field(
        default="127.0.0.1:5000", description="The address that the server listens on, HOST:PORT."
    )
    public_url: str = Field(
        default="",
        description=(
            "How clients and builders reach the server, as https://registry.example.com;"
            " made from `listen` when empty."
        ),
    )
    trusted_proxies: Networks = Field(
        default=(),
        description=(
            "The addresses of proxies in front, as a list of 192.0.2.7 or 10.0.0.0/8 (in the"
            " environment with commas in between); what they write into X-Forwarded-For tells who"
            " calls, and what anybody else writes there does not."
        ),
    )
    failed_logins: int = Field(
        default=60,
        ge=1,
        description=(
            "How many failed logins of an address, of tokens that begin alike, or of a user are"
            " answered, ever later, before they are refused (429); every ten seconds one is"
            " forgotten."
        ),
    )
    oidc_issuer: str = Field(
        default="",
        description=(
            "The OpenID Connect provider that users sign in with beside passwords, as"
            " https://login.example.com; it may be in a private network. Register"
            " `public_url`/signin/callback there."
        ),
    )
    oidc_client_id: str = Field(
        default="", description="What the server is called at the provider (client ID)."
    )
    oidc_client_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Its secret there; empty for a public client, which PKCE alone protects.",
    )
    oidc_name: str = Field(
        default="single sign-on",
        description="What the sign-in button calls the provider, behind “Sign in with”.",
    )
    tls_cert: Path | None = Field(
        default=None, description="The certificate chain to serve HTTPS with (PEM)."
    )
    tls_key: Path | None = Field(default=None, description="The certificate's key (PEM).")
    outbound_networks: Networks = Field(
        default=(),
        description=(
            "The networks beside public addresses that the server may dial for a client, as"
            " 10.0.0.0/8 (where a CI system's keys are, say); loopback too where `listen` is on it"
            " and neither `public_url` nor `trusted_proxies` says that others come."
        ),
    )
    outbound_insecure_hosts: Texts = Field(
        default=(),
        description="The hosts that it may dial for a client without TLS, each HOST:PORT.",
    )
    outbound_ca_cert: Path | None = Field(
        default=None,
        description="Authorities that it trusts beside the system's when it dials (PEM).",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="JSON lines, columns, or columns on a terminal only."
    )
    startup_timeout: Duration = Field(
        default=timedelta(minutes=5),
        description=(
            "How long a starting server waits for a database or a bucket that it cannot reach."
        ),
    )
    shutdown_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="How long a stopping server waits for transfers that are under way.",
    )
    reaper_interval: Duration = Field(
        default=timedelta(seconds=60),
        description="How often what has expired is cleaned up.",
    )
    gc_grace: Duration = Field(
        default=timedelta(hours=1),
        description=(
            "How long a blob stays for a client that was told that it is there to name it in a"
            " manifest."
        ),
    )
    audit_retention: Duration = Field(
        default=timedelta(days=90),
        description="How long the audit log keeps what happened.",
    )
    sparse_images: bool = Field(
        default=False,
        description=(
            "Whether an image is taken some of whose blobs were never pushed, as a mirror of a part"
            " of it; pulling the whole of it fails then."
        ),
    )
    upload_lifetime: Duration = Field(
        default=timedelta(hours=24),
        description=(
            "How long an upload session that nobody continues is kept; where a quota leaves no"
            " room, ten minutes."
        ),
    )
    build_client_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="A build whose client is silent for so long is canceled, and not saved.",
    )
    builders: tuple[BuilderSettings, ...] = Field(
        default=(), description="The pool of BuildKit daemons; empty starts an embedded one."
    )
    builder_wait: Duration = Field(
        default=timedelta(minutes=2),
        description="How long a build waits for a healthy builder before it is told there is none.",
    )
    builder_listen: str = Field(
        default="",
        description=(
            "Where the embedded builder listens, HOST:PORT; on the host of `listen` and a free"
            " port when empty. Clients dial the host of `public_url`."
        ),
    )
    builder_cache: Size = Field(
        default=20 << 30, description="The most that the embedded builder's cache may take."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(init_settings, InitSettingsSource)
        config = init_settings.init_kwargs.pop(_CONFIG_PATH, None)
        toml = TomlConfigSettingsSource(settings_cls, toml_file=config)
        return (init_settings, env_settings, toml)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr) -> SecretStr:
        # Never repeated: there may be a password in it.
        if url.get_secret_value() and not url.get_secret_value().startswith(_DATABASES):
            raise ValueError("has to be postgresql://USER@HOST:PORT/DATABASE")
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(
        cls, networks: tuple[IPv4Network | IPv6Network, ...]
    ) -> tuple[IPv4Network | IPv6Network, ...]:
        for network in networks:
            if network.prefixlen == 0:
                raise ValueError(
                    f"{network} would let everybody say who they are: name the proxies' own"
                )
        return networks

    @field_validator("outbound_insecure_hosts")
    @classmethod
    def _check_insecure_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if _LISTEN.fullmatch(host) is None or _split(host)[1] > 65535:
                raise ValueError(f"each has to be HOST:PORT, not {host!r}")
        return hosts

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        for field, address in (("listen", self.listen), ("builder_listen", self.builder_listen)):
            is_given = address or field == "listen"
            if is_given and (_LISTEN.fullmatch(address) is None or _split(address)[1] > 65535):
                raise ValueError(f"{field} has to be HOST:PORT, not {address!r}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or none")
        for path in (self.tls_cert, self.tls_key, self.outbound_ca_cert):
            if path is not None and not path.is_file():
                raise ValueError(f"no file {path}")
        if self.public_url and _PUBLIC_URL.fullmatch(self.public_url) is None:
            raise ValueError(
                f"public_url has to be http(s)://HOST or http(s)://HOST:PORT, not"
                f" {self.public_url!r}: registries live at the root"
            )
        if self.blob_store_url and _BLOB_STORE_URL.fullmatch(self.blob_store_url) is None:
            raise ValueError(
                "blob_store_url has to be s3://BUCKET, gs://BUCKET or az://CONTAINER, with"
                " a /PREFIX or without"
            )
        if self.blob_store_endpoint and _ENDPOINT.fullmatch(self.blob_store_endpoint) is None:
            raise ValueError("blob_store_endpoint has to be http(s)://HOST or http(s)://HOST:PORT")
        if bool(self.oidc_issuer) != bool(self.oidc_client_id):
            raise ValueError("oidc_issuer and oidc_client_id go together: give both or none")
        if self.oidc_client_secret.get_secret_value() and not self.oidc_issuer:
            raise ValueError("oidc_client_secret is for an oidc_issuer, and none is given")
        if self.oidc_issuer and _ISSUER.fullmatch(self.oidc_issuer) is None:
            raise ValueError("oidc_issuer has to be http(s)://HOST, with a path or without")
        if bool(self.blob_store_access_key) != bool(self.blob_store_secret_key):
            raise ValueError(
                "blob_store_access_key and blob_store_secret_key go together: give both or none"
            )
        names = [builder.name for builder in self.builders]
        if len(set(names)) < len(names):
            raise ValueError("two builders have the same name")
        for field in (
            *("reaper_interval", "gc_grace", "upload_lifetime", "build_client_timeout"),
            "audit_retention",
        ):
            if getattr(self, field) <= timedelta(0):
                raise ValueError(f"{field} has to be longer than 0s")
        for field in ("startup_timeout", "shutdown_timeout", "builder_wait"):
            if getattr(self, field) < timedelta(0):
                raise ValueError(f"{field} cannot be less than 0s")
        return self

    @property
    def listen_host(self) -> str:
        return _split(self.listen)[0]

    @property
    def listen_port(self) -> int:
        return _split(self.listen)[1]

    @property
    def builder_address(self) -> tuple[str, int]:
        """The host and port that the embedded builder listens on; 0 for a free port."""
        return _split(self.builder_listen) if self.builder_listen else (self.listen_host, 0)

    @property
    def url(self) -> str:
        """How clients reach the server, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        # A wildcard is nobody's address; app.py warns that public_url is missing then.
        host = "127.0.0.1" if self.listens_on_all else self.listen.rpartition(":")[0]
        return f"{'https' if self.tls_cert else 'http'}://{host}:{self.listen_port}"

    @property
    def listens_on_all(self) -> bool:
        return self.listen_host in ("0.0.0.0", "::")  # noqa: S104  # compared, not bound

    @property
    def serves_loopback_alone(self) -> bool:
        """Whether only this machine's own clients reach the server: none through a proxy here."""
        public_host = urlsplit(self.public_url).hostname if self.public_url else self.listen_host
        return (
            _is_loopback(self.listen_host)
            and _is_loopback(public_host or "")
            and not self.trusted_proxies
        )

    @property
    def registry_host(self) -> str:
        """The registry's host as it stands in image references, with its port if it has one."""
        return urlsplit(self.url).netloc


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def load(config_path: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Build the settings; `config_path` None reads layover.toml in the working folder, if any.

    `overrides` are the flags that were given. Raises SettingsError, naming the setting.
    """
    if config_path is not None and not config_path.is_file():
        raise SettingsError(f"no settings file {config_path}")
    try:
        arguments: dict[str, Any] = {_CONFIG_PATH: config_path or DEFAULT_CONFIG_PATH}
        return Settings(**arguments, **(overrides or {}))
    except ValidationError as error:
        raise SettingsError(settings_problems.explain(error, Settings)) from error
    except EnvironmentUnreadable as error:
        raise SettingsError(f"{error}: {error.__cause__}") from error
    except (ValueError, OSError) as error:  # malformed TOML, or no permission to read it
        raise SettingsError(f"{config_path or DEFAULT_CONFIG_PATH}: {error}") from error


def unknown_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """The LAYOVER_* variables that nothing reads, each with the one that was probably meant.

    They are for a warning. A file is the server's alone, so an unknown key in it is an error; an
    environment is shared with clients, scripts and other releases, whose variables must not keep
    a server from starting.
    """
    return settings_problems.unknown_variables(environment, Settings)
