"""Who may do what: the one place that decides."""

from enum import StrEnum

from layover.identity.models import Principal, Project, TokenKind
from layover.oci.names import RepositoryName, Tag


class Action(StrEnum):
    """What a caller can ask for; its text ends the sentence "this token may not ..."."""

    SEE_PROJECT = "see this project"
    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CREATE_BUILD = "create builds"
    DRIVE_BUILD = "drive this build"
    SEE_BUILDS = "see builds"
    DELETE_BUILD = "delete builds"
    KEEP_BUILD = "keep builds"
    UPDATE_PROJECT = "change this project"
    CREATE_PULL_TOKEN = "create pull tokens"  # noqa: S105  # an action's name


_EVERYTHING = frozenset(Action)
_ALLOWED: dict[TokenKind, frozenset[Action]] = {
    TokenKind.USER: _EVERYTHING,
    TokenKind.ORGANIZATION: _EVERYTHING,
    TokenKind.PROJECT: _EVERYTHING,
    TokenKind.PULL: frozenset({Action.SEE_PROJECT, Action.PULL}),
    # Its own build alone: DRIVE_BUILD and SEE_BUILDS are checked against the build's ID too.
    TokenKind.BUILD: frozenset(
        {
            Action.SEE_PROJECT,
            Action.PULL,
            Action.PUSH,
            Action.DRIVE_BUILD,
            Action.SEE_BUILDS,
            Action.CREATE_PULL_TOKEN,
        }
    ),
}


def sees(principal: Principal, project: Project) -> bool:
    """Whether the project exists as far as this caller can tell."""
    if principal.project_id is not None:
        return principal.project_id == project.id
    return principal.organization_id == project.organization_id


def may(principal: Principal, action: Action, project: Project) -> bool:
    """Whether the caller may do `action` in `project`."""
    return sees(principal, project) and action in _ALLOWED[principal.kind]


def may_in_build(principal: Principal, build_id: str) -> bool:
    """Whether a caller that may act in the build's project may act on this very build."""
    return principal.build_id is None or principal.build_id == build_id


def may_write_tag(principal: Principal, repository: RepositoryName, tag: Tag) -> bool:
    """Whether a caller that may push may write the tag: a build's token writes its own alone."""
    if principal.kind is not TokenKind.BUILD:
        return True
    name = f"{repository}:{tag}"
    return any(name == own or name.startswith(f"{own}-") for own in principal.tags)


def saved_by(principal: Principal, repository: RepositoryName) -> str | None:
    """The build that what is pushed there belongs to: what a build pushes to its project's own
    repository is saved under it; what it pushes elsewhere is its user's."""
    return principal.build_id if repository.value == principal.project_id else None
