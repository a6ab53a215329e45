"""Between the messages of layover.v1's organizations and tokens and identity's values."""

from collections.abc import Mapping
from datetime import timedelta

from protobuf.wkt import Duration

from layover.http.rpc.convert import to_timestamp
from layover.identity.management import InvalidChange, Invitation, Member, Token
from layover.identity.models import Organization, Principal, Role, TokenKind
from layover.rpc.layover.v1 import organizations_pb as organizations
from layover.rpc.layover.v1 import tokens_pb as tokens

ROLES: Mapping[Role, organizations.Role] = {
    Role.OWNER: organizations.Role.OWNER,
    Role.MEMBER: organizations.Role.MEMBER,
    Role.VIEWER: organizations.Role.VIEWER,
}
_FROM_ROLES = {message: role for role, message in ROLES.items()}

KINDS: Mapping[TokenKind, tokens.TokenKind] = {
    TokenKind.USER: tokens.TokenKind.USER,
    TokenKind.ORGANIZATION: tokens.TokenKind.ORGANIZATION,
    TokenKind.PROJECT: tokens.TokenKind.PROJECT,
    TokenKind.PULL: tokens.TokenKind.PULL,
    TokenKind.BUILD: tokens.TokenKind.BUILD,
    TokenKind.CI: tokens.TokenKind.CI,
}


def to_role(role: organizations.Role) -> Role:
    """Raises InvalidChange for none, and for one that this server does not know."""
    found = _FROM_ROLES.get(role)
    if found is None:
        raise InvalidChange("a role is needed: owner, member or viewer")
    return found


def to_lifetime(lifetime: Duration | None) -> timedelta | None:
    """Raises InvalidChange for what is out of timedelta's range."""
    if lifetime is None:
        return None
    try:
        return lifetime.to_timedelta()
    except OverflowError:
        raise InvalidChange(f"{lifetime.seconds} seconds are no lifetime") from None


def organization_message(
    organization: Organization, principal: Principal
) -> organizations.Organization:
    role = principal.roles.get(organization.id)
    return organizations.Organization(
        id=organization.id,
        name=organization.name,
        created_at=to_timestamp(organization.created_at),
        role=organizations.Role.UNSPECIFIED if role is None else ROLES[role],
    )


def member_message(member: Member) -> organizations.Member:
    return organizations.Member(
        user_id=member.user_id,
        name=member.name,
        role=ROLES[member.role],
        joined_at=to_timestamp(member.joined_at),
    )


def invitation_message(invitation: Invitation) -> organizations.Invitation:
    return organizations.Invitation(
        id=invitation.id,
        role=ROLES[invitation.role],
        note=invitation.note,
        created_by=invitation.created_by_name,
        created_at=to_timestamp(invitation.created_at),
        expires_at=to_timestamp(invitation.expires_at),
    )


def token_message(token: Token) -> tokens.Token:
    return tokens.Token(
        id=token.id,
        kind=KINDS[token.kind],
        description=token.description,
        organization_id=token.organization_id or "",
        project_id=token.project_id or "",
        build_id=token.build_id or "",
        created_by=token.maker,
        created_at=to_timestamp(token.created_at),
        expires_at=to_timestamp(token.expires_at),
        last_used_at=to_timestamp(token.last_used_at),
    )


def id_token_message(principal: Principal) -> tokens.Token:
    """What is told of an ID token, which is none of ours."""
    return tokens.Token(
        id=principal.token_id, kind=KINDS[principal.kind], description=principal.name
    )
