from datetime import UTC, datetime

import pytest

from layover.identity.access import Action, may, may_in_build, may_write_tag, saved_by, sees
from layover.identity.models import Grant, Organization, Principal, Project, Role, TokenKind
from layover.oci.names import RepositoryName, Tag

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOME = Organization("org", "org", NOW)
ABROAD = Organization("other", "other", NOW)
PROJECT = Project("mine", "mine", "org", "org", NOW)
SIBLING = Project("sibling", "sibling", "org", "org", NOW)
FOREIGN = Project("foreign", "foreign", "other", "other", NOW)
# A project that was made later under an ID that was another's.
AGAIN = Project("mine", "mine", "other", "other", NOW)


def user(role: Role, *, is_admin: bool = False) -> Principal:
    roles = {"org": role}
    return Principal("t1", TokenKind.USER, user_id="user", roles=roles, is_admin=is_admin)


def ci(grant: Grant) -> Principal:
    return Principal("t6", TokenKind.CI, grants={"mine": grant})


USER = user(Role.OWNER)
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

PULLS = {Action.SEE_PROJECT, Action.PULL}
WORKS = PULLS | {
    Action.PUSH,
    Action.DELETE,
    Action.CREATE_BUILD,
    Action.DRIVE_BUILD,
    Action.SEE_BUILDS,
    Action.DELETE_BUILD,
    Action.KEEP_BUILD,
    Action.PUSH_ON,
    Action.CREATE_PULL_TOKEN,
}
OF_AN_ORGANIZATION = {
    Action.SEE_ORGANIZATION,
    Action.SEE_MEMBERS,
    Action.MANAGE_MEMBERS,
    Action.UPDATE_ORGANIZATION,
    Action.CREATE_PROJECT,
    Action.MANAGE_TOKENS,
    Action.SEE_AUDIT,
}
OWNS = (
    WORKS | OF_AN_ORGANIZATION | {Action.UPDATE_PROJECT, Action.DELETE_PROJECT, Action.MANAGE_TRUST}
)

# The table of docs/security.md: what each may do in its project or organization.
CALLERS = {
    "owner": (USER, OWNS),
    "member": (user(Role.MEMBER), WORKS | {Action.SEE_ORGANIZATION, Action.SEE_MEMBERS}),
    "viewer": (
        user(Role.VIEWER),
        PULLS | {Action.SEE_BUILDS, Action.CREATE_PULL_TOKEN, Action.SEE_ORGANIZATION},
    ),
    "organization": (
        ORGANIZATION,
        WORKS | {Action.SEE_ORGANIZATION, Action.CREATE_PROJECT, Action.UPDATE_PROJECT},
    ),
    "project": (OF_PROJECT, WORKS),
    "pull": (PULL, PULLS),
    "build": (
        BUILD,
        PULLS | {Action.PUSH, Action.DRIVE_BUILD, Action.SEE_BUILDS, Action.CREATE_PULL_TOKEN},
    ),
    "ci": (ci(Grant.PROJECT), WORKS),
    "ci that pulls": (ci(Grant.PULL), PULLS | {Action.CREATE_PULL_TOKEN}),
}
OF_ONE_PROJECT = {"project", "pull", "build", "ci", "ci that pulls"}


@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("action", Action)
def test_a_caller_does_in_its_project_what_the_table_says(name: str, action: Action) -> None:
    caller, allowed = CALLERS[name]
    assert may(caller, action, PROJECT) == (action in allowed)
    assert sees(caller, PROJECT)


@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("action", Action)
def test_a_caller_does_in_its_organization_what_the_table_says(name: str, action: Action) -> None:
    caller, allowed = CALLERS[name]
    if name in OF_ONE_PROJECT:
        assert not may(caller, action, HOME)
        assert not sees(caller, HOME)
    else:
        assert may(caller, action, HOME) == (action in allowed)


@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("action", Action)
def test_nobody_does_anything_in_another_organization(name: str, action: Action) -> None:
    caller, _ = CALLERS[name]
    for where in (FOREIGN, ABROAD):
        assert not sees(caller, where)
        assert not may(caller, action, where)


@pytest.mark.parametrize("name", OF_ONE_PROJECT)
def test_a_projects_token_sees_no_other_project_of_its_organization(name: str) -> None:
    assert not sees(CALLERS[name][0], SIBLING)
    assert sees(USER, SIBLING)
    assert sees(ORGANIZATION, SIBLING)


@pytest.mark.parametrize("name", ["project", "pull", "build"])
def test_a_token_does_not_open_a_later_project_of_the_same_id(name: str) -> None:
    assert not sees(CALLERS[name][0], AGAIN)


def test_an_administrator_makes_organizations_and_sees_no_other_for_it() -> None:
    admin = user(Role.VIEWER, is_admin=True)
    on_server = {Action.CREATE_ORGANIZATION, Action.SEE_AUDIT, Action.MANAGE_OWN_TOKENS}
    assert {action for action in Action if may(admin, action, None)} == on_server
    assert not may(admin, Action.SEE_AUDIT, PROJECT)
    assert not sees(admin, ABROAD)
    assert not may(admin, Action.PUSH, PROJECT)


def test_a_user_in_person_and_nobody_else_has_tokens_of_its_own() -> None:
    for name, (caller, _) in CALLERS.items():
        mine = {action for action in Action if may(caller, action, None)}
        is_user = name in ("owner", "member", "viewer")
        assert mine == ({Action.MANAGE_OWN_TOKENS} if is_user else set())


def test_every_kind_of_caller_is_in_the_table() -> None:
    assert {caller.kind for caller, _ in CALLERS.values()} == set(TokenKind)
    assert {role for caller, _ in CALLERS.values() for role in caller.roles.values()} == set(Role)
    assert {g for caller, _ in CALLERS.values() for g in caller.grants.values()} == set(Grant)


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
    assert saved_by(PULL, RepositoryName("mine")) is None
