"""Where a request came from: what throttling and the audit log know of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """A request's client, as far as the network tells."""

    address: str = ""
    """The client's IP address, behind proxies too; empty where none is known."""
    user_agent: str = ""
    """What the client calls itself: its own word, cut and made printable."""
    request_id: str = ""
    """What the request's log lines and its answer (X-Request-ID) carry."""
