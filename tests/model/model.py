"""The registry in memory: what shows, until when, and what may be relied on.

Written from docs/decisions/0006 and the specification, not from the code: a retention holds the
only copy of its time and retains what it reaches; a lease makes nothing visible.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

Named = tuple[str, str]
"""A digest in a repository."""


@dataclass(frozen=True)
class Content:
    """A manifest, an index or a referrer: what it names."""

    digest: str
    body: bytes
    blobs: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()
    subject: str | None = None


@dataclass(eq=False)
class Retention:
    """Why content lives, and until when."""

    expires_at: datetime | None
    build_id: str | None = None
    roots: set[Named] = field(default_factory=set)
    """What was pushed for it."""
    retained: set[Named] = field(default_factory=set)
    """What it reaches from there."""
    is_over: bool = False

    def lives(self, now: datetime) -> bool:
        return not self.is_over and (self.expires_at is None or self.expires_at > now)


@dataclass
class Tag:
    digest: str
    retention: Retention
    build_id: str | None


@dataclass
class Link:
    """A blob in a repository."""

    shown_until: datetime | None = None


class Refused(Exception):
    """What the registry refuses, by the name of its error."""


class Unsure(Exception):
    """A lease that may be over or not: both outcomes are right."""


class Model:
    """Every method is told the time; what was refused has changed nothing."""

    def __init__(self, retention: timedelta, lease: timedelta) -> None:
        self.retention, self.lease = retention, lease
        self.contents: dict[str, Content] = {}
        self.retentions: list[Retention] = []
        self.tags: dict[Named, Tag] = {}
        # What running builds will have named, by their IDs.
        self.staged: dict[str, dict[Named, str]] = {}
        self.links: dict[Named, Link] = {}
        # When a client that may push was last told that it is there, blob or manifest.
        self.told: dict[Named, datetime] = {}
        # The same of what such a thing needs.
        self.covered: dict[Named, datetime] = {}
        self.stored: set[Named] = set()
        """Manifests that were ever pushed to a repository."""

    # -- What shows -------------------------------------------------------------------------------

    def live(self, now: datetime) -> list[Retention]:
        return [retention for retention in self.retentions if retention.lives(now)]

    def retaining(self, names: Iterable[Named], now: datetime) -> list[Retention]:
        wanted = set(names)
        return [retention for retention in self.live(now) if retention.retained & wanted]

    def shows_manifest(self, named: Named, now: datetime) -> bool:
        return bool(self.retaining([named], now))

    def shown_manifests(self, now: datetime) -> set[Named]:
        return {named for retention in self.live(now) for named in retention.retained}

    def tagged(self, repository: str, now: datetime) -> dict[str, str]:
        """The repository's tags and their digests."""
        return {
            name: tag.digest
            for (place, name), tag in self.tags.items()
            if place == repository and tag.retention.lives(now)
        }

    def referrers(self, subject: Named, now: datetime) -> set[str]:
        return {
            digest
            for repository, digest in self.shown_manifests(now)
            if repository == subject[0] and self.contents[digest].subject == subject[1]
        }

    def shows_blob(self, named: Named, now: datetime) -> bool:
        link = self.links.get(named)
        if link is None:
            return False
        if link.shown_until is not None and link.shown_until > now:
            return True
        return any(
            repository == named[0] and named[1] in self.contents[digest].blobs
            for repository, digest in self.shown_manifests(now)
        )

    def shown_blobs(self, now: datetime) -> set[Named]:
        return {named for named in self.links if self.shows_blob(named, now)}

    # -- What may be relied on --------------------------------------------------------------------

    def _is_leased(self, named: Named, now: datetime) -> bool:
        """Whether a client was told of it. Raises Unsure where it is there for another's sake."""
        if self._within(self.told, named, now):
            return True
        if self._within(self.covered, named, now):
            raise Unsure
        return False

    def _is_there(self, named: Named, now: datetime) -> bool:
        """Whether it shows, or a lease keeps it: its own or that of what needs it."""
        return self.shows_manifest(named, now) or (
            named in self.stored
            and (self._within(self.told, named, now) or self._within(self.covered, named, now))
        )

    def _within(self, told: dict[Named, datetime], named: Named, now: datetime) -> bool:
        """Raises Unsure in the last fifth of a lease, which need not have been renewed."""
        since = told.get(named)
        if since is None or now >= since + self.lease:
            return False
        if now < since + self.lease * 4 / 5:
            return True
        raise Unsure

    def is_usable(self, named: Named, now: datetime) -> bool:
        """Whether a manifest that is pushed may name the manifest."""
        return self.shows_manifest(named, now) or (
            named in self.stored and self._is_leased(named, now)
        )

    def tell(self, named: Named, now: datetime) -> None:
        """A client that may push hears that it is there, with all that it needs."""
        self.told[named] = now
        repository, digest = named
        if digest not in self.contents:
            return
        below = [self.contents[digest]]
        while below:
            one = below.pop()
            self.covered.update({(repository, blob): now for blob in one.blobs})
            for child in one.children:
                if self.shows_manifest((repository, child), now):
                    self.covered[repository, child] = now
                    below.append(self.contents[child])

    # -- Blobs ------------------------------------------------------------------------------------

    def bring(self, named: Named, now: datetime) -> None:
        """Upload a blob, or mount it from where it shows."""
        self.links.setdefault(named, Link()).shown_until = now + self.lease
        self.tell(named, now)

    def unlink(self, named: Named, now: datetime) -> None:
        if not self.shows_blob(named, now):
            raise Refused("BlobUnknown")
        for repository, digest in self.shown_manifests(now):
            if repository == named[0] and named[1] in self.contents[digest].blobs:
                raise Refused("BlobInUse")
        self.links[named].shown_until = None

    # -- Builds -----------------------------------------------------------------------------------

    def add_build(self, build_id: str) -> None:
        self.retentions.append(Retention(None, build_id))
        self.staged[build_id] = {}

    def of_build(self, build_id: str) -> Retention:
        return next(one for one in self.retentions if one.build_id == build_id)

    def end_build(self, build_id: str, now: datetime, *, is_good: bool) -> None:
        """All that it named is named so, or nothing of it is left."""
        retention = self.of_build(build_id)
        retention.expires_at = rounded(now + self.retention)
        staged = self.staged.pop(build_id)
        if is_good:
            for key, digest in staged.items():
                self.tags[key] = Tag(digest, retention, build_id)
            for repository, digest in retention.retained:
                self._end_lonely(repository, digest, now)
        else:
            retention.roots, retention.retained = set(), set()

    def keep_build(self, build_id: str, until: datetime, now: datetime) -> bool:
        """Raise an ended build's end; False when its time is over or has not begun."""
        retention = self.of_build(build_id)
        if not retention.lives(now) or retention.expires_at is None:
            return False
        retention.expires_at = max(retention.expires_at, rounded(until))
        return True

    def delete_build(self, build_id: str) -> None:
        self.of_build(build_id).is_over = True

    # -- Manifests --------------------------------------------------------------------------------

    def put(
        self,
        repository: str,
        content: Content,
        tags: Iterable[str],
        build_id: str | None,
        now: datetime,
    ) -> None:
        tags, named = list(tags), (repository, content.digest)
        own: Retention | None = None
        if build_id is not None:
            own = self.of_build(build_id)
            if not own.lives(now) or own.expires_at is not None:
                raise Refused("BuildOver")
        for tag in tags:
            self._check_tag(repository, tag, build_id, now)
        for blob in content.blobs:
            link = (repository, blob)
            if not self.shows_blob(link, now) and not (
                link in self.links and self._is_leased(link, now)
            ):
                raise Refused("ManifestBlobUnknown")
        reached = self._reach(repository, content, now)
        subject = [(repository, content.subject)] if content.subject else []
        of_subject = self.retaining(subject, now)
        parents = [
            (repository, digest)
            for place, digest in self.stored
            if place == repository and content.digest in self.contents[digest].children
        ]
        retentions = [*of_subject, *self.retaining(parents, now)]
        if own is None and (tags or not of_subject):
            own = self._pushed(named, now)
        if own is not None:
            own.roots.add(named)
            retentions.append(own)
        self.contents[content.digest] = content
        self.stored.add(named)
        for blob in content.blobs:
            self.links[repository, blob].shown_until = None
        for retention in retentions:
            retention.retained |= reached
        if build_id is None:
            self._end_lonely(repository, content.digest, now)
        self.tell(named, now)
        for tag in tags:
            assert own is not None
            if build_id is None:
                self.tags[repository, tag] = Tag(content.digest, own, None)
            else:
                self.staged[build_id][repository, tag] = content.digest

    def _pushed(self, named: Named, now: datetime) -> Retention:
        """The retention of a push outside of builds: the one that lives, from now on."""
        until = rounded(now + self.retention)
        for retention in self.live(now):
            if retention.build_id is None and retention.roots == {named}:
                assert retention.expires_at is not None
                retention.expires_at = max(retention.expires_at, until)
                return retention
        retention = Retention(until)
        self.retentions.append(retention)
        return retention

    def _reach(self, repository: str, content: Content, now: datetime) -> set[Named]:
        """What it names and what refers to that, as far as it may be relied on."""
        reached, new = set[Named](), [content]
        while new:
            one = new.pop()
            reached.add((repository, one.digest))
            # It may name what a client was told of; below that, what is kept for its sake too.
            may_name = self.is_usable if one is content else self._is_there
            next_ = {
                (repository, child) for child in one.children if may_name((repository, child), now)
            }
            next_ |= {
                named
                for named in self.shown_manifests(now)
                if named[0] == repository and self.contents[named[1]].subject == one.digest
            }
            new += [self.contents[digest] for _, digest in next_ - reached]
        return reached

    def _end_lonely(self, repository: str, subject: str, now: datetime) -> None:
        """Referrers that waited for their subject live as it does from now on."""
        tagged = {id(tag.retention) for tag in self.tags.values()}
        for retention in self.live(now):
            for place, digest in retention.roots:
                if (
                    retention.build_id is None
                    and place == repository
                    and self.contents[digest].subject == subject
                    and id(retention) not in tagged
                ):
                    retention.is_over = True

    def delete_manifest(self, named: Named, now: datetime) -> None:
        repository, digest = named
        if not self.shows_manifest(named, now):
            raise Refused("ManifestUnknown")
        if any(
            place == repository and digest in self.contents[other].children
            for place, other in self.shown_manifests(now)
        ):
            raise Refused("ManifestInUse")
        ours = {key: tag for key, tag in self.tags.items() if (key[0], tag.digest) == named}
        for (_, name), tag in ours.items():
            if tag.retention.lives(now) and tag.build_id and _is_named_for(name, tag.build_id):
                raise Refused("TagProtected")
        waiting = {
            build_id: [key for key, digest in names.items() if (key[0], digest) == named]
            for build_id, names in self.staged.items()
        }
        for build_id, keys in waiting.items():
            if any(_is_named_for(name, build_id) for _, name in keys):
                raise Refused("TagProtected")
        for key in ours:
            del self.tags[key]
        for build_id, keys in waiting.items():
            for key in keys:
                del self.staged[build_id][key]
        for retention in self.retentions:
            self._cut(retention, named)

    def _cut(self, retention: Retention, named: Named) -> None:
        """It retains what it still reaches without that manifest."""
        if named not in retention.retained:
            return
        retention.roots.discard(named)
        allowed = retention.retained - {named}
        reached, new = set[Named](), set(retention.roots) & allowed
        while new:
            reached |= new
            new = {
                (place, other)
                for place, other in allowed - reached
                for _, from_ in [one for one in reached if one[0] == place]
                if other in self.contents[from_].children or self.contents[other].subject == from_
            }
        retention.retained = reached
        if not retention.roots and retention.build_id is None:
            retention.is_over = True

    def delete_tag(self, repository: str, tag: str, now: datetime) -> None:
        found = self.tags.get((repository, tag))
        self._check_tag(repository, tag, None, now)
        if found is None or not found.retention.lives(now):
            raise Refused("ManifestUnknown")
        del self.tags[repository, tag]

    def _check_tag(self, repository: str, name: str, build_id: str | None, now: datetime) -> None:
        """A build's ID is its own from its creation on, in its project's own repository."""
        owners = {one.build_id for one in self.live(now) if one.build_id is not None} - {build_id}
        if "/" not in repository and any(_is_named_for(name, owner) for owner in owners):
            raise Refused("TagProtected")


def rounded(end: datetime) -> datetime:
    """Every end is on a whole second, not before it was due."""
    over = timedelta(microseconds=end.microsecond)
    return end if not over else end - over + timedelta(seconds=1)


def _is_named_for(tag: str, build_id: str) -> bool:
    return tag == build_id or tag.startswith(f"{build_id}-")
