"""The ports of builds/ in memory; tests/contract holds them to what the real adapters do."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from layover.builds.builders import Credentials, LeaseState, Platforms
from layover.builds.errors import BuilderUnhealthy
from layover.builds.limits import MAX_STEPS, MAX_TARGETS, admit_log
from layover.builds.models import (
    Build,
    BuildPage,
    BuildStatus,
    Dockerfile,
    LogEntry,
    PageKey,
    SavedImage,
    Step,
)
from layover.identity.models import (
    FirstTenant,
    NewToken,
    Principal,
    Project,
    ProjectPolicy,
    Role,
    TokenKind,
)
from layover.oci.digest import Digest
from layover.registry.models import Gone

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def advance(self, **parts: float) -> None:
        self.time += timedelta(**parts)


@dataclass
class _Reports:
    steps: dict[str, Step] = field(default_factory=dict)
    log: list[LogEntry] = field(default_factory=list)
    log_size_bytes: int = 0
    dockerfiles: dict[str, Dockerfile] = field(default_factory=dict)


class MemoryBuildStore:
    """The BuildStore and the LeaseStore in memory."""

    def __init__(self) -> None:
        self._builds: dict[str, Build] = {}
        self._buried: dict[str, tuple[str, Gone]] = {}
        self._reports: dict[str, _Reports] = {}
        self._leases: dict[tuple[str, str], str] = {}
        self._affinities: dict[tuple[str, str], str] = {}

    async def add(self, build: Build) -> None:
        self._builds[build.id] = build
        self._reports[build.id] = _Reports()

    async def find(self, build_id: str) -> Build | None:
        return self._builds.get(build_id)

    async def mark_seen(self, build_id: str, now: datetime, *, starts: bool) -> None:
        build = self._builds.get(build_id)
        if build is None or build.status.has_ended:
            return
        if starts and build.status is BuildStatus.CREATED:
            build = replace(build, status=BuildStatus.RUNNING, started_at=now)
        self._builds[build_id] = replace(build, seen_at=now)

    async def end(
        self, build_id: str, status: BuildStatus, error: str | None, now: datetime
    ) -> bool:
        build = self._builds.get(build_id)
        if build is None or build.status.has_ended:
            return False
        self._builds[build_id] = replace(
            build,
            status=status,
            error=error,
            finished_at=now,
            expires_at=_whole_second(now + build.retention),
        )
        self._release(build_id)
        return True

    async def has_vanished(self, seen_before: datetime) -> bool:
        return any(
            build.seen_at < seen_before and not build.status.has_ended
            for build in self._builds.values()
        )

    async def end_vanished(self, seen_before: datetime, error: str, now: datetime) -> list[str]:
        vanished = [build.id for build in self._builds.values() if build.seen_at < seen_before]
        return [
            build_id
            for build_id in vanished
            if await self.end(build_id, BuildStatus.CANCELED, error, now)
        ]

    async def delete(self, build_id: str, now: datetime) -> bool:
        build = self._builds.get(build_id)
        if build is None or build.gone(now):
            return False
        self._builds[build_id] = replace(build, deleted_at=now)
        return True

    async def keep(self, build_id: str, until: datetime, now: datetime) -> datetime | None:
        build = self._builds.get(build_id)
        if build is None or build.gone(now) or build.expires_at is None:
            return None
        kept = max(build.expires_at, _whole_second(until))
        self._builds[build_id] = replace(build, expires_at=kept)
        return kept

    def collect(self, build_id: str, gone: Gone) -> None:
        """What the collector does to a build whose time is over."""
        build = self._builds.pop(build_id)
        self._reports.pop(build_id)
        self._buried[build_id] = (build.project_id, gone)

    async def find_buried(self, build_id: str) -> tuple[str, Gone] | None:
        return self._buried.get(build_id)

    async def list_page(
        self, project_id: str, after: PageKey | None, limit: int, now: datetime
    ) -> BuildPage:
        found = sorted(
            (
                build
                for build in self._builds.values()
                if build.project_id == project_id and not build.gone(now)
            ),
            key=lambda build: (build.created_at, build.id),
            reverse=True,
        )
        if after is not None:
            place = (after.created_at, after.build_id)
            found = [build for build in found if (build.created_at, build.id) < place]
        return BuildPage(tuple(found[:limit]), len(found) > limit)

    async def record(
        self, build_id: str, steps: Sequence[Step], log: Sequence[LogEntry], now: datetime
    ) -> None:
        reports = self._reports.get(build_id)
        if reports is None:
            return
        for step in steps:
            known = reports.steps.get(step.digest)
            if known is not None:
                reports.steps[step.digest] = known.merged(step)
            elif len(reports.steps) < MAX_STEPS:
                reports.steps[step.digest] = step
        kept, reports.log_size_bytes = admit_log(log, reports.log_size_bytes)
        reports.log += kept
        self._builds[build_id] = replace(self._builds[build_id], seen_at=now)

    async def list_steps(self, build_id: str) -> list[Step]:
        reports = self._reports.get(build_id)
        return list(reports.steps.values()) if reports else []

    async def read_log(self, build_id: str, after: int, limit: int) -> list[tuple[int, LogEntry]]:
        reports = self._reports.get(build_id)
        log = reports.log if reports else []
        return list(enumerate(log, start=1))[after : after + limit]

    async def put_dockerfiles(self, build_id: str, dockerfiles: Sequence[Dockerfile]) -> None:
        reports = self._reports.get(build_id)
        if reports is None:
            return
        for file in dockerfiles:
            if file.target in reports.dockerfiles or len(reports.dockerfiles) < MAX_TARGETS:
                reports.dockerfiles[file.target] = file

    async def list_dockerfiles(self, build_id: str) -> list[Dockerfile]:
        reports = self._reports.get(build_id)
        files = reports.dockerfiles if reports else {}
        return [files[target] for target in sorted(files)]

    async def lease(
        self, build: Build, platform: str, choose: Callable[[LeaseState], str], now: datetime
    ) -> str | None:
        stored = self._builds.get(build.id)
        if stored is None or stored.status.has_ended:
            return None
        own = self._leases.pop((build.id, platform), None)
        state = LeaseState(
            current=own,
            last_used=self._affinities.get((build.project_id, platform)),
            loads=await self.count_leases(),
        )
        chosen = choose(state)
        self._leases[build.id, platform] = chosen
        self._affinities[build.project_id, platform] = chosen
        return chosen

    async def count_leases(self) -> dict[str, int]:
        return dict(Counter(self._leases.values()))

    def _release(self, build_id: str) -> None:
        self._leases = {
            (of_build, platform): builder
            for (of_build, platform), builder in self._leases.items()
            if of_build != build_id
        }


class MemoryImages:
    """The SavedImages in memory; `save` stands for a push."""

    def __init__(self) -> None:
        self._images: dict[str, list[SavedImage]] = {}

    def save(self, build_id: str, *tags: str, platforms: Sequence[str] = ("linux/amd64",)) -> None:
        self._images[build_id] = [
            SavedImage(tag, str(Digest.of(tag.encode())), tuple(platforms), 1000)
            for tag in sorted(tags)
        ]

    async def of_build(self, project_id: str, build_id: str) -> list[SavedImage]:
        return list(self._images.get(build_id, ()))

    async def used_bytes(self, project_id: str) -> int:
        return sum(image.size_bytes for images in self._images.values() for image in images)

    async def sizes(self, build_ids: Sequence[str]) -> dict[str, int]:
        return {
            build_id: sum(image.size_bytes for image in self._images[build_id])
            for build_id in build_ids
            if build_id in self._images
        }


class MemoryBuilder:
    """A Builder that fares as a test says."""

    def __init__(self, name: str, *native: str, emulated: Sequence[str] = ()) -> None:
        self._name = name
        self.platforms = Platforms(native or ("linux/amd64",), tuple(emulated))
        self.trouble: BuilderUnhealthy | None = None
        self.checks = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def address(self) -> str:
        return f"tcp://{self._name}:1234"

    @property
    def server_name(self) -> str:
        return self._name

    async def check(self) -> Platforms:
        self.checks += 1
        if self.trouble is not None:
            raise self.trouble
        return self.platforms

    async def credentials(self, build_id: str) -> Credentials | None:
        return Credentials(ca_cert="CA", cert=f"cert of {build_id}", key="key")


class MemoryIdentityStore:
    """The IdentityStore in memory."""

    def __init__(self) -> None:
        self._projects: dict[str, Project] = {}
        self._tokens: dict[bytes, tuple[Principal, datetime | None]] = {}
        self._ended: dict[bytes, Principal] = {}
        self._keys: dict[str, bytes] = {}

    def add_project(self, project_id: str, organization_id: str) -> Project:
        project = Project(project_id, project_id, organization_id, organization_id, START)
        self._projects[project_id] = project
        return project

    async def find_principal(self, secret_hash: bytes, now: datetime) -> Principal | None:
        principal, expires_at = self._tokens.get(secret_hash, (None, None))
        return None if expires_at is not None and expires_at <= now else principal

    async def find_principal_by_id(self, token_id: str, now: datetime) -> Principal | None:
        for secret_hash, (principal, _) in self._tokens.items():
            if principal.token_id == token_id:
                return await self.find_principal(secret_hash, now)
        return None

    async def find_ended_build(self, secret_hash: bytes, now: datetime) -> Principal | None:
        return self._ended.get(secret_hash)

    async def add_token(
        self, token: NewToken, check_role: Callable[[Role | None], None] | None = None
    ) -> None:
        self._tokens[token.secret_hash] = (token.principal, token.expires_at)

    async def revoke_build_tokens(self, build_id: str, kind: TokenKind, now: datetime) -> None:
        for secret_hash, (principal, _) in list(self._tokens.items()):
            if principal.build_id == build_id and principal.kind is kind:
                del self._tokens[secret_hash]
                if kind is TokenKind.BUILD:
                    self._ended[secret_hash] = principal

    async def mark_used(self, used: Mapping[str, datetime]) -> None:
        pass

    async def delete_over_tokens(self, expired_by: datetime, revoked_by: datetime) -> int:
        before = len(self._tokens)
        self._tokens = {
            secret_hash: (principal, expires_at)
            for secret_hash, (principal, expires_at) in self._tokens.items()
            if expires_at is None or expires_at > expired_by
        }
        return before - len(self._tokens)

    async def find_project(self, project_id: str) -> Project | None:
        return self._projects.get(project_id)

    async def list_projects(self, organization_ids: Collection[str]) -> list[Project]:
        return [
            project
            for project in self._projects.values()
            if project.organization_id in organization_ids
        ]

    async def change_policy(
        self,
        project_id: str,
        change: Callable[[ProjectPolicy], ProjectPolicy],
        name: str | None = None,
    ) -> Project | None:
        project = self._projects.get(project_id)
        if project is not None:
            project = replace(project, policy=change(project.policy), name=name or project.name)
            self._projects[project_id] = project
        return project

    async def has_organization(self) -> bool:
        return bool(self._projects)

    async def create_first_tenant(self, tenant: FirstTenant, secret_hash: bytes) -> bool:
        if self._projects:
            return False
        self.add_project(tenant.project_id, tenant.organization_id)
        self._tokens[secret_hash] = (tenant.admin, None)
        return True

    async def server_key(self, name: str, candidate: bytes) -> bytes:
        return self._keys.setdefault(name, candidate)


def _whole_second(time: datetime) -> datetime:
    return time if time.microsecond == 0 else time.replace(microsecond=0) + timedelta(seconds=1)
