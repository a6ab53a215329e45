"""Who may do what: the one place that decides. docs/security.md has the same table."""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from layover.identity.models import (
    ActionDenied,
    Grant,
    Organization,
    OrganizationUnknown,
    Principal,
    Project,
    ProjectUnknown,
    Role,
    TokenKind,
)
from layover.oci.names import RepositoryName, Tag


class Action(StrEnum):
    """What a caller can ask for; its text ends the sentence "this token may not ..."."""

    # In a project.
    SEE_PROJECT = "see this project"
    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CREATE_BUILD = "create builds"
    DRIVE_BUILD = "drive this build"
    SEE_BUILDS = "see builds"
    DELETE_BUILD = "delete builds"
    KEEP_BUILD = "keep builds"
    PUSH_ON = "push builds on to other registries"
    CREATE_PULL_TOKEN = "create pull tokens"  # noqa: S105  # an action's name
    UPDATE_PROJECT = "change this project"
    DELETE_PROJECT = "delete this project"
    MANAGE_TOKENS = "manage tokens"
    MANAGE_TRUST = "manage trust policies"
    SEE_AUDIT = "see the audit log"
    # In an organization; MANAGE_TOKENS and SEE_AUDIT too.
    SEE_ORGANIZATION = "see this organization"
    SEE_MEMBERS = "see members"
    MANAGE_MEMBERS = "manage members"
    UPDATE_ORGANIZATION = "change this organization"
    CREATE_PROJECT = "create projects"
    # On the server; SEE_AUDIT too, of what is in no organization's log.
    CREATE_ORGANIZATION = "create organizations"
    MANAGE_OWN_TOKENS = "manage a user's own tokens"


_PULLS = frozenset({Action.SEE_PROJECT, Action.PULL})
_VIEWS = _PULLS | {Action.SEE_BUILDS, Action.CREATE_PULL_TOKEN, Action.SEE_ORGANIZATION}
_WORKS = _PULLS | {
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
_OF_ADMINS = frozenset({Action.CREATE_ORGANIZATION, Action.SEE_AUDIT})
_OF_USERS = frozenset({Action.MANAGE_OWN_TOKENS})
_EVERYTHING = frozenset(Action) - {Action.CREATE_ORGANIZATION} - _OF_USERS

# Nothing but a user in person makes what outlives it: members, tokens that stay, trust policies.
# So what a stolen token did is over when that token is revoked.
_OF_ROLES: dict[Role, frozenset[Action]] = {
    Role.OWNER: _EVERYTHING,
    Role.MEMBER: _WORKS | _VIEWS | {Action.SEE_MEMBERS},
    Role.VIEWER: _VIEWS,
}
_OF_GRANTS: dict[Grant, frozenset[Action]] = {
    Grant.PROJECT: _WORKS,
    Grant.PULL: _PULLS | {Action.CREATE_PULL_TOKEN},
}
_OF_TOKENS: dict[TokenKind, frozenset[Action]] = {
    TokenKind.ORGANIZATION: _WORKS
    | {Action.SEE_ORGANIZATION, Action.CREATE_PROJECT, Action.UPDATE_PROJECT},
    TokenKind.PROJECT: _WORKS,
    TokenKind.PULL: _PULLS,
    # Its own build alone: DRIVE_BUILD and SEE_BUILDS are checked against the build's ID too.
    TokenKind.BUILD: _PULLS
    | {Action.PUSH, Action.DRIVE_BUILD, Action.SEE_BUILDS, Action.CREATE_PULL_TOKEN},
}


def may(principal: Principal, action: Action, where: Project | Organization | None) -> bool:
    """Whether the caller may do `action` in a project, in an organization, or on the server."""
    if where is None:
        if principal.kind is not TokenKind.USER:
            return False
        return action in _OF_USERS or (principal.is_admin and action in _OF_ADMINS)
    return action in _rights(principal, where)


def sees(principal: Principal, where: Project | Organization) -> bool:
    """Whether it exists as far as this caller can tell."""
    seen = Action.SEE_PROJECT if isinstance(where, Project) else Action.SEE_ORGANIZATION
    return may(principal, seen, where)


def check(principal: Principal, action: Action, where: Project | Organization | None) -> None:
    """Raise unless the caller may do `action` there, or on the server where it is None.

    ProjectUnknown or OrganizationUnknown where the caller cannot tell it from one that does not
    exist, else ActionDenied.
    """
    if may(principal, action, where):
        return
    if where is not None and not sees(principal, where):
        raise (
            ProjectUnknown(where.id)
            if isinstance(where, Project)
            else OrganizationUnknown(where.id)
        )
    raise ActionDenied(action)


def role_check(
    principal: Principal, action: Action, where: Project | Organization | None
) -> Callable[[Role | None], None]:
    """`check` anew, for a user with the role that it has in the organization by then.

    For the transaction that changes something: in between a member may have been removed. Of a
    caller that is no user, and where there is no place, there is no role to ask for.
    """

    def checked(role: Role | None) -> None:
        if principal.user_id is None or where is None:
            return
        organization_id = where.organization_id if isinstance(where, Project) else where.id
        roles = {organization_id: role} if role is not None else {}
        check(replace(principal, roles=roles), action, where)

    return checked


def _rights(principal: Principal, where: Project | Organization) -> frozenset[Action]:
    """What the caller may do there; a stranger nothing."""
    project = where if isinstance(where, Project) else None
    organization_id = project.organization_id if project else where.id
    match principal.kind:
        case TokenKind.USER:
            role = principal.roles.get(organization_id)
            return _OF_ROLES[role] if role else frozenset()
        case TokenKind.CI:
            grant = principal.grants.get(project.id) if project else None
            return _OF_GRANTS[grant] if grant else frozenset()
        case TokenKind.ORGANIZATION:
            is_own = principal.organization_id == organization_id
        case _:
            # A project's ID alone would do; nothing rests on IDs never being used again.
            is_own = (
                project is not None
                and principal.project_id == project.id
                and principal.organization_id == organization_id
            )
    return _OF_TOKENS[principal.kind] if is_own else frozenset()


def may_in_build(principal: Principal, build_id: str) -> bool:
    """Whether a caller that may act in the build's project may act on this very build."""
    return principal.build_id is None or principal.build_id == build_id


def only_build(principal: Principal) -> str | None:
    """The build outside of which a caller that may pull reads nothing in the registry; None where
    it reads all of its projects."""
    return principal.build_id if principal.kind is TokenKind.PULL else None


def may_write_tag(principal: Principal, repository: RepositoryName, tag: Tag) -> bool:
    """Whether a caller that may push may write the tag: a build's token writes its own alone."""
    if principal.kind is not TokenKind.BUILD:
        return True
    name = f"{repository}:{tag}"
    return any(name == own or name.startswith(f"{own}-") for own in principal.tags)


def saved_by(principal: Principal, repository: RepositoryName) -> str | None:
    """The build that what is pushed there belongs to: what a build pushes to its project's own
    repository is saved under it; what it pushes elsewhere is its user's."""
    is_own = principal.kind is TokenKind.BUILD and repository.value == principal.project_id
    return principal.build_id if is_own else None
