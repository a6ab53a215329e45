"""The exception tree that callers and interfaces rely on.

    LayoverError                    everything that a caller can act on
    ├── RegistryError               registry/: mapped to OCI codes in http/oci/errors.py
    ├── IdentityError               identity/: mapped by every interface
    ├── InvalidAuditQuery           audit/: mapped to a Connect code in http/rpc/errors.py
    ├── PushError                   promotion/: mapped to Connect codes in http/rpc/errors.py
    ├── BuildError                  builds/: mapped to Connect codes in http/rpc/errors.py
    ├── StorageError                what an adapter cannot do: StorageFull, StorageUnavailable
    ├── SettingsError               settings.py: told at start, exit code 2
    ├── DialForbidden,
    │   DocumentUnavailable         outbound/: told as the port of whoever asks has it
    ├── ClientGone                  http/blob_pushes.py: told to nobody
    ├── DatabaseUnusable            adapters/sql/migrate.py: told at start
    ├── MaintenanceError            maintenance/: told by `layover admin`
    └── CliError, ClientError       cli/ and client/: told to a user, exit codes in cli/errors.py

Each part declares its own leaves beside its models. Errors hold facts (repository, digest,
limit), never a status; anything that is not a LayoverError is a bug.
"""


class LayoverError(Exception):
    """The base of every error that Layover raises on purpose. Its text is shown to clients."""


class StorageError(LayoverError):
    """A store could not do what it was asked to."""


class StorageFull(StorageError):
    """The disk, or the database on it, has no room left."""

    def __init__(self) -> None:
        super().__init__("the server's storage is full: nothing of this request was kept")


class StorageUnavailable(StorageError):
    """A store failed to read or write; trying again may help."""

    def __init__(
        self, reason: str = "the server's storage failed: try again, and see the server's log"
    ) -> None:
        super().__init__(reason)
