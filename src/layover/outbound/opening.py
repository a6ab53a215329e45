"""The outbound client that the settings say."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx
import structlog

from layover.outbound.client import outbound_client
from layover.outbound.rules import LOOPBACK, OutboundRules, host_port
from layover.settings import Settings, SettingsError

_log = structlog.get_logger(__name__)


def outbound_rules(settings: Settings, *, for_pushes: bool = False) -> OutboundRules:
    """Where a server with these settings may dial for its clients.

    `for_pushes` lets one that serves its own machine alone reach registries there without TLS, as
    Docker does: nobody's ID tokens are verified by keys that came so. Where users sign in is for
    the others: it is no registry.
    """
    networks = settings.outbound_networks
    if settings.serves_loopback_alone:
        # Only those who can reach this machine's loopback themselves can ask it to.
        networks += LOOPBACK
    insecure = frozenset(_named(host) for host in settings.outbound_insecure_hosts)
    hosts: frozenset[str] = frozenset()
    if settings.oidc_issuer and not for_pushes:
        # The administrator's own word: it may be in a private network, and without TLS.
        issuer = urlsplit(settings.oidc_issuer)
        port = issuer.port or (443 if issuer.scheme == "https" else 80)
        hosts = frozenset({host_port(issuer.hostname or "", port)})
        insecure |= hosts if issuer.scheme == "http" else frozenset()
    plain_loopback = for_pushes and settings.serves_loopback_alone
    return OutboundRules(networks, insecure, hosts, plain_loopback)


def open_outbound(settings: Settings, *, for_pushes: bool = False) -> httpx.AsyncClient:
    """A client of a server by `outbound_rules`: one for everything but pushes, which says in the
    log what it allows beside public addresses, and another for pushes, which may keep all of their
    connections busy for a long time.

    Raises SettingsError when `outbound_ca_cert` cannot be used.
    """
    rules = outbound_rules(settings, for_pushes=for_pushes)
    if settings.serves_loopback_alone and not for_pushes:
        _log.info("outbound_loopback_allowed", listen=settings.listen)
    try:
        return outbound_client(rules, settings.outbound_ca_cert, refused=_log_refused)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"outbound_ca_cert: cannot use {settings.outbound_ca_cert}: {error}"
        ) from error


def _log_refused(host: str, port: int, addresses: Sequence[str]) -> None:
    _log.warning("dial_forbidden", host=host, port=port, addresses=list(addresses))


def _named(text: str) -> str:
    host, _, port = text.rpartition(":")
    return host_port(host, int(port))
