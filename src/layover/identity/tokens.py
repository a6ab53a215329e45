"""Tokens as their makers and the organization's owners look after them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from layover.identity.access import Action, check, may
from layover.identity.management import (
    InvalidLifetime,
    Token,
    TokenFilter,
    TokenPage,
    TokenUnknown,
)
from layover.identity.management_ports import TokenStore
from layover.identity.models import (
    Organization,
    Principal,
    Project,
    TokenKind,
    Unauthenticated,
)
from layover.identity.names import checked_description
from layover.identity.organizations import OrganizationService
from layover.identity.paging import decode_place, page_size
from layover.identity.service import PULL_TOKEN_LIFETIME, IdentityService

_SHORTEST = timedelta(minutes=1)
_LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token and its secret, shown this once."""

    token: Token
    secret: str = field(repr=False)


class TokenService:
    """Makes, lists and revokes tokens for those who may."""

    def __init__(
        self,
        store: TokenStore,
        identity: IdentityService,
        organizations: OrganizationService,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._identity = identity
        self._organizations = organizations
        self._now = now

    # --- making ----------------------------------------------------------------------------------

    async def create_user_token(
        self, principal: Principal, description: str, lifetime: timedelta | None
    ) -> CreatedToken:
        """One more token of the caller's own user. Raises ActionDenied, InvalidName,
        InvalidLifetime."""
        check(principal, Action.MANAGE_OWN_TOKENS, None)
        made = Principal("", TokenKind.USER, user_id=principal.user_id)
        return await self._create(
            principal, made, Action.MANAGE_OWN_TOKENS, None, description or "a user's", lifetime
        )

    async def create_organization_token(
        self,
        principal: Principal,
        organization_id: str | None,
        description: str,
        lifetime: timedelta | None,
    ) -> CreatedToken:
        """A token that works in all projects of an organization, its only one without an ID.

        Raises as `OrganizationService.find` does; InvalidName, InvalidLifetime.
        """
        organization = await self._organizations.find(
            principal, Action.MANAGE_TOKENS, organization_id
        )
        made = Principal("", TokenKind.ORGANIZATION, organization.id)
        return await self._create(
            principal,
            made,
            Action.MANAGE_TOKENS,
            organization,
            description or "an organization's",
            lifetime,
        )

    async def create_project_token(
        self, principal: Principal, project: Project, description: str, lifetime: timedelta | None
    ) -> CreatedToken:
        """A token that works in a project that the caller sees.

        Raises ActionDenied, InvalidName, InvalidLifetime.
        """
        project = await self._identity.authorize(principal, Action.MANAGE_TOKENS, project.id)
        made = Principal("", TokenKind.PROJECT, project.organization_id, project_id=project.id)
        return await self._create(
            principal,
            made,
            Action.MANAGE_TOKENS,
            project,
            description or "a project's",
            lifetime,
        )

    async def create_pull_token(
        self,
        principal: Principal,
        project: Project,
        build_id: str | None,
        until: datetime | None,
        description: str,
        lifetime: timedelta | None,
    ) -> CreatedToken:
        """A token that pulls from a project, or one build of it, and does nothing else.

        It lives for an hour unless told otherwise, and never beyond `until`, its build's end. For
        whoever knows that the caller may make it.
        """
        project = await self._identity.authorize(principal, Action.CREATE_PULL_TOKEN, project.id)
        made = Principal(
            "",
            TokenKind.PULL,
            project.organization_id,
            project_id=project.id,
            build_id=build_id,
        )
        what = f"pull build {build_id}" if build_id else f"pull from project {project.id}"
        return await self._create(
            principal,
            made,
            Action.CREATE_PULL_TOKEN,
            project,
            description or what,
            PULL_TOKEN_LIFETIME if lifetime is None else lifetime,
            until,
        )

    async def _create(
        self,
        principal: Principal,
        made: Principal,
        action: Action,
        where: Project | Organization | None,
        description: str,
        lifetime: timedelta | None,
        until: datetime | None = None,
    ) -> CreatedToken:
        if lifetime is not None and not _SHORTEST <= lifetime <= _LONGEST:
            raise InvalidLifetime("a token", _SHORTEST, _LONGEST)
        now = self._now()
        if until is not None:
            lifetime = until - now if lifetime is None else min(until - now, lifetime)
        token_id, secret = await self._identity.issue(
            made,
            checked_description(description, "a token's description"),
            lifetime,
            principal,
            action,
            where,
        )
        token = await self._store.find_token(token_id, now)
        if token is None:
            # Whatever it was for ended at this very moment.
            raise Unauthenticated
        return CreatedToken(token, secret)

    # --- looking ---------------------------------------------------------------------------------

    async def list_tokens(
        self,
        principal: Principal,
        organization_id: str | None,
        project_id: str | None,
        asked_size: int,
        page_token: str,
    ) -> TokenPage:
        """A page of the tokens of a project, or of an organization and its projects.

        Of all of them for who manages them, else of those that the caller made; without either
        ID those that the caller made, its user's own with them. Raises ProjectUnknown,
        OrganizationUnknown, InvalidPlace, InvalidChange for a size below 0.
        """
        limit = page_size(asked_size)
        after = decode_place(page_token) if page_token else None
        where: Project | Organization | None = None
        if project_id:
            where = await self._identity.authorize(principal, Action.SEE_PROJECT, project_id)
        elif organization_id:
            where = await self._organizations.find(
                principal, Action.SEE_ORGANIZATION, organization_id
            )
        sees_all = where is not None and may(principal, Action.MANAGE_TOKENS, where)
        is_project = isinstance(where, Project)
        wanted = TokenFilter(
            organization_id=where.id if where is not None and not is_project else None,
            project_id=where.id if where is not None and is_project else None,
            created_by=None if sees_all else principal.user_id,
            parent_id=None if sees_all or principal.user_id else principal.token_id,
        )
        return await self._store.list_tokens(wanted, after, limit, self._now())

    async def revoke(self, principal: Principal, token_id: str) -> int:
        """Revoke the token, with those that it made if it is no user's; return how many.

        At once and on every replica. Raises TokenUnknown, alike for a token that does not exist
        and for one that is none of the caller's to revoke.
        """
        token = await self._store.find_token(token_id, self._now())
        if token is None or not await self._may_revoke(principal, token):
            raise TokenUnknown(token_id)
        revoked = await self._store.revoke_token(token.id, self._now())
        if not revoked:
            raise TokenUnknown(token_id)
        return revoked

    async def _may_revoke(self, principal: Principal, token: Token) -> bool:
        # Whoever has a token can give it up.
        if token.id == principal.token_id:
            return True
        if token.kind is TokenKind.BUILD:
            # It goes with its build, which can be deleted.
            return False
        if token.kind is TokenKind.USER:
            is_own = token.user_id == principal.user_id
            return is_own and may(principal, Action.MANAGE_OWN_TOKENS, None)
        if token.created_by is not None and token.created_by == principal.user_id:
            return True
        if token.parent_id is not None and token.parent_id == principal.token_id:
            return True
        where = Organization(token.organization_id or "", "", token.created_at)
        return may(principal, Action.MANAGE_TOKENS, where)

    async def caller(self, principal: Principal) -> tuple[Token | None, list[Organization]]:
        """The caller's token, None for an ID token, and the organizations that the caller sees.

        Raises Unauthenticated when the token ended at this very moment.
        """
        organizations = await self._organizations.list_organizations(principal)
        if principal.kind is TokenKind.CI:
            return None, organizations
        token = await self._store.find_token(principal.token_id, self._now())
        if token is None:
            raise Unauthenticated
        return token, organizations
