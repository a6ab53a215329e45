"""A run: actors that do a workload's events at once, and the look at what is left of them."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests.soak.actors import Actor, Place, Sizes
from tests.soak.client import RegistryClient
from tests.soak.cluster import Cluster
from tests.soak.content import Blob
from tests.soak.journal import Journal
from tests.soak.ledger import Ledger, Unit

MIB = 1 << 20

# What lives for ever is bounded by deleting: a run is as long as one likes.
_MOST_KEPT = 400
_LAST_LOOKS = 300
_SAMPLE_SECONDS = 1.0
_UPLOAD_SECONDS = 30


@dataclass(frozen=True)
class Workload:
    """How often which event happens, and to how much."""

    weights: Mapping[str, int]
    pool: tuple[int, ...]
    """The sizes of the layers that everybody pushes."""
    own: tuple[int, ...]
    """The sizes of the others."""


# The kinds of the published workload are pushes, pulls, referrers and expiries.
WORKLOADS = {
    "mixed": Workload(
        {
            "push": 28,
            "push again": 6,
            "push as it expires": 4,
            "pull": 34,
            "refer": 8,
            "gone": 8,
            "mount": 4,
            "abandon": 2,
            "delete": 3,
            "delete a child": 1,
            "save a build": 3,
            "delete a build": 1,
        },
        pool=(200, 3_000, 70_000) * 20,
        own=(1, 700, 20_000),
    ),
    "load": Workload(
        {"push": 40, "pull": 60},
        pool=(MIB // 2, MIB, 3 * MIB) * 10,
        own=(200_000, MIB, 2 * MIB),
    ),
}


@dataclass(frozen=True)
class Plan:
    """How much, for how long, and from which seed."""

    workload: Workload
    seed: int
    clients: int
    grace: int
    """How long leases last, in seconds."""
    retentions: tuple[float, ...]
    """A project for each of these seconds, beside one where what is pushed stays."""
    reaper_interval: int = 1
    # Whichever comes first ends it.
    events: float = math.inf
    seconds: float = math.inf
    kills: float = math.inf
    kill_every: float | None = None

    @property
    def upload_lifetime(self) -> int:
        """How long a session lives after its last request, in seconds: longer than one waits on a
        machine that has more to do."""
        return max(self.grace, _UPLOAD_SECONDS)


@dataclass
class Samples:
    """What the servers took over time."""

    memory: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)

    def report(self) -> str:
        lines = []
        for name, values in (("memory", self.memory), ("stored", self.stored)):
            quarters = [_median(part) // MIB for part in _quarters(values)]
            most = max(values, default=0) // MIB
            lines.append(f"{name}, MiB, median of each quarter: {quarters}, at most {most}")
        return "\n".join(lines)

    def memory_grows(self) -> bool:
        """Whether the last quarter took clearly more than the second one.

        A server takes its first minute to have everything that it needs.
        """
        parts = _quarters(self.memory)
        return len(self.memory) > 240 and _median(parts[3]) > 1.2 * _median(parts[1]) + 16 * MIB


def _quarters(values: list[int]) -> list[list[int]]:
    size = max(1, len(values) // 4)
    return [values[start : start + size] for start in range(0, size * 4, size) if values]


def _median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2] if values else 0


class Run:
    """Everything that one run's actors share."""

    def __init__(
        self, plan: Plan, cluster: Cluster, client: RegistryClient, journal: Journal
    ) -> None:
        self.plan, self.cluster, self.client, self.journal = plan, cluster, client, journal
        self.ledger, self.samples = Ledger(), Samples()
        self._random = random.Random(f"{plan.seed}")
        self._ends_at = time.time() + plan.seconds
        pool = tuple(
            Blob(f"{plan.seed}/pool/{number}", size)
            for number, size in enumerate(plan.workload.pool)
        )
        self.sizes = Sizes(pool, plan.workload.own)

    @property
    def is_over(self) -> bool:
        return (
            time.time() > self._ends_at
            or self.journal.event_count >= self.plan.events
            or self.cluster.kills >= self.plan.kills
        )

    # -- The events -------------------------------------------------------------------------------

    async def go(self, places: list[Place]) -> None:
        """Do the workload, then look at everything once more."""
        side = [asyncio.create_task(self._sample())]
        if self.plan.kill_every is not None:
            killing = self.cluster.kill_now_and_then(self.plan.kill_every, self._random)
            side.append(asyncio.create_task(killing))
        actors = [self._actor(number) for number in range(self.plan.clients)]
        try:
            async with asyncio.TaskGroup() as group:
                for actor in actors:
                    group.create_task(self._act(actor, places))
        finally:
            for task in side:
                task.cancel()
            await asyncio.gather(*side, return_exceptions=True)
        await self.cluster.all_started()
        await self._look_at_the_end(actors)

    def _actor(self, number: int) -> Actor:
        name = f"{self.plan.seed}/{number}"
        return Actor(name, self.client, self.ledger, self.journal, self.sizes, self.plan.grace)

    async def _act(self, actor: Actor, places: list[Place]) -> None:
        kinds, weights = zip(*self.plan.workload.weights.items(), strict=True)
        while not self.is_over:
            (kind,) = actor.random.choices(kinds, weights)
            if not await self._do(kind, actor, places):
                # Nothing to do it to yet.
                await self._push(actor, places)

    async def _push(self, actor: Actor, places: list[Place]) -> None:
        kept = sum(1 for unit in self.ledger.units if unit.retention == math.inf)
        allowed = [place for place in places if place.retention < math.inf or kept < _MOST_KEPT]
        if not allowed:
            if not await self._do("delete", actor, places):
                await asyncio.sleep(0.05)
            return
        unit = actor.new_unit(actor.random.choice(allowed))
        async with unit.lock:
            with self.journal.event("push", **_facts(unit)):
                await actor.push(unit)

    async def _do(self, kind: str, actor: Actor, places: list[Place]) -> bool:
        """Do an event of that kind; False when there is nothing to do it to."""
        if kind == "push":
            await self._push(actor, places)
            return True
        if kind == "abandon":
            with self.journal.event(kind):
                await actor.abandon(actor.random.choice(places).repositories[0])
            return True
        if kind == "save a build":
            with self.journal.event(kind):
                await actor.save_build(actor.random.choice(places))
            return True
        unit = self._choose(actor, _SUITABLE[kind])
        if unit is None:
            return False
        async with unit.lock:
            if not _SUITABLE[kind](unit):
                return False
            with self.journal.event(kind, **_facts(unit)):
                await self._do_to(kind, unit, actor, places)
        return True

    async def _do_to(self, kind: str, unit: Unit, actor: Actor, places: list[Place]) -> None:
        match kind:
            case "push again":
                await actor.push(unit)
            case "push as it expires":
                moment = unit.top.life.shows_until + actor.random.uniform(-0.3, 0.3)
                await asyncio.sleep(max(0, moment - time.time()))
                await actor.push(unit)
            case "pull":
                await actor.pull(unit)
            case "refer":
                await actor.refer(unit)
            case "gone":
                await actor.check_gone(unit)
                if actor.random.random() < 0.7:
                    self.ledger.bury(unit)
            case "mount":
                # Where nobody looks for what is gone: there it shows for a while.
                await actor.mount(unit, f"{actor.random.choice(places).project_id}/mounts")
            case "delete":
                await actor.delete(unit)
            case "delete a child":
                await actor.delete_child(unit)
            case "delete a build":
                await actor.delete_build(unit)

    def _choose(self, actor: Actor, suits: Callable[[Unit], bool]) -> Unit | None:
        """A unit that suits and that nobody works on."""
        for _ in range(30 if self.ledger.units else 0):
            unit = actor.random.choice(self.ledger.units)
            if not unit.lock.locked() and suits(unit):
                return unit
        return None

    async def _sample(self) -> None:
        while True:
            self.samples.memory.append(self.cluster.memory())
            stored = await asyncio.to_thread(self.cluster.stored_bytes)
            self.samples.stored.append(stored)
            await asyncio.sleep(_SAMPLE_SECONDS)

    # -- The end ----------------------------------------------------------------------------------

    async def _look_at_the_end(self, actors: list[Actor]) -> None:
        """Pull all that lives, see that the rest goes, then delete all and see the bytes go."""
        await self._verify()
        everything = [*self.ledger.units, *self.ledger.buried]
        kept = [unit for unit in everything if unit.gone_from == math.inf]
        mortal = [unit for unit in everything if unit.gone_from < math.inf]
        await self._for_each("last pull", kept, actors, lambda actor, unit: actor.pull(unit))
        last = max((unit.gone_from for unit in mortal), default=0.0)
        await asyncio.sleep(max(0.0, last - time.time()))
        self._random.shuffle(mortal)
        await self._for_each(
            "last look at what is gone",
            mortal[:_LAST_LOOKS],
            actors,
            lambda actor, unit: actor.check_gone(unit),
        )
        await self._for_each("last pull", kept, actors, lambda actor, unit: actor.pull(unit))
        print(f"stored for {len(kept)} kept: {self.cluster.stored_bytes()} bytes", flush=True)
        await self._for_each("last delete", kept, actors, _delete_all_of)
        await self._see_all_go()

    async def _verify(self) -> None:
        found = await asyncio.to_thread(self.cluster.verify)
        if found is not None:
            self.journal.violation(f"layover admin verify says:\n{found}")

    async def _for_each(
        self,
        kind: str,
        units: list[Unit],
        actors: list[Actor],
        work: Callable[[Actor, Unit], Awaitable[None]],
    ) -> None:
        """Do `work` to each unit, as many at once as there are actors."""
        left = iter(units)

        async def act(actor: Actor) -> None:
            for unit in left:
                with self.journal.event(kind, **_facts(unit)):
                    await work(actor, unit)

        async with asyncio.TaskGroup() as group:
            for actor in actors:
                group.create_task(act(actor))

    async def _see_all_go(self) -> None:
        """Nothing lives: within the grace time, an interval and a little, nothing takes space."""
        began = time.time()
        patience = self.plan.grace + self.plan.upload_lifetime + 3 * self.plan.reaper_interval + 10
        while True:
            bytes_left, rows_left = self.cluster.stored_bytes(), self.cluster.left_over()
            took = time.time() - began
            if not bytes_left and not rows_left:
                print(f"everything was collected {took:.1f} s after the last deletion")
                return
            if took > patience:
                self.journal.violation(
                    f"{took:.0f} s after everything went there are {bytes_left} bytes and"
                    f" {dict(rows_left)} rows"
                )
                return
            await asyncio.sleep(0.5)


async def _delete_all_of(actor: Actor, unit: Unit) -> None:
    if unit.build_id and unit.top.own.gone_from == math.inf:
        await actor.delete_build(unit)
    # What was pushed by its digest has a life of its own.
    for node in unit.nodes:
        if node.own.gone_from == math.inf:
            await actor.delete_node(unit, node)


def _facts(unit: Unit) -> dict[str, str]:
    return {
        "repository": unit.repository,
        "tag": unit.tag,
        "manifests": " ".join(node.manifest.digest for node in unit.nodes),
    }


def _shows(unit: Unit) -> bool:
    return time.time() < unit.top.life.shows_until


def _is_pushed(unit: Unit) -> bool:
    return unit.build_id is None


_SUITABLE: Mapping[str, Callable[[Unit], bool]] = {
    # An end that is under way suits too: then both outcomes are right, and none is half of one.
    "pull": lambda unit: True,
    "push again": _is_pushed,
    "push as it expires": lambda unit: (
        _is_pushed(unit) and -0.2 < unit.top.life.shows_until - time.time() < 1.5
    ),
    "refer": lambda unit: len(unit.referrers) < 4,
    "gone": lambda unit: unit.gone_from < time.time(),
    "mount": lambda unit: True,
    "delete": lambda unit: _is_pushed(unit) and _shows(unit),
    "delete a child": lambda unit: bool(unit.children) and _is_pushed(unit),
    "delete a build": lambda unit: not _is_pushed(unit) and _shows(unit),
}
