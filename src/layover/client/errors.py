"""What can go wrong between a client and its server, as a caller can act on it.

    ClientError
    ├── ServerUnreachable    nothing answered: trying again may help
    ├── NotTrusted           its certificate is signed by nobody that we trust
    ├── NotLayover           something answered that does not speak this API
    ├── TokenRefused         no token, or one that the server does not know
    ├── AccessRefused        a token that may not do this
    ├── NotFound             an unknown build or project, or another project's
    ├── RequestRefused       the server says why it will not do it
    └── ServerFailed         the server's own fault

The server's sentence is kept as it is: it knows the facts.
"""

from layover.errors import LayoverError


class ClientError(LayoverError):
    """A request to the server did not do what it was for."""


class ServerUnreachable(ClientError):
    """Nothing answered at the server's address, or the answer broke off."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(f"cannot reach the server at {url}: {cause or 'no answer'}")
        self.url = url


class NotTrusted(ClientError):
    """The server's certificate is not to be trusted: trying again is no help."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the certificate of the server at {url} is not trusted: {reason}")
        self.url = url


class NotLayover(ClientError):
    """Something answered at the server's address, but not this API."""

    def __init__(self, url: str) -> None:
        super().__init__(f"what answers at {url} does not serve this part of Layover's API")
        self.url = url


class TokenRefused(ClientError):
    """The server wants a token and knows none like the one it was given."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the server at {url} refused the token: {reason or 'unknown token'}")
        self.url = url


class AccessRefused(ClientError):
    """The token is known, and may not do this."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason or "this token may not do that")


class NotFound(ClientError):
    """There is no such build or project for this token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason or "not found")


class RequestRefused(ClientError):
    """The server understood the request and says why it will not do it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason or "the server refused the request")


class ServerFailed(ClientError):
    """The server failed at something that should have worked."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the server at {url} failed: {reason or 'no reason given'}")
        self.url = url
