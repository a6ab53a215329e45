"""What the registry needs: a store of bytes, and stores of what they mean."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from layover.oci.digest import Digest, Hash
from layover.oci.manifests import Manifest
from layover.oci.names import Reference, RepositoryName, Tag
from layover.registry.models import (
    Gone,
    Part,
    ReferrerPage,
    RepositoryPage,
    StoredBlob,
    StoredManifest,
    StoredObject,
    TagPage,
    Upload,
)


class BlobStore(Protocol):
    """Bytes by key, and how an upload's bytes come to be under one.

    Whoever writes under a key has recorded it in the database before, so that whatever a crash
    leaves has a row that names it, and nobody ever has to look for it. No key is used twice:
    what is being deleted is never what a later upload brings.

    Every method raises StorageFull or StorageUnavailable when the medium fails.
    """

    @property
    def grows_in_place(self) -> bool:
        """Whether an upload has one key, whose bytes grow and are durable once published.

        Otherwise each append has a key of its own, and is durable when it returns.
        """
        ...

    def place(self, upload_id: str) -> str:
        """The key for the upload's next append, or for what merges its parts."""
        ...

    async def size(self, key: str) -> int | None:
        """How many bytes there are under the key, None when there is nothing."""
        ...

    def read(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes]:
        """The key's bytes from `start` up to and without `stop`, in bounded pieces.

        Raises StorageUnavailable where they end before `stop`. What it holds open is given
        back when it ends or is closed.
        """
        ...

    async def delete(self, keys: Collection[str]) -> frozenset[str]:
        """Remove the keys' bytes, and return the keys of which nothing is left.

        Whoever wrote them may not have come to the end: what of them never became whole goes as
        well, and cannot become whole any more. Those that cannot be removed now are left out,
        and the log says why: nothing is raised.
        """
        ...

    def list_blobs(self) -> AsyncGenerator[StoredObject]:
        """Everything that takes space, in no order; what comes or goes meanwhile may be missing."""
        ...

    async def append(
        self,
        parts: Sequence[Part],
        key: str,
        chunks: AsyncIterator[bytes],
        hashes: Sequence[Hash],
        *,
        length: int | None = None,
    ) -> tuple[Part, ...]:
        """Write `chunks` behind `parts` and return the parts that there are then.

        `key` is a place of the upload's; `length` is how much was announced. Feeds `hashes`
        alongside. What lies behind `parts` from an attempt that was cut off is overwritten;
        parts that are not returned any more are the caller's to delete.
        """
        ...

    async def publish(self, parts: Sequence[Part], key: str, hashes: Sequence[Hash]) -> str:
        """Make `parts` the bytes of one key, durably, and return that key.

        It is the key of the only part, with nothing copied, or else `key`. `hashes` are fed all
        of the bytes, which have to be read for them.
        """
        ...


class UploadStore(Protocol):
    """Upload sessions, whose requests may each reach another replica: the row is the truth.

    Every method is one transaction. The keys that a session's end leaves behind are doomed in
    the same one, and returned: the caller may remove their bytes, the collector does anyway.
    """

    async def create_upload(self, upload: Upload, now: datetime) -> None:
        """Record a new session. Raises QuotaExceeded when its project may take nothing more."""
        ...

    async def reserve(
        self, upload_id: str, more_bytes: int, *, is_anew: bool = False
    ) -> int | None:
        """Count what a request of the session will bring for its project's quota; `is_anew` in
        place of what an earlier request announced, which is over.

        It counts until the session is resized or ends. Returns how many bytes are left then,
        None without a limit. Raises UploadUnknown, QuotaExceeded.
        """
        ...

    async def release_reservations(self, expires_before: datetime) -> None:
        """Let go of what requests announced whose sessions expire before that time."""
        ...

    async def find_upload(
        self, repository: RepositoryName, upload_id: str, now: datetime
    ) -> Upload | None:
        """The session, None when it is not this repository's or expired at `now`."""
        ...

    async def add_place(self, upload_id: str, key: str) -> None:
        """Record that a request of the session is about to write under `key`.

        Raises UploadUnknown.
        """
        ...

    async def resize_upload(self, before: Upload, after: Upload, now: datetime) -> frozenset[str]:
        """Record what the session holds now, unless another request did since `before` was read.

        Raises UploadUnknown, UploadBusy, UploadOutOfOrder, and QuotaExceeded when what came
        was not reserved and does not fit. Returns the keys of the parts that were superseded.
        """
        ...

    async def renew_uploads(
        self, upload_ids: Collection[str], now: datetime, expires_at: datetime, lease: timedelta
    ) -> None:
        """Let those of the sessions that there are expire at `expires_at`, and lease anew what
        their repositories were brought already and no manifest names: it belongs to a push whose
        last layer takes its time."""
        ...

    async def find_bytes(self, digest: Digest) -> StoredBlob | None:
        """The bytes that are kept for a digest, whoever may see them."""
        ...

    async def link_upload(
        self,
        upload: Upload,
        blob: StoredBlob,
        now: datetime,
        lease: timedelta,
        *,
        lost_key: str | None = None,
    ) -> None:
        """Show what became of a session in its repository, and forget the session.

        `upload` is the session as it was read; raises as `resize_upload` does when it is
        another by now. Bytes that are there already under the same digest are kept, and
        `blob`'s own are doomed, unless those that are there are known to be damaged or their
        key is `lost_key`.
        """
        ...

    async def find_places(self, upload_id: str) -> frozenset[str]:
        """The keys that a session's requests were let write to; none when it is gone."""
        ...

    async def delete_upload(
        self, upload_id: str, now: datetime, *, expired_by: datetime | None = None
    ) -> frozenset[str]:
        """Forget the session; nothing happens when there is none, or it expires later than that."""
        ...

    async def live_uploads(self, now: datetime) -> frozenset[str]:
        """The IDs of the sessions that have not expired."""
        ...

    async def expired_uploads(self, by: datetime, project_id: str | None = None) -> frozenset[str]:
        """The IDs of the sessions that have by then; of one project, where one is named."""
        ...


class RegistryStore(Protocol):
    """Repositories, links, manifests and tags. Every method is one transaction.

    `of_build` narrows what is read to what the live retention of that build retains: its
    manifests, the blobs that these need, and the tags that live as the build does.
    """

    async def find_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        now: datetime,
        of_build: str | None = None,
    ) -> StoredBlob | None:
        """The blob if the repository shows it at `now`."""
        ...

    async def lease_blob(
        self, repository: RepositoryName, digest: Digest, now: datetime, lease: timedelta
    ) -> StoredBlob | None:
        """As `find_blob`, for a client that may push and will rely on the answer.

        What it is told stays for `lease`, give or take a hundredth.
        """
        ...

    async def mount_blob(
        self,
        source: RepositoryName | None,
        target: RepositoryName,
        digest: Digest,
        now: datetime,
        lease: timedelta,
    ) -> bool:
        """Link what `source` shows into `target`, under a lease; False when it shows no such blob.

        Without `source`, what any repository of the target's project shows.
        """
        ...

    async def unlink_blob(self, repository: RepositoryName, digest: Digest, now: datetime) -> None:
        """Hide the blob from the repository's readers. Raises BlobUnknown, BlobInUse."""
        ...

    async def put_manifest(
        self,
        repository: RepositoryName,
        stored: StoredManifest,
        manifest: Manifest,
        names: Sequence[Tag],
        build_id: str | None,
        now: datetime,
        *,
        lease: timedelta = timedelta(0),
        may_miss_blobs: bool = False,
    ) -> None:
        """Store a manifest and let the tags `names` name it, all or nothing: at once, or from the
        end of the build on that it is of.

        For `lease` an index may name it, however short its life is.

        It lives as the build `build_id` does, which has to live still; without one, for its
        project's retention from now on, or as its subject does. Raises ManifestBlobUnknown, with
        `may_miss_blobs` only for blobs that were there; TagProtected, BuildOver.
        """
        ...

    async def find_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        now: datetime,
        *,
        build_id: str | None = None,
        of_build: str | None = None,
    ) -> StoredManifest | None:
        """The manifest if the repository shows it at `now`; to the running build `build_id` also
        under the tags that it will have at its end."""
        ...

    async def lease_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        now: datetime,
        lease: timedelta,
        *,
        pushes: bool,
        build_id: str | None = None,
    ) -> StoredManifest | None:
        """As `find_manifest`, for a client that may push and will rely on the answer.

        What it is told stays for `lease`, give or take a hundredth, with all that it needs.
        `pushes`: the client asks because it pushes, the build `build_id` if it is one's, and
        leaves it at that when it is there. It is not while the tag is another build's save tag
        or becomes one: then the push has to come, for the tag to live as what was pushed last.
        """
        ...

    async def extend_pulled(
        self,
        repository: RepositoryName,
        digest: Digest,
        now: datetime,
        of_build: str | None = None,
    ) -> None:
        """Let what was pulled live for the project's retention from now on, if the project
        says that a pull does so; with `of_build` that build alone."""
        ...

    async def delete_manifest(
        self, repository: RepositoryName, digest: Digest, now: datetime
    ) -> None:
        """Hide a manifest and the tags that name it. Raises ManifestUnknown, ManifestInUse,
        TagProtected."""
        ...

    async def delete_tag(self, repository: RepositoryName, tag: Tag, now: datetime) -> None:
        """Remove a tag, not what it names. Raises ManifestUnknown, TagProtected."""
        ...

    async def find_gone(
        self, repository: RepositoryName, reference: Reference, now: datetime
    ) -> Gone | None:
        """What became of a tag or manifest that the repository does not show."""
        ...

    async def list_tags(
        self,
        repository: RepositoryName,
        limit: int | None,
        after: str | None,
        now: datetime,
        of_build: str | None = None,
    ) -> TagPage: ...

    async def list_repositories(
        self,
        project_ids: Collection[str],
        limit: int | None,
        after: str | None,
        now: datetime,
        of_build: str | None = None,
    ) -> RepositoryPage:
        """The projects' repositories that show a manifest."""
        ...

    async def list_referrers(
        self,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        after: Digest | None,
        now: datetime,
        of_build: str | None = None,
    ) -> ReferrerPage:
        """The manifests whose subject is `subject`, by digest, behind `after`.

        A page holds about a MiB of annotations at most, and one referrer at least.
        """
        ...
