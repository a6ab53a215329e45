import pytest

from layover.builds.builders import Connection, Platforms
from layover.builds.connections import Pending
from layover.builds.errors import (
    BuildEnded,
    BuildersUnavailable,
    BuilderUnhealthy,
    BuildUnknown,
    NoBuilderConfigured,
)
from layover.builds.models import BuildStatus
from tests.unit.builds.memory import MemoryBuilder
from tests.unit.builds.world import World

pytestmark = pytest.mark.anyio

AMD, ARM = "linux/amd64", "linux/arm64"


async def connect(world: World, build_id: str, platform: str = AMD) -> Connection:
    connection = await world.connections.connect(world.user, build_id, platform)
    assert isinstance(connection, Connection)
    return connection


async def test_a_connection_starts_the_build_and_carries_its_own_certificate() -> None:
    world = World(MemoryBuilder("one"))
    build_id = (await world.create()).build.id
    connection = await connect(world, build_id)
    assert (connection.endpoint, connection.server_name) == ("tcp://one:1234", "one")
    assert connection.credentials is not None
    assert connection.credentials.cert == f"cert of {build_id}"
    assert await world.status(build_id) is BuildStatus.RUNNING
    assert await world.store.count_leases() == {"one": 1}


async def test_each_platform_of_a_build_has_its_native_builder() -> None:
    world = World(MemoryBuilder("amd", AMD, emulated=[ARM]), MemoryBuilder("arm", ARM))
    build_id = (await world.create()).build.id
    assert (await connect(world, build_id, AMD)).builder == "amd"
    assert (await connect(world, build_id, ARM)).builder == "arm"


async def test_a_build_that_asks_again_gets_the_same_builder_and_no_second_lease() -> None:
    world = World(MemoryBuilder("one"), MemoryBuilder("two"))
    build_id = (await world.create()).build.id
    first = await connect(world, build_id)
    assert (await connect(world, build_id)).builder == first.builder
    assert await world.store.count_leases() == {first.builder: 1}


async def test_the_lease_of_an_ended_build_is_released() -> None:
    world = World(MemoryBuilder("one"))
    build_id = (await world.create()).build.id
    await connect(world, build_id)
    await world.builds.finish(world.user, build_id, BuildStatus.FINISHED)
    assert await world.store.count_leases() == {}


async def test_a_builder_that_died_is_passed_over_at_once() -> None:
    builders = [MemoryBuilder("one"), MemoryBuilder("two")]
    world = World(*builders)
    build_id = (await world.create()).build.id
    first = (await connect(world, build_id)).builder
    dead = next(builder for builder in builders if builder.name == first)
    dead.trouble = BuilderUnhealthy("connection refused")
    world.clock.advance(seconds=2)
    assert (await connect(world, build_id)).builder != first


async def test_a_builder_without_readable_certificates_is_passed_over() -> None:
    class Unreadable(MemoryBuilder):
        async def credentials(self, build_id: str) -> None:
            raise BuilderUnhealthy("cannot read its certificates")

    world = World(Unreadable("unreadable"))
    build_id = (await world.create()).build.id
    assert isinstance(await world.connections.connect(world.user, build_id, AMD), Pending)
    assert world.pool.troubles()[0][1] == "cannot read its certificates"


async def test_a_build_waits_while_no_builder_is_healthy_and_then_is_told_why() -> None:
    builder = MemoryBuilder("one")
    builder.trouble = BuilderUnhealthy("connection refused")
    world = World(builder)
    build_id = (await world.create()).build.id
    for _ in range(4):
        waiting = await world.connections.connect(world.user, build_id, AMD)
        assert isinstance(waiting, Pending)
        assert waiting.retry_after.total_seconds() == 1
        # Waiting is a sign of life.
        assert await world.watch(seconds=30) == []
    with pytest.raises(
        BuildersUnavailable, match=r"after 120 s: one \(tcp://one:1234\): connection refused"
    ):
        await world.connections.connect(world.user, build_id, AMD)


async def test_a_waiting_build_gets_the_builder_that_comes() -> None:
    builder = MemoryBuilder("one")
    builder.trouble = BuilderUnhealthy("connection refused")
    world = World(builder)
    build_id = (await world.create()).build.id
    assert isinstance(await world.connections.connect(world.user, build_id, AMD), Pending)
    builder.trouble = None
    assert (await connect(world, build_id)).builder == "one"


async def test_a_build_does_not_wait_for_what_only_a_person_can_bring() -> None:
    builder = MemoryBuilder("embedded")
    builder.trouble = BuilderUnhealthy("buildkitd was not found: install", can_recover=False)
    world = World(builder)
    build_id = (await world.create()).build.id
    with pytest.raises(BuildersUnavailable, match="buildkitd was not found: install"):
        await world.connections.connect(world.user, build_id, AMD)


async def test_a_server_without_builders_says_so() -> None:
    world = World()
    build_id = (await world.create()).build.id
    with pytest.raises(NoBuilderConfigured):
        await world.connections.connect(world.user, build_id, AMD)


async def test_an_ended_build_gets_no_builder() -> None:
    world = World(MemoryBuilder("one"))
    build_id = await world.finished()
    with pytest.raises(BuildEnded):
        await world.connections.connect(world.user, build_id, AMD)


async def test_a_build_that_ends_while_it_is_placed_gets_no_lease() -> None:
    class EndsMeanwhile(MemoryBuilder):
        async def check(self) -> Platforms:
            await world.builds.finish(world.user, build_id, BuildStatus.CANCELED)
            return await super().check()

    world = World(EndsMeanwhile("one"))
    build_id = (await world.create()).build.id
    with pytest.raises(BuildEnded):
        await world.connections.connect(world.user, build_id, AMD)
    assert await world.store.count_leases() == {}


async def test_a_foreign_build_is_unknown_here_too() -> None:
    world = World(MemoryBuilder("one"))
    build_id = (await world.create()).build.id
    with pytest.raises(BuildUnknown):
        await world.connections.connect(world.foreigner, build_id, AMD)
