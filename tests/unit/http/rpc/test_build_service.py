import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest
from connectrpc.code import Code
from protobuf import Oneof
from protobuf.wkt import Timestamp
from pyqwest import Client
from pyqwest.testing import ASGITransport

from layover.builds.errors import BuilderUnhealthy
from layover.builds.models import BuildStatus, Step
from layover.http.rpc.convert import to_timestamp
from layover.identity.models import TokenKind
from layover.rpc.depot.cli.v1 import build_pb as pb
from layover.rpc.moby.buildkit.v1 import control_pb as buildkit
from tests.unit.builds.memory import START, MemoryBuilder
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT, SISTER_PROJECT
from tests.unit.http.rpc.api import HOST, Api, bearer, make_api, refusal

pytestmark = pytest.mark.anyio

SUCCESS = Oneof("success", pb.FinishBuildRequest.Success())
FAILURE = Oneof("error", pb.FinishBuildRequest.Error(error="exit code: 1"))
CANCELED = Oneof("canceled", pb.FinishBuildRequest.Canceled())


def finish(build_id: str, result: object = SUCCESS) -> pb.FinishBuildRequest:
    return pb.FinishBuildRequest(build_id=build_id, result=result)  # type: ignore[arg-type]  # one of the above


async def saved_build(api: Api, *options: pb.BuildOptions) -> pb.CreateBuildResponse:
    created = await api.create(*options)
    api.world.images.save(created.build_id, created.build_id)
    await api.builds.finish_build(finish(created.build_id), headers=bearer(created.build_token))
    return created


async def test_creating_a_build_that_saves_tells_where_to_push_and_how_to_log_in() -> None:
    api = await make_api()
    created = await api.create(pb.BuildOptions(save=True, save_tags=["main"]))
    build_id = created.build_id
    assert created.project_id == PROJECT
    assert created.build_url == f"https://{HOST}/builds/{build_id}"
    assert created.has_field("registry")
    (credential,) = created.additional_credentials
    assert credential.host == HOST
    login = base64.b64decode(credential.token).decode()
    assert login == f"x-token:{created.build_token}"
    assert [(tag.tag, tag.push) for tag in created.additional_tags] == [
        (f"{HOST}/{PROJECT}:{build_id}", True),
        (f"{HOST}/{PROJECT}:main", True),
    ]


async def test_creating_a_build_that_does_not_save_tells_no_registry() -> None:
    api = await make_api()
    created = await api.create(pb.BuildOptions(push=True, tags=["elsewhere/app"]))
    assert list(created.additional_credentials) == []
    assert list(created.additional_tags) == []


async def test_creating_a_build_needs_a_project_where_there_are_several() -> None:
    api = await make_api()
    code, text = await refusal(api.builds.create_build(pb.CreateBuildRequest(), headers=api.user))
    assert code is Code.INVALID_ARGUMENT
    assert "--project" in text
    assert PROJECT in text
    assert SISTER_PROJECT in text


async def test_creating_a_build_in_a_foreign_project_reads_as_in_an_unknown_one() -> None:
    api = await make_api()

    async def attempt(project_id: str) -> tuple[Code, str]:
        request = pb.CreateBuildRequest(project_id=project_id)
        code, text = await refusal(api.builds.create_build(request, headers=api.user))
        return code, text.replace(project_id, "ID")

    assert await attempt(FOREIGN_PROJECT) == await attempt("nosuch")
    assert (await attempt("nosuch"))[0] is Code.NOT_FOUND


async def test_another_engine_than_buildkit_is_refused() -> None:
    api = await make_api()
    dagger = pb.RequiredEngine.from_json('{"dagger": {"version": "v1"}}')
    request = pb.CreateBuildRequest(project_id=PROJECT, required_engine=dagger)
    code, _ = await refusal(api.builds.create_build(request, headers=api.user))
    assert code is Code.UNIMPLEMENTED
    request.required_engine = pb.RequiredEngine.from_json('{"buildkit": {}}')
    assert (await api.builds.create_build(request, headers=api.user)).build_id


async def test_a_bad_save_tag_is_an_invalid_argument() -> None:
    api = await make_api()
    code, text = await refusal(api.create(pb.BuildOptions(save=True, save_tags=["a b"])))
    assert code is Code.INVALID_ARGUMENT
    assert "'a b'" in text


@pytest.mark.parametrize(
    ("result", "status", "error"),
    [
        (SUCCESS, BuildStatus.FINISHED, None),
        (FAILURE, BuildStatus.FAILED, "exit code: 1"),
        (CANCELED, BuildStatus.CANCELED, "canceled by its client"),
    ],
)
async def test_a_build_ends_as_its_client_says(
    result: object, status: BuildStatus, error: str | None
) -> None:
    api = await make_api()
    created = await api.create()
    await api.builds.finish_build(
        finish(created.build_id, result), headers=bearer(created.build_token)
    )
    build = await api.world.store.find(created.build_id)
    assert build is not None
    assert (build.status, build.error) == (status, error)
    # Again, by a client whose first answer was lost: nothing changes and nothing fails.
    for again in (bearer(created.build_token), api.user):
        await api.builds.finish_build(finish(created.build_id, result), headers=again)
    # With another end, the client learns that this is not how it ended.
    other = FAILURE if result is SUCCESS else SUCCESS
    refused, text = await refusal(
        api.builds.finish_build(
            finish(created.build_id, other), headers=bearer(created.build_token)
        )
    )
    assert refused is Code.FAILED_PRECONDITION
    assert status in text
    assert await api.world.store.find(created.build_id) == build


async def test_an_ended_builds_token_does_nothing_but_say_again_how_it_ended() -> None:
    api = await make_api()
    created, other = await api.create(), await api.create()
    dead = bearer(created.build_token)
    await api.builds.finish_build(finish(created.build_id, SUCCESS), headers=dead)
    code, _ = await refusal(api.builds.finish_build(finish(other.build_id, SUCCESS), headers=dead))
    assert code is Code.NOT_FOUND
    code, _ = await refusal(
        api.builds.get_build(pb.GetBuildRequest(build_id=created.build_id), headers=dead)
    )
    assert code is Code.UNAUTHENTICATED


async def test_a_build_does_not_end_without_a_result() -> None:
    api = await make_api()
    created = await api.create()
    request = pb.FinishBuildRequest(build_id=created.build_id)
    assert (await refusal(api.builds.finish_build(request, headers=api.user)))[
        0
    ] is Code.INVALID_ARGUMENT


async def test_a_connection_is_active_with_the_builds_own_certificate() -> None:
    api = await make_api(MemoryBuilder("one"))
    created = await api.create()
    response = await api.builds.get_build_kit_connection(
        pb.GetBuildKitConnectionRequest(
            build_id=created.build_id, platform=pb.BuilderPlatform.AMD64
        ),
        headers=bearer(created.build_token),
    )
    match response.connection:
        case Oneof(field="active", value=pb.ActiveConnection() as active):
            assert (active.endpoint, active.server_name) == ("tcp://one:1234", "one")
            assert active.cert is not None
            assert active.ca_cert is not None
            assert active.cert.cert == f"cert of {created.build_id}"
            assert active.ca_cert.cert == "CA"
        case other:
            raise AssertionError(other)


async def test_a_connection_is_pending_and_later_unavailable_with_the_reason() -> None:
    builder = MemoryBuilder("one")
    builder.trouble = BuilderUnhealthy("connection refused")
    api = await make_api(builder)
    created = await api.create()
    request = pb.GetBuildKitConnectionRequest(build_id=created.build_id)
    response = await api.builds.get_build_kit_connection(request, headers=api.user)
    match response.connection:
        case Oneof(field="pending", value=pb.PendingConnection(wait_ms=1000)):
            pass
        case other:
            raise AssertionError(other)
    api.world.clock.advance(minutes=2)
    code, text = await refusal(api.builds.get_build_kit_connection(request, headers=api.user))
    assert code is Code.UNAVAILABLE
    assert "tcp://one:1234" in text
    assert "connection refused" in text


async def test_a_connection_for_an_ended_build_or_an_unknown_platform_is_refused() -> None:
    api = await make_api(MemoryBuilder("one"))
    created = await saved_build(api)
    request = pb.GetBuildKitConnectionRequest(build_id=created.build_id)
    code, _ = await refusal(api.builds.get_build_kit_connection(request, headers=api.user))
    assert code is Code.FAILED_PRECONDITION
    request.platform = pb.BuilderPlatform(7)
    code, _ = await refusal(api.builds.get_build_kit_connection(request, headers=api.user))
    assert code is Code.INVALID_ARGUMENT


async def test_health_has_no_end_while_the_build_lives_and_one_afterwards() -> None:
    api = await make_api()
    created = await api.create()
    request = pb.ReportBuildHealthRequest(build_id=created.build_id)
    response = await api.builds.report_build_health(request, headers=bearer(created.build_token))
    assert not response.has_field("cancels_at")
    assert await api.world.status(created.build_id) is BuildStatus.RUNNING
    await api.builds.finish_build(finish(created.build_id), headers=api.user)
    api.world.clock.advance(seconds=1)
    response = await api.builds.report_build_health(request, headers=api.user)
    assert response.cancels_at == to_timestamp(START)


def status(text: str) -> buildkit.StatusResponse:
    return buildkit.StatusResponse(
        vertexes=[
            buildkit.Vertex(digest="sha256:a", name="RUN make", started=Timestamp(seconds=5))
        ],
        logs=[buildkit.VertexLog(vertex="sha256:a", stream=2, msg=text.encode())],
    )


async def test_a_status_report_is_kept() -> None:
    api = await make_api()
    created = await api.create()
    await api.builds.report_status(
        pb.ReportStatusRequest(build_id=created.build_id, statuses=[status("one")]),
        headers=bearer(created.build_token),
    )
    ((_, entry),) = await api.world.store.read_log(created.build_id, 0, 10)
    # Without a time of its own, an entry has that of its arrival.
    assert (entry.message, entry.stream, entry.timestamp) == (b"one", 2, START)
    (step,) = await api.world.store.list_steps(created.build_id)
    assert step.name == "RUN make"


async def test_a_status_stream_is_kept_to_its_end() -> None:
    api = await make_api()
    created = await api.create()

    async def requests() -> AsyncIterator[pb.ReportStatusStreamRequest]:
        for number in range(3):
            yield pb.ReportStatusStreamRequest(
                build_id=created.build_id, statuses=[status(str(number))]
            )

    await api.builds.report_status_stream(requests(), headers=bearer(created.build_token))
    log = await api.world.store.read_log(created.build_id, 0, 10)
    assert [entry.message for _, entry in log] == [b"0", b"1", b"2"]


async def test_a_status_stream_that_is_cut_keeps_what_came() -> None:
    api = await make_api()
    created = await api.create()
    message = pb.ReportStatusStreamRequest(
        build_id=created.build_id, statuses=[status("before the cut")]
    ).to_binary()
    envelope = b"\0" + len(message).to_bytes(4, "big") + message
    received: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    received.put_nowait({"type": "http.request", "body": envelope, "more_body": True})
    # A second message of which only a part comes, and then nobody is there any more.
    received.put_nowait({"type": "http.request", "body": envelope[:9], "more_body": True})
    received.put_nowait({"type": "http.disconnect"})
    sent: list[object] = []

    async def send(event: object) -> None:
        sent.append(event)

    path = "/depot.cli.v1.BuildService/ReportStatusStream"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/connect+proto"),
            (b"authorization", f"Bearer {created.build_token}".encode()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await api.app(scope, received.get, send)
    log = await api.world.store.read_log(created.build_id, 0, 10)
    assert [entry.message for _, entry in log] == [b"before the cut"]


async def test_a_status_stream_of_an_unknown_build_is_refused() -> None:
    api = await make_api()

    async def requests() -> AsyncIterator[pb.ReportStatusStreamRequest]:
        for _ in range(3):
            yield pb.ReportStatusStreamRequest(build_id="unknown", statuses=[status("x")])

    code, _ = await refusal(api.builds.report_status_stream(requests(), headers=api.user))
    assert code is Code.NOT_FOUND


async def test_timings_and_dockerfiles_are_kept() -> None:
    api = await make_api()
    created = await api.create()
    own = bearer(created.build_token)
    step = pb.BuildStep(
        start_time=Timestamp(seconds=10), duration_ms=1500, name="COPY", cached=True
    )
    await api.builds.report_timings(
        pb.ReportTimingsRequest(build_id=created.build_id, build_steps=[step]), headers=own
    )
    (kept,) = await api.world.store.list_steps(created.build_id)
    assert isinstance(kept, Step)
    assert kept.started_at is not None
    assert kept.completed_at is not None
    assert (kept.completed_at - kept.started_at).total_seconds() == 1.5
    file = pb.Dockerfile(filename="Dockerfile", contents="FROM scratch")
    await api.builds.report_build_context(
        pb.ReportBuildContextRequest(build_id=created.build_id, dockerfiles=[file]), headers=own
    )
    (dockerfile,) = await api.world.store.list_dockerfiles(created.build_id)
    assert dockerfile.contents == "FROM scratch"


async def test_builds_are_listed_in_pages() -> None:
    api = await make_api()
    finished = await saved_build(api)
    api.world.clock.advance(seconds=1)
    live = await api.create()
    first = await api.builds.list_builds(
        pb.ListBuildsRequest(project_id=PROJECT, page_size=1), headers=api.user
    )
    second = await api.builds.list_builds(
        pb.ListBuildsRequest(project_id=PROJECT, page_size=1, page_token=first.next_page_token),
        headers=api.user,
    )
    assert [(build.id, build.status) for build in (*first.builds, *second.builds)] == [
        (live.build_id, pb.BuildStatus.RUNNING),
        (finished.build_id, pb.BuildStatus.FINISHED),
    ]
    assert second.next_page_token == ""
    assert second.builds[0].created_at == second.builds[0].finished_at == to_timestamp(START)


async def test_an_invalid_page_token_is_an_invalid_argument() -> None:
    api = await make_api()
    request = pb.ListBuildsRequest(project_id=PROJECT, page_token="%")
    code, _ = await refusal(api.builds.list_builds(request, headers=api.user))
    assert code is Code.INVALID_ARGUMENT


async def test_pull_info_has_the_options_as_they_were_created() -> None:
    api = await make_api()
    options = [
        pb.BuildOptions(
            command=pb.Command.BAKE,
            tags=["app:1"],
            outputs=[pb.BuildOutput(kind="image", attributes={"push": "true"})],
            save=True,
            target_name="web",
            save_tags=["main"],
        ),
        pb.BuildOptions(command=pb.Command.BAKE, save=True, target_name="db", load=True),
    ]
    created = await saved_build(api, *options)
    info = await api.builds.get_pull_info(
        pb.GetPullInfoRequest(build_id=created.build_id), headers=api.user
    )
    assert info.reference == f"{HOST}/{PROJECT}:{created.build_id}"
    assert info.username == "x-token"
    assert list(info.options) == options
    assert (await api.world.identity.authenticate(info.password)).kind is TokenKind.PULL


async def test_pull_info_says_why_there_is_none() -> None:
    api = await make_api()
    running = (await api.create()).build_id
    failed = (await api.create()).build_id
    await api.builds.finish_build(finish(failed, FAILURE), headers=api.user)
    unsaved = (await api.create(pb.BuildOptions())).build_id
    await api.builds.finish_build(finish(unsaved), headers=api.user)
    for build_id, expected in (
        (running, "still running"),
        (failed, "exit code: 1"),
        (unsaved, "--save"),
    ):
        request = pb.GetPullInfoRequest(build_id=build_id)
        code, text = await refusal(api.builds.get_pull_info(request, headers=api.user))
        assert code is Code.FAILED_PRECONDITION
        assert expected in text


async def test_another_organizations_build_reads_exactly_as_unknown_everywhere() -> None:
    api = await make_api(MemoryBuilder("one"))
    theirs = (await saved_build(api)).build_id

    async def answers(build_id: str) -> list[tuple[Code, str]]:
        headers = api.foreigner
        calls = [
            api.builds.get_build(pb.GetBuildRequest(build_id=build_id), headers=headers),
            api.builds.finish_build(finish(build_id), headers=headers),
            api.builds.get_build_kit_connection(
                pb.GetBuildKitConnectionRequest(build_id=build_id), headers=headers
            ),
            api.builds.report_build_health(
                pb.ReportBuildHealthRequest(build_id=build_id), headers=headers
            ),
            api.builds.report_status(pb.ReportStatusRequest(build_id=build_id), headers=headers),
            api.builds.get_pull_info(pb.GetPullInfoRequest(build_id=build_id), headers=headers),
            api.builds.get_pull_token(pb.GetPullTokenRequest(build_id=build_id), headers=headers),
        ]
        told = [await refusal(call) for call in calls]
        return [(code, text.replace(build_id, "ID")) for code, text in told]

    assert await answers(theirs) == await answers("aaaaaaaaaa")
    assert {code for code, _ in await answers(theirs)} == {Code.NOT_FOUND}


async def test_a_pull_token_is_given_for_a_project() -> None:
    api = await make_api()
    response = await api.builds.get_pull_token(
        pb.GetPullTokenRequest(project_id=PROJECT), headers=api.user
    )
    assert (await api.world.identity.authenticate(response.token)).kind is TokenKind.PULL


async def test_a_pull_token_drives_nothing() -> None:
    api = await make_api()
    puller = bearer(await api.world.token(api.world.puller))
    created = await api.create()
    request = finish(created.build_id)
    code, text = await refusal(api.builds.finish_build(request, headers=puller))
    assert (code, text) == (Code.PERMISSION_DENIED, "this token may not drive this build")


async def test_the_api_speaks_json_too() -> None:
    api = await make_api()
    response = await Client(ASGITransport(api.app)).post(
        f"https://{HOST}/depot.cli.v1.BuildService/CreateBuild",
        headers={"content-type": "application/json", **api.user},
        content=json.dumps({"projectId": PROJECT, "options": [{"save": True}]}).encode(),
    )
    assert response.status == 200
    answer = json.loads(response.content)
    assert answer["additionalTags"][0]["tag"] == f"{HOST}/{PROJECT}:{answer['buildId']}"


async def test_get_build_tells_its_project_and_page() -> None:
    api = await make_api()
    build_id = (await api.create()).build_id
    response = await api.builds.get_build(pb.GetBuildRequest(build_id=build_id), headers=api.user)
    assert (response.build_id, response.project_id) == (build_id, PROJECT)
    assert response.build_url.endswith(f"/builds/{build_id}")
