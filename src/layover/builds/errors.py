"""Why a build's request is refused. Each leaf is mapped in http/rpc/errors.py."""

from collections.abc import Sequence
from datetime import timedelta

from layover.errors import LayoverError
from layover.registry.models import Gone


class BuildError(LayoverError):
    """The base of what builds/ raises."""


class BuildUnknown(BuildError):
    """No build with this ID that the caller may see: another project's reads the same."""

    def __init__(self, build_id: str) -> None:
        super().__init__(f"unknown build {build_id[:100]!r}")
        self.build_id = build_id


class BuildGone(BuildError):
    """The build was there; its time is over, or somebody deleted it."""

    def __init__(self, build_id: str, gone: Gone) -> None:
        super().__init__(f"build {build_id} {gone}: nothing of it is left to show or to pull")
        self.build_id, self.gone = build_id, gone


class BuildEnded(BuildError):
    """The build has ended and cannot change."""

    def __init__(self, build_id: str, status: str) -> None:
        super().__init__(f"build {build_id} has ended: it is {status}")
        self.build_id, self.status = build_id, status


class BuildNotEnded(BuildError):
    """The build runs: how long it is kept counts from its end."""

    def __init__(self, build_id: str) -> None:
        super().__init__(f"build {build_id} is still running: it can be kept when it has ended")
        self.build_id = build_id


class BuildStillRunning(BuildError):
    """The build's image cannot be pulled, or pushed on, before the build has ended."""

    def __init__(self, build_id: str, verb: str = "pull") -> None:
        super().__init__(f"build {build_id} is still running: {verb} it when it has finished")
        self.build_id = build_id


class BuildUnsuccessful(BuildError):
    """The build failed or was canceled: there is nothing to pull, or to push on."""

    def __init__(self, build_id: str, status: str, reason: str | None, verb: str = "pull") -> None:
        told = {"failed": "failed", "canceled": "was canceled"}.get(status, status)
        super().__init__(
            f"build {build_id} {told}" + (f": {reason}" if reason else "") + f"; nothing to {verb}"
        )
        self.build_id, self.status, self.reason = build_id, status, reason


class BuildNotSaved(BuildError):
    """The build finished, but nothing of it is in the registry."""

    def __init__(self, build_id: str, asked_to_save: bool, verb: str = "pull") -> None:
        why = (
            "nothing of it is in the registry, although it asked to be saved: build it again"
            if asked_to_save
            else f"build it with --save to {verb} it by its ID"
        )
        super().__init__(f"build {build_id} was not saved: {why}")
        self.build_id, self.asked_to_save = build_id, asked_to_save


class ProjectNotGiven(BuildError):
    """The request names no project and the caller does not see exactly one."""

    def __init__(self, project_ids: Sequence[str]) -> None:
        seen = ", ".join(project_ids[:10]) if project_ids else "none"
        super().__init__(
            "a project is needed: pass --project ID, set LAYOVER_PROJECT_ID or run `layover init`"
            f" (projects that this token sees: {seen})"
        )
        self.project_ids = tuple(project_ids)


class InvalidBuildRequest(BuildError):
    """The request's values are out of bounds or contradict each other."""


class InvalidPageToken(BuildError):
    """The page token is none that a listing gave out."""

    def __init__(self) -> None:
        super().__init__("invalid page_token: pass the next_page_token of the page before it")


class EngineUnsupported(BuildError):
    """The client asked for an engine that is not BuildKit."""

    def __init__(self, engine: str) -> None:
        super().__init__(f"Layover builds with BuildKit and has no engine {engine!r}")
        self.engine = engine


class CacheShared(BuildError):
    """A project's cache cannot be emptied: it is not the project's alone."""

    def __init__(self) -> None:
        super().__init__(
            "a builder's cache is shared by the projects that build on it, and cannot be emptied"
            " for one of them: build with --no-cache to use none of it"
        )


class NoBuilderConfigured(BuildError):
    """The server has no builder at all."""

    def __init__(self) -> None:
        super().__init__(
            "this server has no builder: configure one under `builders` in layover.toml,"
            " or let the server start its own BuildKit"
        )


class BuildersUnavailable(BuildError):
    """Every builder is unhealthy, and the build has waited long enough."""

    def __init__(self, reasons: Sequence[tuple[str, str]], waited: timedelta | None) -> None:
        after = f" after {waited.total_seconds():.0f} s" if waited else ""
        each = "; ".join(f"{builder}: {reason}" for builder, reason in reasons)
        super().__init__(f"no builder is available{after}: {each}")
        self.reasons, self.waited = tuple(reasons), waited


class BuilderUnhealthy(BuildError):
    """A builder does not answer as it should. `can_recover` says whether waiting may help."""

    def __init__(self, reason: str, can_recover: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.can_recover = reason, can_recover
