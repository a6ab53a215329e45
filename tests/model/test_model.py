"""Everything in any order and at once, against the registry in memory (model.py)."""

import asyncio
import contextlib
import copy
import json
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, update

from layover.adapters.sql import schema
from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import migrate
from layover.adapters.sql.retention import SqlRetentionStore
from layover.builds.models import Build, BuildOptions, BuildStatus
from layover.errors import LayoverError, StorageFull, StorageUnavailable
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from layover.oci.names import RepositoryName, Tag
from layover.registry.blobs import BlobService
from layover.registry.manifests import Audience, ManifestService
from layover.registry.models import StoredBlob
from layover.registry.uploads import UploadService
from layover.retention.collector import LEASE as COLLECTOR_LEASE_TIME
from layover.retention.collector import Collector
from layover.retention.receipts import KEY_BYTES, ReceiptService
from tests.model.model import Content, Model, Refused, Unsure
from tests.objects import S3Server
from tests.postgres import Postgres
from tests.stores import NOW, Stores, descriptor, image, index, opened, pieces

RETENTION = timedelta(hours=2)
LEASE = timedelta(hours=1)
REPOSITORIES = ("mine", "mine/other", "foreign/app")
# Of a collector that was killed.
COLLECTOR_LEASE = COLLECTOR_LEASE_TIME + timedelta(seconds=1)
BUILD_IDS = ("build00001", "build00002", "build00003")
# One of them is a build's own, from when there is that build.
TAGS = ("latest", "v1", BUILD_IDS[0])
BLOBS = {str(Digest.of(content)): content for content in (b"{}", b"one", b"two", b"three")}

EXAMPLES, STEPS = 30, 30

CONTENT_TABLES = (
    schema.blobs,
    schema.repository_blobs,
    schema.manifests,
    schema.manifest_references,
    schema.retained_manifests,
    schema.staged_tags,
    schema.tags,
    schema.uploads,
    schema.doomed_objects,
)

Result = TypeVar("Result")


# The first one the more often, so that things meet.
PLACES = st.sampled_from((REPOSITORIES[0], *REPOSITORIES))
STEPS_OF_TIME = st.sampled_from(
    [
        timedelta(seconds=5),
        LEASE / 2,
        LEASE + timedelta(seconds=1),
        RETENTION - timedelta(seconds=7),
        RETENTION + timedelta(seconds=2),
    ]
)


class Killed(Exception):
    """The process ends here."""


class Doomed:
    """A store whose process is killed after so many calls, before or after the last one's work."""

    def __init__(self, store: Any, calls: list[int]) -> None:
        self._store, self._calls = store, calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method):
            return method

        async def call(*arguments: Any, **more: Any) -> Any:
            self._calls[0] -= 1
            if self._calls[0] < 0:
                raise Killed
            result = await method(*arguments, **more)
            if self._calls[0] == 0:
                raise Killed
            return result

        return call


class Failing:
    """A blob store whose medium fails once: with the call of that number that touches it."""

    def __init__(self, blobs: Any, fails_at: int, *, is_full: bool) -> None:
        self._blobs, self._left, self._is_full = blobs, fails_at, is_full

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._blobs, name)
        if name not in ("append", "publish", "delete", "size"):
            return attribute

        async def call(*arguments: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                if name == "delete":
                    # It never raises: what it cannot remove is left out.
                    return frozenset()
                raise StorageFull if self._is_full else StorageUnavailable
            return await attribute(*arguments, **more)

        return call


class Registry(RuleBasedStateMachine):
    """One registry and its model; each rule does the same to both and compares what came of it."""

    open: Callable[[], AbstractContextManager[Stores]]

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.stores: Stores = self.exits.enter_context(self.open())
        self.runner = self.exits.enter_context(asyncio.Runner())
        self.now = NOW
        self.model = Model(RETENTION, LEASE)
        self.builds_made: list[str] = []
        self.made: dict[str, Content] = {}
        with self.stores.database.engine.begin() as connection:
            connection.execute(
                update(schema.projects).values(retention_seconds=int(RETENTION.total_seconds()))
            )
        store, blobs = self.stores.registry, self.stores.blobs
        self.blobs = BlobService(store, blobs, self._now, LEASE)
        self.manifests = ManifestService(store, self._now, LEASE)
        self.uploads = UploadService(self.stores.uploads, blobs, self._now, LEASE, LEASE)
        self.builds = SqlBuildStore(self.stores.database)
        self.retention = SqlRetentionStore(self.stores.database)
        self.collections = 0

    def teardown(self) -> None:
        try:
            self._let_all_end()
        finally:
            self.exits.close()

    def _now(self) -> Any:
        return self.now

    # -- Doing it to both -------------------------------------------------------------------------

    def do(self, work: Awaitable[Result], *, collecting: bool = False) -> Result:
        """Do it, alone or while a collector runs: which of them is first makes no difference."""

        async def both() -> Result:
            if not collecting:
                return await work
            # Both to their ends, also where one of them fails.
            async with asyncio.TaskGroup() as group:
                group.create_task(self._collector().run_once())
                done = await asyncio.gather(work, return_exceptions=True)
            if isinstance(done[0], BaseException):
                raise done[0]
            return done[0]

        self.now += timedelta(milliseconds=1)
        return self.runner.run(both())

    def outcome(self, work: Awaitable[object], *, collecting: bool = False) -> str | None:
        """The error's name that came of it."""
        try:
            self.do(work, collecting=collecting)
        except LayoverError as error:
            return type(error).__name__
        return None

    def _collector(self, killed_after: int | None = None, blobs: Any = None) -> Collector:
        self.collections += 1
        store: Any = self.retention
        blobs = blobs or self.stores.blobs
        if killed_after is not None:
            calls = [killed_after]
            store, blobs = Doomed(store, calls), Doomed(blobs, calls)
        return Collector(
            store,
            blobs,
            ReceiptService(store, bytes(KEY_BYTES), self._now, LEASE),
            self._now,
            f"collector-{self.collections}",
            LEASE,
            timedelta(minutes=1),
            elapsed=lambda: (self.now - NOW).total_seconds(),
        )

    # -- Rules: content ---------------------------------------------------------------------------

    contents: Bundle[Content] = Bundle("contents")

    @initialize(target=contents)
    def first(self) -> Any:
        one, two = self._image("one"), self._image("one", "two")
        return multiple(one, two, self.an_index([one, two]), self._image("three", subject=one))

    def _image(self, *layers: str, mark: str = "", subject: Content | None = None) -> Content:
        more: dict[str, Any] = {"annotations": {"mark": mark}}
        if subject is not None:
            more["subject"] = descriptor(OCI_MANIFEST, subject.body)
        body = image(*(layer.encode() for layer in layers), **more)
        named = [b"{}", *(layer.encode() for layer in layers)]
        return self._made(
            Content(
                str(Digest.of(body)),
                body,
                blobs=frozenset(str(Digest.of(blob)) for blob in named),
                subject=subject.digest if subject else None,
            )
        )

    @rule(target=contents, children=st.lists(contents, min_size=1, max_size=2))
    def an_index(self, children: list[Content]) -> Content:
        document = json.loads(index())
        document["manifests"] = [
            descriptor(json.loads(child.body)["mediaType"], child.body) for child in children
        ]
        body = json.dumps(document).encode()
        digests = frozenset(child.digest for child in children)
        return self._made(Content(str(Digest.of(body)), body, children=digests))

    def _made(self, content: Content) -> Content:
        self.made[content.digest] = content
        return content

    @rule(target=contents, subject=contents, layer=st.sampled_from(["one", "three"]))
    def a_referrer(self, subject: Content, layer: str) -> Content:
        return self._image(layer, subject=subject)

    # -- Rules: pushing ---------------------------------------------------------------------------

    # Few rules, so that a history has enough of what matters: pushes and time.

    @rule(
        what=st.sampled_from(["bring", "fail", "head", "mount", "delete"]),
        repository=PLACES,
        into=PLACES,
        blob=st.sampled_from(sorted(BLOBS)),
        fails_at=st.integers(0, 4),
        collecting=st.booleans(),
    )
    def do_to_a_blob(
        self, what: str, repository: str, into: str, blob: str, fails_at: int, collecting: bool
    ) -> None:
        match what:
            case "bring":
                self.bring((repository, blob), collecting)
            case "fail":
                self.bring_a_blob_to_a_medium_that_fails(
                    repository, blob, fails_at, is_full=collecting
                )
            case "head":
                self.head_blob(repository, blob, collecting)
            case "mount":
                self.mount(repository, into, blob, collecting)
            case "delete":
                self.delete_blob(repository, blob, collecting)

    @rule(
        what=st.sampled_from(["manifest", "manifest", "tag"]),
        repository=PLACES,
        content=contents,
        tag=st.sampled_from((*TAGS, *BUILD_IDS)),
        collecting=st.booleans(),
    )
    def delete(
        self, what: str, repository: str, content: Content, tag: str, collecting: bool
    ) -> None:
        if what == "tag":
            self.delete_tag(repository, tag, collecting)
        else:
            self.delete_manifest(repository, content, collecting)

    def bring_blobs(self, repository: str, content: Content, collecting: bool) -> None:
        """As a client does before it pushes the manifest: what is there is not sent again."""
        for blob in sorted(content.blobs):
            if not self._head_blob((repository, blob), collecting):
                self.bring((repository, blob), collecting)

    def bring(self, named: tuple[str, str], collecting: bool) -> None:
        repository, blob = named
        work = self.uploads.push(
            RepositoryName(repository), Digest.parse(blob), pieces(BLOBS[blob])
        )
        self.do(work, collecting=collecting)
        self.model.bring(named, self.now)

    def bring_a_blob_to_a_medium_that_fails(
        self, repository: str, blob: str, fails_at: int, is_full: bool
    ) -> None:
        """The blob is there or it is not; what the attempt wrote takes no space in the end."""
        blobs: Any = Failing(self.stores.blobs, fails_at, is_full=is_full)
        uploads = UploadService(self.stores.uploads, blobs, self._now, LEASE, LEASE)
        content = Digest.parse(blob), pieces(BLOBS[blob])
        failed = self.outcome(uploads.push(RepositoryName(repository), *content))
        if failed is None:
            self.model.bring((repository, blob), self.now)
        else:
            assert failed == ("StorageFull" if is_full else "StorageUnavailable")

    def head_blob(self, repository: str, blob: str, collecting: bool) -> None:
        self._head_blob((repository, blob), collecting)

    def _head_blob(self, named: tuple[str, str], collecting: bool) -> bool:
        work = self.blobs.find(RepositoryName(named[0]), Digest.parse(named[1]), may_push=True)
        refused = self.outcome(work, collecting=collecting)
        shown = self.model.shows_blob(named, self.now)
        assert refused == (None if shown else "BlobUnknown"), (named, refused)
        if shown:
            self.model.tell(named, self.now)
        return shown

    def mount(self, source: str, into: str, blob: str, collecting: bool) -> None:
        work = self.blobs.mount(RepositoryName(source), RepositoryName(into), Digest.parse(blob))
        mounted = self.do(work, collecting=collecting)
        assert mounted is self.model.shows_blob((source, blob), self.now)
        if mounted:
            self.model.bring((into, blob), self.now)

    @rule(repository=PLACES, content=contents, collecting=st.booleans())
    def ask_for_a_manifest(self, repository: str, content: Content, collecting: bool) -> None:
        self.head_manifest(repository, content, collecting)

    def head_manifest(self, repository: str, content: Content, collecting: bool) -> bool:
        """As a client does that may push an index of it."""
        work = self.manifests.find(
            RepositoryName(repository), Digest.parse(content.digest), Audience.WRITER
        )
        refused = self.outcome(work, collecting=collecting)
        named = (repository, content.digest)
        shown = self.model.shows_manifest(named, self.now)
        assert refused == (None if shown else "ManifestUnknown"), (named, refused)
        if shown:
            self.model.tell(named, self.now)
        return shown

    @rule(
        repository=PLACES,
        content=contents,
        tags=st.lists(st.sampled_from(TAGS), max_size=2, unique=True),
        meanwhile=st.sampled_from(["", "", "wait", "delete", "expire"]),
        victim=contents,
        collecting=st.booleans(),
    )
    def push(
        self,
        repository: str,
        content: Content,
        tags: list[str],
        meanwhile: str,
        victim: Content,
        collecting: bool,
    ) -> None:
        """A whole push, and what may happen between its questions and its manifest."""
        for digest in sorted(content.children):
            child = self.made[digest]
            if not self.head_manifest(repository, child, collecting):
                self.bring_blobs(repository, child, collecting)
                self._put(repository, child, [], None, collecting)
        self.bring_blobs(repository, content, collecting)
        match meanwhile:
            case "wait":
                self.now += LEASE / 2
            case "delete":
                self.delete_manifest(repository, victim, collecting)
            case "expire":
                ends = [one.expires_at for one in self.model.live(self.now) if one.expires_at]
                soon = self.now + LEASE / 2
                self.now = min([soon, *(end for end in ends if end > self.now)])
        if meanwhile:
            self.do(self._collector().run_once())
        self._put(repository, content, tags, None, collecting)

    @rule(
        repository=PLACES,
        content=contents,
        tags=st.lists(st.sampled_from(TAGS), max_size=2, unique=True),
        collecting=st.booleans(),
    )
    def put(self, repository: str, content: Content, tags: list[str], collecting: bool) -> None:
        self._put(repository, content, tags, None, collecting)

    @precondition(lambda self: self.builds_made)
    @rule(
        build=st.integers(0, len(BUILD_IDS) - 1),
        content=contents,
        tags=st.lists(st.sampled_from((*TAGS, "ID")), max_size=2, unique=True),
        collecting=st.booleans(),
    )
    def save(self, build: int, content: Content, tags: list[str], collecting: bool) -> None:
        """A build pushes, under its ID or a save tag."""
        build_id = self.builds_made[build % len(self.builds_made)]
        names = [build_id if tag == "ID" else tag for tag in tags]
        self.bring_blobs("mine", content, collecting)
        self._put("mine", content, names, build_id, collecting)

    def _put(
        self,
        repository: str,
        content: Content,
        tags: list[str],
        build_id: str | None,
        collecting: bool,
    ) -> None:
        # The time that both see.
        now = self.now + timedelta(milliseconds=1)
        trial = copy.deepcopy(self.model)
        expected = None
        try:
            trial.put(repository, content, tags, build_id, now)
        except Refused as error:
            expected = str(error)
        except Unsure:
            return
        work = self.manifests.put(
            RepositoryName(repository),
            Digest.parse(content.digest),
            content.body,
            None,
            build_id,
            [Tag(tag) for tag in tags],
        )
        assert self.outcome(work, collecting=collecting) == expected
        if expected is None:
            self.model = trial

    # -- Rules: deleting --------------------------------------------------------------------------

    def delete_manifest(self, repository: str, content: Content, collecting: bool) -> None:
        named = (repository, content.digest)
        work = self.manifests.delete(RepositoryName(repository), Digest.parse(content.digest))
        self._compare(lambda now: self.model.delete_manifest(named, now), work, collecting)

    def delete_tag(self, repository: str, tag: str, collecting: bool) -> None:
        work = self.manifests.delete(RepositoryName(repository), Tag(tag))
        self._compare(lambda now: self.model.delete_tag(repository, tag, now), work, collecting)

    def delete_blob(self, repository: str, blob: str, collecting: bool) -> None:
        named = (repository, blob)
        work = self.blobs.delete(RepositoryName(repository), Digest.parse(blob))
        self._compare(lambda now: self.model.unlink(named, now), work, collecting)

    def _compare(
        self, on_model: Callable[[datetime], None], work: Awaitable[object], collecting: bool
    ) -> None:
        """What the model refuses the registry refuses, for the same reason."""
        refused = self.outcome(work, collecting=collecting)
        expected = None
        try:
            on_model(self.now)
        except Refused as error:
            expected = str(error)
        assert refused == expected

    # -- Rules: builds ----------------------------------------------------------------------------

    def create_build(self) -> None:
        build_id = BUILD_IDS[len(self.builds_made)]
        self.builds_made.append(build_id)
        self.now += timedelta(milliseconds=1)
        build = Build(
            id=build_id,
            project_id="mine",
            status=BuildStatus.RUNNING,
            options=(BuildOptions(save=True),),
            created_at=self.now,
            seen_at=self.now,
            retention=RETENTION,
        )
        self.do(self.builds.add(build))
        self.model.add_build(build_id)

    @rule(
        build=st.integers(0, len(BUILD_IDS) - 1),
        what=st.sampled_from(["create", "end", "fail", "keep", "delete"]),
    )
    def change_build(self, build: int, what: str) -> None:
        if what == "create" or not self.builds_made:
            if len(self.builds_made) < len(BUILD_IDS):
                self.create_build()
            return
        build_id = self.builds_made[build % len(self.builds_made)]
        retention = self.model.of_build(build_id)
        now = self.now + timedelta(milliseconds=1)
        match what:
            case "end" | "fail":
                is_good = what == "end"
                status = BuildStatus.FINISHED if is_good else BuildStatus.FAILED
                ended = self.do(self.builds.end(build_id, status, None, now))
                assert ended is self._runs(build_id)
                if ended:
                    self.model.end_build(build_id, now, is_good=is_good)
            case "keep":
                until = now + 2 * RETENTION
                kept = self.do(self.builds.keep(build_id, until, now))
                expected = self.model.keep_build(build_id, until, now)
                assert kept == (retention.expires_at if expected else None)
            case "delete":
                # The service ends a running build first.
                ended = self.do(self.builds.end(build_id, BuildStatus.CANCELED, "deleted", now))
                assert ended is self._runs(build_id)
                if ended:
                    self.model.end_build(build_id, now, is_good=False)
                deleted = self.do(self.builds.delete(build_id, now))
                assert deleted is retention.lives(now)
                self.model.delete_build(build_id)

    def _runs(self, build_id: str) -> bool:
        return build_id in self.model.staged

    # -- Rules: time and collection ---------------------------------------------------------------

    @rule(
        step=STEPS_OF_TIME,
        then=st.sampled_from(["", "", "collect", "die", "fail"]),
        at=st.integers(0, 25),
    )
    def wait(self, step: timedelta, then: str, at: int) -> None:
        """Time goes by; a collector may run then, whole, up to its death or to an error."""
        self.now += step
        match then:
            case "collect":
                self.do(self._collector().run_once())
            case "die":
                # Whatever it left, the next one goes on, once the lease of the dead one is over.
                with contextlib.suppress(Killed):
                    self.do(self._collector(killed_after=at).run_once())
                if at % 2:
                    self.now += COLLECTOR_LEASE
            case "fail":
                failing = Failing(self.stores.blobs, at % 5, is_full=False)
                self.do(self._collector(blobs=failing).run_once())

    # -- What has to hold -------------------------------------------------------------------------

    @invariant()
    def tags_and_manifests_show_as_they_should(self) -> None:
        now, model = self.now, self.model
        for repository in REPOSITORIES:
            name = RepositoryName(repository)
            store = self.stores.registry
            page = self.ask(store.list_tags(name, None, None, now))
            tagged = model.tagged(repository, now)
            assert [tag.value for tag in page.tags] == sorted(tagged)
            for tag in {*TAGS, *self.builds_made}:
                found = self.ask(store.find_manifest(name, Tag(tag), now))
                assert (found and str(found.digest)) == tagged.get(tag), (repository, tag)
            for digest, content in model.contents.items():
                found = self.ask(store.find_manifest(name, Digest.parse(digest), now))
                shown = model.shows_manifest((repository, digest), now)
                assert (found is not None) is shown, (repository, digest, shown)
                assert found is None or found.body == content.body
                listed = self.ask(store.list_referrers(name, Digest.parse(digest), None, None, now))
                digests = {str(one.descriptor.digest) for one in listed.referrers}
                assert digests == model.referrers((repository, digest), now)

    @invariant()
    def blobs_show_as_they_should(self) -> None:
        for repository in REPOSITORIES:
            for digest, content in BLOBS.items():
                work = self.blobs.find(
                    RepositoryName(repository), Digest.parse(digest), may_push=False
                )
                shown = self.model.shows_blob((repository, digest), self.now)
                try:
                    blob = self.ask(work)
                except LayoverError:
                    assert not shown, (repository, digest)
                else:
                    assert shown, (repository, digest)
                    assert self.ask(self._bytes(blob)) == content

    def ask(self, work: Awaitable[Result]) -> Result:
        async def await_it() -> Result:
            return await work

        return self.runner.run(await_it())

    async def _bytes(self, blob: StoredBlob) -> bytes:
        return b"".join([piece async for piece in self.blobs.read(blob, 0, blob.size_bytes)])

    def _let_all_end(self) -> None:
        """Leases end first: then what shows is all that takes space. Then all ends."""
        self.now += LEASE + COLLECTOR_LEASE
        self._collect_all()
        shown = {digest for _, digest in self.model.shown_blobs(self.now)}
        assert self._stored() == sorted(len(BLOBS[digest]) for digest in shown)
        for build_id in self.builds_made:
            self.do(self.builds.end(build_id, BuildStatus.CANCELED, "over", self.now))
        self.now += 3 * RETENTION
        self._collect_all()
        assert self._stored() == []
        with self.stores.database.engine.connect() as connection:
            for table in CONTENT_TABLES:
                left = connection.execute(select(func.count()).select_from(table)).scalar_one()
                assert left == 0, table.name

    def _collect_all(self) -> None:
        # What one pass marks to be checked, such as an index's manifests, the next one may take.
        for _ in range(3):
            self.do(self.uploads.clean_up())
            assert self.do(self._collector().run_once())
            self.now += COLLECTOR_LEASE

    def _stored(self) -> list[int]:
        async def sizes() -> list[int]:
            return sorted([one.size_bytes async for one in self.stores.blobs.list_blobs()])

        return self.ask(sizes())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of thousands of histories, of which none is the one that failed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()


def run_model(
    open_: Callable[[], AbstractContextManager[Stores]], examples: int, steps: int
) -> None:
    """Run so many histories of so many steps, each on stores that `open_` opens empty."""

    class Opened(Registry):
        open = staticmethod(open_)

    with _quiet():
        run_state_machine_as_test(
            Opened,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


Opener = Callable[[], AbstractContextManager[Stores]]


@contextmanager
def on_sqlite() -> Iterator[Opener]:
    """SQLite and files."""
    with tempfile.TemporaryDirectory(prefix="layover-model-") as template:
        # Migrated once, to make the others from: that takes no time.
        with opened(Path(template)):
            pass

        @contextmanager
        def open_() -> Iterator[Stores]:
            with tempfile.TemporaryDirectory(prefix="layover-model-") as folder:
                shutil.copy(Path(template) / "layover.db", folder)
                with opened(Path(folder)) as stores:
                    yield stores

        yield open_


@contextmanager
def on_postgres(postgres: Postgres, s3: S3Server) -> Iterator[Opener]:
    """PostgreSQL and S3."""
    name = postgres.create()
    database = Database(postgres.url(name))
    migrate(database.engine)
    database.close()

    @contextmanager
    def open_() -> Iterator[Stores]:
        with (
            tempfile.TemporaryDirectory(prefix="layover-model-") as folder,
            postgres.database(name) as url,
            opened(Path(folder), url, s3.bucket()) as stores,
        ):
            yield stores

    yield open_


def test_the_registry_is_what_the_model_says_on_sqlite_and_files() -> None:
    with on_sqlite() as open_:
        run_model(open_, examples=EXAMPLES, steps=STEPS)


def test_the_registry_is_what_the_model_says_on_postgresql_and_s3(
    postgres: Postgres, s3: S3Server
) -> None:
    with on_postgres(postgres, s3) as open_:
        run_model(open_, examples=EXAMPLES // 3, steps=STEPS)
