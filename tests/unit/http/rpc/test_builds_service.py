from datetime import timedelta

import pytest
from connectrpc.code import Code
from protobuf.wkt import Duration

from layover.builds.models import BuildOptions, BuildStatus, Command, Dockerfile, LogEntry, Step
from layover.http.rpc.convert import to_timestamp
from layover.retention.models import StoredReceipt
from layover.rpc.depot.cli.v1 import build_pb as depot
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


async def test_a_build_says_when_it_is_gone_once_it_has_ended() -> None:
    api = await make_api()
    request = depot.CreateBuildRequest(project_id=PROJECT, retention=Duration(seconds=36 * 3600))
    created = await api.builds.create_build(request, headers=api.user)
    assert created.retention == Duration(seconds=36 * 3600)

    async def listed() -> pb.Build:
        listing = pb.ListBuildsRequest(project_id=PROJECT)
        (build,) = (await api.own.list_builds(listing, headers=api.user)).builds
        return build

    assert (await listed()).expires_at is None
    assert (await listed()).retention == Duration(seconds=36 * 3600)
    await api.world.builds.finish(api.world.user, created.build_id, BuildStatus.FINISHED)
    assert (await listed()).expires_at == to_timestamp(START + timedelta(hours=36))


@pytest.mark.parametrize(
    ("retention", "reason"),
    [
        (Duration(), "has to be 1s or longer"),
        (Duration(seconds=-3600), "has to be 1s or longer"),
        (Duration(seconds=91 * 86400), "over this project's maximum of 90d"),
        (Duration(seconds=1 << 62), "are no time to keep anything"),
    ],
)
async def test_a_retention_that_cannot_be_is_refused(retention: Duration, reason: str) -> None:
    api = await make_api()
    build_id = await baked(api)
    create = depot.CreateBuildRequest(project_id=PROJECT, retention=retention)
    keep = pb.KeepBuildRequest(build_id=build_id, retention=retention)
    for call in (
        api.builds.create_build(create, headers=api.user),
        api.own.keep_build(keep, headers=api.user),
    ):
        code, text = await refusal(call)
        assert code is Code.INVALID_ARGUMENT
        assert reason in text


async def test_a_kept_build_lives_from_now_on_and_never_shorter() -> None:
    api = await make_api()
    build_id = await baked(api)

    async def keep(days: int) -> object:
        request = pb.KeepBuildRequest(build_id=build_id, retention=Duration(seconds=days * 86400))
        return (await api.own.keep_build(request, headers=api.user)).expires_at

    api.world.clock.advance(days=1)
    assert await keep(days=14) == to_timestamp(START + timedelta(days=15))
    assert await keep(days=1) == to_timestamp(START + timedelta(days=15))
    request = pb.KeepBuildRequest(build_id=build_id)
    assert (await refusal(api.own.keep_build(request, headers=api.user)))[0] is (
        Code.INVALID_ARGUMENT
    )


async def test_a_build_that_runs_is_not_kept() -> None:
    api = await make_api()
    build_id = (await api.create()).build_id
    request = pb.KeepBuildRequest(build_id=build_id, retention=Duration(seconds=60))
    code, text = await refusal(api.own.keep_build(request, headers=api.user))
    assert (code, "is still running" in text) == (Code.FAILED_PRECONDITION, True)


async def test_what_has_expired_is_told_to_who_could_see_it() -> None:
    api = await make_api()
    build_id = await baked(api)
    api.world.clock.advance(days=7)
    show = pb.GetBuildRequest(build_id=build_id)
    keep = pb.KeepBuildRequest(build_id=build_id, retention=Duration(seconds=60))
    delete = pb.DeleteBuildRequest(build_id=build_id)
    for call in (
        api.own.get_build(show, headers=api.user),
        api.own.keep_build(keep, headers=api.user),
        api.own.delete_build(delete, headers=api.user),
    ):
        code, text = await refusal(call)
        assert code is Code.NOT_FOUND
        assert "expired at 2026-03-08T12:00:00Z" in text
    assert await refusal(api.own.get_build(show, headers=api.foreigner)) == (
        Code.NOT_FOUND,
        f"unknown build '{build_id}'",
    )


async def test_a_receipt_is_shown_with_the_key_that_signed_it() -> None:
    api = await make_api()
    build_id = await baked(api)
    request = pb.GetReceiptRequest(build_id=build_id)
    code, text = await refusal(api.own.get_receipt(request, headers=api.user))
    assert (code, "still there" in text) == (Code.FAILED_PRECONDITION, True)

    await api.own.delete_build(pb.DeleteBuildRequest(build_id=build_id), headers=api.user)
    code, text = await refusal(api.own.get_receipt(request, headers=api.user))
    assert code is Code.FAILED_PRECONDITION
    assert "ask again after 2026-03-01T13:01:00Z" in text

    api.receipts[build_id] = StoredReceipt(PROJECT, b"{}", b"signed")
    receipt = await api.own.get_receipt(request, headers=api.user)
    key = await api.own.get_receipt_key(pb.GetReceiptKeyRequest(), headers=api.user)
    assert (receipt.document, receipt.signature) == (b"{}", b"signed")
    assert receipt.public_key == key.public_key
    assert len(key.public_key) == 32
    unknown = pb.GetReceiptRequest(build_id="aaaaaaaaaa")
    for asked, headers in ((request, api.foreigner), (unknown, api.user)):
        code, text = await refusal(api.own.get_receipt(asked, headers=headers))
        assert (code, text) == (Code.NOT_FOUND, f"unknown build '{asked.build_id}'")


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
        keep = pb.KeepBuildRequest(build_id=build_id, retention=Duration(seconds=60))
        told = [
            await refusal(api.own.keep_build(keep, headers=api.foreigner)),
            await refusal(api.own.get_build(show, headers=api.foreigner)),
            await refusal(api.own.delete_build(delete, headers=api.foreigner)),
            await refusal(log(build_id)),
        ]
        return [(code, text.replace(build_id, "ID")) for code, text in told]

    assert await answers(theirs) == await answers("aaaaaaaaaa")
    assert await api.world.store.find(theirs) is not None


async def test_a_pull_token_sees_keeps_and_deletes_no_builds() -> None:
    api = await make_api()
    build_id = await baked(api)
    puller = bearer(await api.world.token(api.world.puller))
    delete = pb.DeleteBuildRequest(build_id=build_id)
    keep = pb.KeepBuildRequest(build_id=build_id, retention=Duration(seconds=60))
    api.receipts[build_id] = StoredReceipt(PROJECT, b"{}", b"signed")
    receipt = pb.GetReceiptRequest(build_id=build_id)
    for call in (
        api.own.delete_build(delete, headers=puller),
        api.own.keep_build(keep, headers=puller),
        api.own.get_receipt(receipt, headers=puller),
    ):
        assert (await refusal(call))[0] is Code.PERMISSION_DENIED
