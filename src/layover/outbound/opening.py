"""The outbound client that the settings say."""

from urllib.parse import urlsplit

import httpx
import structlog

from layover.outbound.client import outbound_client
from layover.outbound.rules import LOOPBACK, OutboundRules, host_port
from layover.settings import Settings, SettingsError

_log = structlog.get_logger(__name__)


def outbound_rules(settings: Settings) -> OutboundRules:
    """Where a server with these settings may dial for its clients."""
    networks = settings.outbound_networks
    if settings.listens_on_loopback:
        # Only those who can reach this machine's loopback themselves can ask it to.
        networks += LOOPBACK
    insecure = frozenset(_named(host) for host in settings.outbound_insecure_hosts)
    hosts: frozenset[str] = frozenset()
    if settings.oidc_issuer:
        # The administrator's own word: it may be in a private network, and without TLS.
        issuer = urlsplit(settings.oidc_issuer)
        port = issuer.port or (443 if issuer.scheme == "https" else 80)
        hosts = frozenset({host_port(issuer.hostname or "", port)})
        insecure |= hosts if issuer.scheme == "http" else frozenset()
    return OutboundRules(networks, insecure, hosts)


def open_outbound(settings: Settings) -> httpx.AsyncClient:
    """The one client of a server, which says in the log what it allows beside public addresses.

    Raises SettingsError when `outbound_ca_cert` cannot be used.
    """
    rules = outbound_rules(settings)
    if settings.listens_on_loopback:
        _log.info("outbound_loopback_allowed", listen=settings.listen)
    try:
        return outbound_client(rules, settings.outbound_ca_cert)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"outbound_ca_cert: cannot use {settings.outbound_ca_cert}: {error}"
        ) from error


def _named(text: str) -> str:
    host, _, port = text.rpartition(":")
    return host_port(host, int(port))
