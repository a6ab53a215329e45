import pytest
from connectrpc.code import Code

from layover.builds.models import BuildOptions, BuildStatus, Command, Dockerfile, LogEntry, Step
from layover.http.rpc.convert import to_timestamp
from layover.rpc.layover.v1 import builds_pb as pb
from tests.unit.builds.memory import START
from tests.unit.builds.world import PROJECT
from tests.unit.http.rpc.api import HOST, Api, bearer, make_api, refusal

pytestmark = pytest.mark.anyio


async def baked(api: Api) -> str:
    """A finished bake of two targets with two images, a save tag, steps, a log, a Dockerfile."""
    world = api.world
    options = [
        BuildOptions(
            command=Command.BAKE,
            save=True,
            target_name=name,
            tags=(f"{name}:1",),
            save_tags=("v1",),
        )
        for name in ("db", "web")
    ]
    build = (await world.create(options)).build
    world.images.save(build.id, f"{build.id}-db", f"{build.id}-web", "v1-db")
    await world.reports.report(
        world.user,
        build.id,
        [Step("sha256:a", "RUN make", started_at=START, error="a warning")],
        [LogEntry("sha256:a", START, 1, b"hello\n"), LogEntry("sha256:a", START, 2, b"\xff")],
    )
    await world.reports.report_dockerfiles(
        world.user, build.id, [Dockerfile("web", "web.Dockerfile", "FROM scratch")]
    )
    await world.builds.finish(world.user, build.id, BuildStatus.FINISHED)
    return build.id


async def test_a_build_is_shown_with_its_images_steps_and_dockerfiles() -> None:
    api = await make_api()
    build_id = await baked(api)
    response = await api.own.get_build(pb.GetBuildRequest(build_id=build_id), headers=api.user)
    build = response.build
    assert build is not None
    assert (build.status, build.command, build.save) == (pb.BuildStatus.FINISHED, "bake", True)
    assert list(build.tags) == ["db:1", "web:1"]
    assert [(image.target, image.reference) for image in build.images] == [
        ("db", f"{HOST}/{PROJECT}:{build_id}-db"),
        ("web", f"{HOST}/{PROJECT}:{build_id}-web"),
    ]
    assert list(build.images[0].platforms) == ["linux/amd64"]
    assert build.size_bytes == 3000
    (step,) = response.steps
    assert (step.name, step.started_at, step.error) == (
        "RUN make",
        to_timestamp(START),
        "a warning",
    )
    (file,) = response.dockerfiles
    assert (file.target, file.contents) == ("web", "FROM scratch")


async def test_a_listing_has_sizes_and_every_state() -> None:
    api = await make_api()
    build_id = await baked(api)
    api.world.clock.advance(seconds=1)
    new = (await api.create()).build_id
    response = await api.own.list_builds(pb.ListBuildsRequest(project_id=PROJECT), headers=api.user)
    assert [(build.id, build.status, build.size_bytes) for build in response.builds] == [
        (new, pb.BuildStatus.CREATED, 0),
        (build_id, pb.BuildStatus.FINISHED, 3000),
    ]


async def test_a_log_is_streamed_in_order() -> None:
    api = await make_api()
    build_id = await baked(api)
    request = pb.GetBuildLogRequest(build_id=build_id)
    entries = [entry async for entry in api.own.get_build_log(request, headers=api.user)]
    assert [(entry.stream, entry.message) for entry in entries] == [(1, b"hello\n"), (2, b"\xff")]


async def test_a_deleted_build_reads_as_unknown_to_everybody() -> None:
    api = await make_api()
    build_id = await baked(api)
    await api.own.delete_build(pb.DeleteBuildRequest(build_id=build_id), headers=api.user)
    for headers in (api.user, api.foreigner):
        request = pb.GetBuildRequest(build_id=build_id)
        code, _ = await refusal(api.own.get_build(request, headers=headers))
        assert code is Code.NOT_FOUND


async def test_another_organizations_build_is_neither_shown_nor_deleted() -> None:
    api = await make_api()
    theirs = await baked(api)

    async def log(build_id: str) -> None:
        request = pb.GetBuildLogRequest(build_id=build_id)
        async for _ in api.own.get_build_log(request, headers=api.foreigner):
            raise AssertionError("a foreign log")

    async def answers(build_id: str) -> list[tuple[Code, str]]:
        show = pb.GetBuildRequest(build_id=build_id)
        delete = pb.DeleteBuildRequest(build_id=build_id)
        told = [
            await refusal(api.own.get_build(show, headers=api.foreigner)),
            await refusal(api.own.delete_build(delete, headers=api.foreigner)),
            await refusal(log(build_id)),
        ]
        return [(code, text.replace(build_id, "ID")) for code, text in told]

    assert await answers(theirs) == await answers("aaaaaaaaaa")
    assert await api.world.store.find(theirs) is not None


async def test_a_pull_token_sees_and_deletes_no_builds() -> None:
    api = await make_api()
    build_id = await baked(api)
    puller = bearer(await api.world.token(api.world.puller))
    request = pb.DeleteBuildRequest(build_id=build_id)
    assert (await refusal(api.own.delete_build(request, headers=puller)))[
        0
    ] is Code.PERMISSION_DENIED
