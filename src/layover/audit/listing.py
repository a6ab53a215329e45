"""Shows the audit log to who may see it, in pages that new events do not shift."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from layover.audit.models import AuditPage, AuditQuery, InvalidAuditQuery, PageKey
from layover.audit.ports import AuditStore
from layover.identity.access import Action, check
from layover.identity.management import OrganizationNotGiven
from layover.identity.models import Organization, Principal
from layover.identity.paging import decode_key, encode_key
from layover.identity.service import IdentityService

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose log is asked for: a project's, an organization's, the server's own, or, with none of
    them, that of the caller's only organization."""

    organization_id: str = ""
    project_id: str = ""
    is_server: bool = False


class AuditListing:
    """Reads the log for owners, and the server's own for its administrators."""

    def __init__(self, store: AuditStore, identity: IdentityService) -> None:
        self._store, self._identity = store, identity

    async def list_page(
        self,
        principal: Principal,
        scope: Scope,
        query: AuditQuery,
        page_size: int = 0,
        page_token: str = "",
    ) -> AuditPage:
        """A page of the events that `query` asks for, whose organization and project `scope` says.

        `page_size` 0 asks for 100, above 1,000 gives 1,000. Raises ProjectUnknown,
        OrganizationUnknown, OrganizationNotGiven, ActionDenied, InvalidAuditQuery.
        """
        if page_size < 0:
            raise InvalidAuditQuery("page_size is negative: pass 1 to 1000, or 0 for 100")
        if query.since and query.until and query.since >= query.until:
            raise InvalidAuditQuery("no time is both since and until: since has to be the earlier")
        query = await self._scoped(principal, scope, query)
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = _decode(page_token) if page_token else None
        found = await self._store.list_page(query, after, size + 1)
        events = tuple(found[:size])
        return AuditPage(
            events, encode_key(events[-1].at, str(events[-1].id)) if len(found) > size else None
        )

    async def _scoped(self, principal: Principal, scope: Scope, query: AuditQuery) -> AuditQuery:
        if bool(scope.organization_id) + bool(scope.project_id) + scope.is_server > 1:
            raise InvalidAuditQuery("name a project, an organization or the server, and one alone")
        if scope.project_id:
            project = await self._identity.authorize(principal, Action.SEE_AUDIT, scope.project_id)
            return replace(query, organization_id=None, project_id=project.id)
        if scope.is_server:
            check(principal, Action.SEE_AUDIT, None)
            return replace(query, organization_id=None, project_id=None)
        organization_id = scope.organization_id or _only_organization(principal)
        # What a caller may in an organization that is gone is nothing: nobody is a member of it.
        check(principal, Action.SEE_AUDIT, Organization(organization_id, "", _EPOCH))
        return replace(query, organization_id=organization_id, project_id=None)


def _only_organization(principal: Principal) -> str:
    if principal.organization_id is not None:
        return principal.organization_id
    if len(principal.roles) != 1:
        raise OrganizationNotGiven(sorted(principal.roles))
    return next(iter(principal.roles))


def _decode(token: str) -> PageKey:
    try:
        at, key = decode_key(token)
        event_id = int(key)
        if not 0 <= event_id < 1 << 63:
            raise ValueError(event_id)
        return PageKey(at, event_id)
    except ValueError:
        raise InvalidAuditQuery("unknown page_token: pass one from the page before") from None
