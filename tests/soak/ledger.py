"""What has to show and what must not, known from the clock alone.

The server stamps a push between the request's start and its answer, so that from outside a
manifest's end is known as a window: before it the manifest has to show, behind it it must not,
and within both are right.
"""

import asyncio
import math
from dataclasses import dataclass, field

from tests.soak.content import Blob, Manifest


@dataclass(slots=True)
class Life:
    """Until when something surely shows, and from when on it surely does not."""

    shows_until: float = 0.0
    gone_from: float = 0.0

    def renew(self, began: float, ended: float, seconds: float) -> None:
        """A push between these times gave it so long, up to a whole second."""
        if seconds == math.inf:
            self.shows_until = self.gone_from = seconds
            return
        self.shows_until = max(self.shows_until, math.ceil(began + seconds))
        self.gone_from = max(self.gone_from, math.ceil(ended + seconds))

    def doubt(self, gone_from: float) -> None:
        """Something that may or may not have happened lets it show until then."""
        self.gone_from = max(self.gone_from, gone_from)

    def end(self, began: float, ended: float) -> None:
        """A deletion between these times ended it."""
        self.shows_until = min(self.shows_until, began)
        self.gone_from = min(self.gone_from, ended)

    def shown(self, began: float, ended: float) -> bool | None:
        """Whether a request between these times has to find it; None where both are right."""
        if ended < self.shows_until:
            return True
        if began >= self.gone_from:
            return False
        return None


@dataclass(slots=True, eq=False)
class Node:
    """A manifest in a repository: its own life, and those whose life it shares."""

    manifest: Manifest
    own: Life = field(default_factory=Life)
    kept_by: list["Node"] = field(default_factory=list)
    """The index it is of, or its subject."""

    @property
    def life(self) -> Life:
        lives = [self.own, *(keeper.life for keeper in self.kept_by)]
        return Life(max(life.shows_until for life in lives), max(life.gone_from for life in lives))


@dataclass(slots=True, eq=False)
class Unit:
    """What one push brings and one actor at a time works on: an image or an index under a tag."""

    repository: str
    tag: str
    top: Node
    children: list[Node]
    retention: float
    """In seconds; infinity where nothing expires."""
    build_id: str | None = None
    referrers: list[Node] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def nodes(self) -> list[Node]:
        return [self.top, *self.children, *self.referrers]

    def renew_referrers(self, began: float, ended: float) -> None:
        """The unit is pushed between these times: what refers to it and shows lives with it from
        now on, and what does not show stays gone."""
        for node in self.referrers:
            match node.life.shown(began, ended):
                case True:
                    node.kept_by, node.own = [self.top], Life()
                case False:
                    node.kept_by = []
                case None:
                    node.kept_by, node.own = [], Life(0, math.inf)

    @property
    def gone_from(self) -> float:
        """When nothing of it shows any more."""
        return max(node.life.gone_from for node in self.nodes)

    @property
    def own_blobs(self) -> list[Blob]:
        """The blobs that no other unit names: each image's config."""
        return [node.manifest.blobs[0] for node in self.nodes if node.manifest.blobs]


class Ledger:
    """Every unit of a run."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.buried: list[Unit] = []

    def bury(self, unit: Unit) -> None:
        """Forget a unit that is gone, but for the last look at the end of the run."""
        if unit in self.units:
            self.units.remove(unit)
            self.buried.append(unit)
