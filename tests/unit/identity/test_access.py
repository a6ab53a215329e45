from datetime import UTC, datetime

import pytest

from layover.identity.access import Action, may, may_in_build, may_write_tag, saved_by, sees
from layover.identity.models import Principal, Project, TokenKind
from layover.oci.names import RepositoryName, Tag

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROJECT = Project("mine", "mine", "org", "org", NOW)
SIBLING = Project("sibling", "sibling", "org", "org", NOW)
FOREIGN = Project("foreign", "foreign", "other", "other", NOW)

USER = Principal("t1", TokenKind.USER, "org", user_id="user")
ORGANIZATION = Principal("t2", TokenKind.ORGANIZATION, "org")
OF_PROJECT = Principal("t3", TokenKind.PROJECT, "org", project_id="mine")
PULL = Principal("t4", TokenKind.PULL, "org", project_id="mine", build_id="b1")
BUILD = Principal(
    "t5",
    TokenKind.BUILD,
    "org",
    project_id="mine",
    build_id="b1",
    tags=frozenset({"mine:b1", "mine:main", "mine/app:v1"}),
)
EVERYBODY = (USER, ORGANIZATION, OF_PROJECT, PULL, BUILD)

EVERYTHING = set(Action)
TABLE = {
    TokenKind.USER: EVERYTHING,
    TokenKind.ORGANIZATION: EVERYTHING,
    TokenKind.PROJECT: EVERYTHING,
    TokenKind.PULL: {Action.SEE_PROJECT, Action.PULL},
    TokenKind.BUILD: EVERYTHING
    - {
        Action.DELETE,
        Action.CREATE_BUILD,
        Action.DELETE_BUILD,
        Action.KEEP_BUILD,
        Action.UPDATE_PROJECT,
    },
}


@pytest.mark.parametrize("principal", EVERYBODY, ids=lambda principal: principal.kind)
@pytest.mark.parametrize("action", Action)
def test_a_token_does_in_its_project_what_the_table_says(
    principal: Principal, action: Action
) -> None:
    assert may(principal, action, PROJECT) == (action in TABLE[principal.kind])


@pytest.mark.parametrize("principal", EVERYBODY, ids=lambda principal: principal.kind)
@pytest.mark.parametrize("action", Action)
def test_nobody_does_anything_in_another_organizations_project(
    principal: Principal, action: Action
) -> None:
    assert not sees(principal, FOREIGN)
    assert not may(principal, action, FOREIGN)


@pytest.mark.parametrize("principal", (OF_PROJECT, PULL, BUILD), ids=lambda p: p.kind)
def test_a_projects_token_sees_no_other_project_of_its_organization(principal: Principal) -> None:
    assert not sees(principal, SIBLING)
    assert sees(USER, SIBLING)
    assert sees(ORGANIZATION, SIBLING)


def test_every_kind_of_token_is_in_the_table() -> None:
    assert set(TABLE) == set(TokenKind)


def test_a_builds_token_acts_on_its_own_build_alone() -> None:
    assert may_in_build(BUILD, "b1")
    assert not may_in_build(BUILD, "b2")
    assert may_in_build(USER, "b2")


@pytest.mark.parametrize(
    ("tag", "allowed"),
    [
        ("b1", True),
        ("b1-app", True),
        ("b1-app-debug", True),
        ("main", True),
        ("main-app", True),
        ("b", False),
        ("b10", False),
        ("b1app", False),
        ("B1", False),
        ("mai", False),
        ("latest", False),
        ("x-b1", False),
    ],
)
def test_a_builds_token_writes_its_own_tags_alone(tag: str, allowed: bool) -> None:
    repository = RepositoryName("mine")
    assert may_write_tag(BUILD, repository, Tag.parse(tag)) == allowed
    assert may_write_tag(USER, repository, Tag.parse(tag))


@pytest.mark.parametrize(
    ("repository", "tag", "allowed"),
    [("mine/app", "v1", True), ("mine/app", "b1", False), ("mine/other", "v1", False)],
)
def test_a_builds_token_writes_elsewhere_only_what_its_client_said_it_pushes(
    repository: str, tag: str, allowed: bool
) -> None:
    assert may_write_tag(BUILD, RepositoryName(repository), Tag(tag)) == allowed


def test_only_what_a_build_pushes_to_its_projects_own_repository_is_saved_under_it() -> None:
    assert saved_by(BUILD, RepositoryName("mine")) == "b1"
    assert saved_by(BUILD, RepositoryName("mine/app")) is None
    assert saved_by(USER, RepositoryName("mine")) is None
