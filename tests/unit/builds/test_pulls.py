import pytest

from layover.builds.address import PublicAddress
from layover.builds.errors import (
    BuildNotSaved,
    BuildStillRunning,
    BuildUnknown,
    BuildUnsuccessful,
    ProjectNotGiven,
)
from layover.builds.models import BuildOptions, BuildStatus, SavedImage
from layover.builds.pulls import target_of
from layover.identity.models import ActionDenied, TokenKind
from tests.unit.builds.world import PROJECT, SISTER_PROJECT, World

pytestmark = pytest.mark.anyio


async def test_a_saved_build_is_pulled_by_its_id_with_a_token_that_only_pulls() -> None:
    world = World()
    build_id = await world.finished()
    info = await world.pulls.pull_info(world.user, build_id)
    assert info.reference == f"layover.example:5443/{PROJECT}:{build_id}"
    puller = await world.identity.authenticate(info.token)
    assert (puller.kind, puller.project_id, puller.build_id) == (
        TokenKind.PULL,
        PROJECT,
        build_id,
    )


async def test_a_running_build_is_not_pulled_yet() -> None:
    world = World()
    build_id = (await world.create()).build.id
    with pytest.raises(BuildStillRunning, match="still running"):
        await world.pulls.pull_info(world.user, build_id)


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (BuildStatus.FAILED, "exit code: 3", "failed: exit code: 3"),
        (BuildStatus.CANCELED, None, "was canceled; nothing"),
    ],
)
async def test_an_unsuccessful_build_says_why_there_is_nothing_to_pull(
    status: BuildStatus, error: str | None, text: str
) -> None:
    world = World()
    build_id = (await world.create()).build.id
    await world.builds.finish(world.user, build_id, status, error)
    with pytest.raises(BuildUnsuccessful, match=text):
        await world.pulls.pull_info(world.user, build_id)


async def test_a_build_that_was_never_saved_says_to_save_it() -> None:
    world = World()
    build_id = (await world.create([BuildOptions()])).build.id
    await world.builds.finish(world.user, build_id, BuildStatus.FINISHED)
    with pytest.raises(BuildNotSaved, match="--save"):
        await world.pulls.pull_info(world.user, build_id)


async def test_a_build_that_pushed_nothing_stays_finished_and_was_not_saved() -> None:
    world = World()
    build_id = await world.finished(pushed=False)
    assert await world.status(build_id) is BuildStatus.FINISHED
    with pytest.raises(BuildNotSaved, match="nothing of it is in the registry"):
        await world.pulls.pull_info(world.user, build_id)


async def test_another_organizations_build_reads_as_unknown() -> None:
    world = World()
    build_id = await world.finished()
    with pytest.raises(BuildUnknown):
        await world.pulls.pull_info(world.foreigner, build_id)
    with pytest.raises(BuildUnknown):
        await world.pulls.pull_token(world.foreigner, None, build_id)


async def test_a_pull_token_makes_no_pull_tokens() -> None:
    world = World()
    build_id = await world.finished()
    with pytest.raises(ActionDenied):
        await world.pulls.pull_info(world.puller, build_id)


async def test_a_pull_token_is_for_a_project_or_a_build() -> None:
    world = World()
    build_id = await world.finished()
    of_project = await world.pulls.pull_token(world.user, PROJECT, None)
    assert (await world.identity.authenticate(of_project)).build_id is None
    of_build = await world.pulls.pull_token(world.user, None, build_id)
    assert (await world.identity.authenticate(of_build)).build_id == build_id
    of_only_project = await world.pulls.pull_token(world.project_token, None, None)
    assert (await world.identity.authenticate(of_only_project)).project_id == PROJECT


async def test_a_pull_token_needs_a_project_that_fits() -> None:
    world = World()
    build_id = await world.finished()
    with pytest.raises(ProjectNotGiven):
        await world.pulls.pull_token(world.user, None, None)
    with pytest.raises(BuildUnknown):
        await world.pulls.pull_token(world.user, SISTER_PROJECT, build_id)


async def test_a_build_is_pushed_under_its_id_and_each_save_tag_once() -> None:
    world = World()
    options = [BuildOptions(save=True, save_tags=("main",)) for _ in range(2)]
    build = (await world.create(options)).build
    host = "layover.example:5443"
    assert world.pulls.address.pushed_references(build) == [
        f"{host}/{PROJECT}:{build.id}",
        f"{host}/{PROJECT}:main",
    ]


async def test_an_image_belongs_to_the_target_behind_the_builds_id() -> None:
    build = (await World().create()).build

    def target(tag: str) -> str | None:
        return target_of(build, SavedImage(tag, "sha256:0", (), 0))

    assert target(build.id) == ""
    assert target(f"{build.id}-web-app") == "web-app"
    assert target("main") is None


def test_a_public_address_may_end_with_a_slash() -> None:
    address = PublicAddress("http://127.0.0.1:5000/")
    assert address.build_url("abc") == "http://127.0.0.1:5000/builds/abc"
    assert address.registry_host == "127.0.0.1:5000"
