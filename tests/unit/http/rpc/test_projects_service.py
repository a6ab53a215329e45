import pytest

from layover.rpc.depot.cli.v1beta1 import projects_pb as pb
from tests.unit.builds.world import PROJECT, SISTER_PROJECT
from tests.unit.http.rpc.api import bearer, make_api

pytestmark = pytest.mark.anyio


async def test_a_user_sees_its_organizations_projects_and_no_other() -> None:
    api = await make_api()
    response = await api.projects.list_projects(pb.ListProjectsRequest(), headers=api.user)
    assert [(project.id, project.org_id) for project in response.projects] == [
        (PROJECT, "org1"),
        (SISTER_PROJECT, "org1"),
    ]


async def test_a_project_token_sees_its_project_alone() -> None:
    api = await make_api()
    headers = bearer(await api.world.token(api.world.project_token))
    response = await api.projects.list_projects(pb.ListProjectsRequest(), headers=headers)
    assert [project.id for project in response.projects] == [PROJECT]
