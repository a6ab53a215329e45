"""What can keep the client from getting a push into a registry, in words for its user.

    ClientError
    ├── LoginMissing        the registry asks who it is, and nobody says
    ├── LoginUnusable       what is kept for it cannot be read, or is of no use there
    ├── LoginRefused        the registry knows no such user, or the password is another
    ├── HelperFailed        the program that keeps it did not give it
    ├── RegistryUnreachable nothing answers that speaks as a registry does: trying again may help
    ├── RegistryNotTrusted  its certificate is signed by nobody that we trust
    └── RealmRefused        it names a place to sign in at that gets no password of ours

None holds a secret, and none quotes what a registry said: it could say back what it was told.
"""

from layover.client.errors import ClientError


class LoginMissing(ClientError):
    """The registry asks for a login, and there is none for it on this machine."""

    def __init__(self, registry: str) -> None:
        super().__init__(
            f"{registry} asks for a login, and there is none for it here. Run"
            f" `docker login {registry}` and push again"
        )
        self.registry = registry


class LoginUnusable(ClientError):
    """What is kept as a login for the registry is none."""

    def __init__(self, registry: str, source: str, reason: str) -> None:
        super().__init__(
            f"cannot use {source} to log in to {registry}: {reason}. Correct it, or run"
            f" `docker login {registry}`"
        )
        self.registry, self.source = registry, source


class LoginRefused(ClientError):
    """The registry does not take the login that there is for it."""

    def __init__(self, registry: str, source: str) -> None:
        super().__init__(
            f"{registry} refused the login from {source}. Run `docker login {registry}` with one"
            " that may push there, and push again"
        )
        self.registry, self.source = registry, source


class HelperFailed(ClientError):
    """The credential helper that Docker's configuration names for the registry gave no answer."""

    def __init__(self, helper: str, registry: str, reason: str) -> None:
        super().__init__(
            f"the credential helper {helper} did not give the login for {registry}: {reason}. Have"
            " it answer, or take it out of credHelpers or credsStore in Docker's config.json"
        )
        self.helper, self.registry = helper, registry


class RegistryUnreachable(ClientError):
    """The registry, or where it has clients sign in, does not answer as a registry does."""

    def __init__(self, registry: str, reason: str) -> None:
        super().__init__(f"cannot log in to {registry}: {reason}")
        self.registry = registry


class RegistryNotTrusted(ClientError):
    """A certificate is signed by nobody that we trust: trying again is no help."""

    def __init__(self, registry: str, reason: str) -> None:
        super().__init__(
            f"cannot log in to {registry}: its certificate is not trusted: {reason}. Name who"
            " signed it in SSL_CERT_FILE"
        )
        self.registry = registry


class RealmRefused(ClientError):
    """Where the registry has clients sign in is no place to send a password to."""

    def __init__(self, registry: str, realm: str, reason: str) -> None:
        super().__init__(
            f"{registry} asks for its login to be sent to {realm}, {reason}. Nothing was sent"
        )
        self.registry, self.realm = registry, realm
