from typing import Literal

import pytest
from connectrpc.code import Code
from protobuf import Oneof
from protobuf.wkt import Duration

from layover.http.rpc.projects_service import _new_policy
from layover.identity.models import Principal, TokenKind
from layover.rpc.depot.cli.v1beta1 import projects_pb as pb
from layover.rpc.layover.v1 import projects_pb as own
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT, SISTER_PROJECT
from tests.unit.http.rpc.api import Api, bearer, make_api, refusal

pytestmark = pytest.mark.anyio

DAY = 86400


def size(count: int) -> Oneof[Literal["quota_bytes"], int]:
    return Oneof("quota_bytes", count)


async def test_a_user_sees_its_organizations_projects_and_no_other() -> None:
    api = await make_api()
    response = await api.projects.list_projects(pb.ListProjectsRequest(), headers=api.user)
    assert [(project.id, project.org_id) for project in response.projects] == [
        (PROJECT, "org1"),
        (SISTER_PROJECT, "org1"),
    ]
    ours = await api.own_projects.list_projects(own.ListProjectsRequest(), headers=api.user)
    assert [(project.id, project.organization_id) for project in ours.projects] == [
        (PROJECT, "org1"),
        (SISTER_PROJECT, "org1"),
    ]


async def test_a_project_token_sees_its_project_alone() -> None:
    api = await make_api()
    headers = bearer(await api.world.token(api.world.project_token))
    response = await api.projects.list_projects(pb.ListProjectsRequest(), headers=headers)
    assert [project.id for project in response.projects] == [PROJECT]
    # It sees one, so that one is meant.
    shown = await api.own_projects.get_project(own.GetProjectRequest(), headers=headers)
    assert shown.project is not None
    assert shown.project.id == PROJECT


async def get(api: Api) -> own.Project:
    request = own.GetProjectRequest(project_id=PROJECT)
    project = (await api.own_projects.get_project(request, headers=api.user)).project
    assert project is not None
    return project


async def test_a_project_tells_what_it_takes_and_a_listing_does_not() -> None:
    api = await make_api()
    api.world.images.save(await api.world.finished(), "one", "two")
    assert (await get(api)).used_bytes == 2000
    listed = await api.own_projects.list_projects(own.ListProjectsRequest(), headers=api.user)
    assert not any(project.has_field("used_bytes") for project in listed.projects)


async def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    api = await make_api()
    before = await get(api)
    assert (before.retention, before.max_retention) == (
        Duration(seconds=7 * DAY),
        Duration(seconds=90 * DAY),
    )
    assert not before.extends_on_pull
    assert not before.has_field("quota_bytes")

    async def update(request: own.UpdateProjectRequest) -> own.Project:
        request.project_id = PROJECT
        project = (await api.own_projects.update_project(request, headers=api.user)).project
        assert project is not None
        assert project == await get(api)
        return project

    changed = await update(own.UpdateProjectRequest(retention=Duration(seconds=3 * DAY)))
    assert changed.retention == Duration(seconds=3 * DAY)
    assert changed.max_retention == before.max_retention
    changed = await update(own.UpdateProjectRequest(extends_on_pull=True))
    assert changed.extends_on_pull
    changed = await update(own.UpdateProjectRequest(quota=size(5 << 40)))
    assert (changed.quota_bytes, changed.extends_on_pull) == (5 << 40, True)
    changed = await update(
        own.UpdateProjectRequest(extends_on_pull=False, max_retention=Duration(seconds=4 * DAY))
    )
    assert (changed.extends_on_pull, changed.quota_bytes) == (False, 5 << 40)
    changed = await update(
        own.UpdateProjectRequest(
            quota=Oneof[Literal["no_quota"], own.NoQuota]("no_quota", own.NoQuota())
        )
    )
    assert not changed.has_field("quota_bytes")
    assert changed.retention == Duration(seconds=3 * DAY)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (own.UpdateProjectRequest(retention=Duration()), "1s or longer"),
        (own.UpdateProjectRequest(retention=Duration(seconds=-5)), "1s or longer"),
        (own.UpdateProjectRequest(retention=Duration(seconds=91 * DAY)), "over the maximum of 90d"),
        (own.UpdateProjectRequest(max_retention=Duration(seconds=6 * DAY)), "over the maximum"),
        (own.UpdateProjectRequest(max_retention=Duration(seconds=3651 * DAY)), "3650d at most"),
        (own.UpdateProjectRequest(max_retention=Duration(seconds=1 << 62)), "no time"),
        (own.UpdateProjectRequest(quota=size(-1)), "less than 0 bytes"),
    ],
)
async def test_a_policy_that_cannot_be_is_refused_whole(
    request_: own.UpdateProjectRequest, reason: str
) -> None:
    api = await make_api()
    before = await get(api)
    request_.project_id = PROJECT
    request_.extends_on_pull = True
    code, text = await refusal(api.own_projects.update_project(request_, headers=api.user))
    assert code is Code.INVALID_ARGUMENT
    assert reason in text
    assert await get(api) == before


async def test_no_token_of_a_build_or_for_pulls_changes_a_policy() -> None:
    api = await make_api()
    build = Principal("t9", TokenKind.BUILD, "org1", project_id=PROJECT, build_id="bbbbbbbbbb")
    request = own.UpdateProjectRequest(project_id=PROJECT, extends_on_pull=True)
    for principal in (build, api.world.puller):
        headers = bearer(await api.world.token(principal))
        code, _ = await refusal(api.own_projects.update_project(request, headers=headers))
        assert code is Code.PERMISSION_DENIED
    assert not (await get(api)).extends_on_pull


async def test_another_organizations_project_reads_as_unknown() -> None:
    api = await make_api()
    for project_id in (FOREIGN_PROJECT, "nosuchproj"):
        get_it = own.GetProjectRequest(project_id=project_id)
        change = own.UpdateProjectRequest(project_id=project_id, extends_on_pull=True)
        for call in (
            api.own_projects.get_project(get_it, headers=api.user),
            api.own_projects.update_project(change, headers=api.user),
        ):
            code, text = await refusal(call)
            assert (code, text) == (Code.NOT_FOUND, f"unknown project '{project_id}'")


@pytest.mark.parametrize(
    ("request_", "retention", "maximum"),
    [
        (own.CreateProjectRequest(), 7, 90),
        (own.CreateProjectRequest(retention=Duration(seconds=3 * DAY)), 3, 90),
        (own.CreateProjectRequest(retention=Duration(seconds=200 * DAY)), 200, 200),
        (own.CreateProjectRequest(max_retention=Duration(seconds=3 * DAY)), 3, 3),
        (
            own.CreateProjectRequest(
                retention=Duration(seconds=5 * DAY), max_retention=Duration(seconds=3 * DAY)
            ),
            5,
            3,
        ),
    ],
)
def test_of_a_new_projects_times_the_one_that_is_not_given_fits_the_other(
    request_: own.CreateProjectRequest, retention: int, maximum: int
) -> None:
    policy = _new_policy(request_)
    assert (policy.retention.days, policy.max_retention.days) == (retention, maximum)
    assert (policy.extends_on_pull, policy.quota_bytes) == (False, None)


async def test_nobody_deletes_a_project_that_was_not_named() -> None:
    api = await make_api()
    headers = bearer(await api.world.token(api.world.project_token))
    code, text = await refusal(
        api.own_projects.delete_project(own.DeleteProjectRequest(), headers=headers)
    )
    assert code is Code.INVALID_ARGUMENT
    assert "which project" in text


async def test_a_shared_cache_is_said_to_be_one() -> None:
    api = await make_api()
    request = pb.ResetProjectCacheRequest(project_id=PROJECT)
    code, text = await refusal(api.projects.reset_project_cache(request, headers=api.user))
    assert code is Code.UNIMPLEMENTED
    assert "--no-cache" in text
