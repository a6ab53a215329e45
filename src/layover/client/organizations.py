"""Organizations, their members and invitations over the API."""

from collections.abc import Mapping
from typing import TypeVar

from pyqwest import Client as HTTPClient

from layover.client.address import Server
from layover.client.api import CALL_TIMEOUT_MS, Client
from layover.client.errors import ClientError
from layover.rpc.layover.v1 import organizations_pb as pb
from layover.rpc.layover.v1.organizations_connect import OrganizationsServiceClient

Message = TypeVar("Message")


class OrganizationsClient(Client):
    """A server's API, with the part that looks after organizations.

    Where an organization's ID is empty, it is the only one that the token sees.
    """

    def __init__(self, server: Server, *, env: Mapping[str, str] | None = None) -> None:
        super().__init__(server, env=env)
        self._organizations = OrganizationsServiceClient(
            server.url, http_client=HTTPClient(self._transport)
        )

    async def list_organizations(self) -> list[pb.Organization]:
        """The organizations that the token sees, by name."""
        answer = await self._again(
            lambda: self._organizations.list_organizations(
                pb.ListOrganizationsRequest(), headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return list(answer.organizations)

    async def create_organization(self, name: str) -> pb.Organization:
        """Make an organization. Tried once: a second try could make a second one."""
        answer = await self._once(
            self._organizations.create_organization(
                pb.CreateOrganizationRequest(name=name),
                headers=self._headers,
                timeout_ms=CALL_TIMEOUT_MS,
            )
        )
        return _there(answer.organization, "organization")

    async def rename_organization(self, organization_id: str, name: str) -> pb.Organization:
        """Give an organization another name."""
        request = pb.UpdateOrganizationRequest(organization_id=organization_id, name=name)
        answer = await self._again(
            lambda: self._organizations.update_organization(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return _there(answer.organization, "organization")

    async def delete_organization(self, organization_id: str) -> None:
        """Delete an organization, which has no projects any more."""
        await self._once(
            self._organizations.delete_organization(
                pb.DeleteOrganizationRequest(organization_id=organization_id),
                headers=self._headers,
                timeout_ms=CALL_TIMEOUT_MS,
            )
        )

    async def list_members(self, organization_id: str) -> list[pb.Member]:
        """The organization's members, by name."""
        request = pb.ListMembersRequest(organization_id=organization_id)
        answer = await self._again(
            lambda: self._organizations.list_members(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return list(answer.members)

    async def invite_member(self, request: pb.InviteMemberRequest) -> tuple[pb.Invitation, str]:
        """Make an invitation; return it and its link, which is told this once."""
        answer = await self._once(
            self._organizations.invite_member(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return _there(answer.invitation, "invitation"), answer.url

    async def list_invitations(self, organization_id: str) -> list[pb.Invitation]:
        """Those that can still be used, the newest first."""
        request = pb.ListInvitationsRequest(organization_id=organization_id)
        answer = await self._again(
            lambda: self._organizations.list_invitations(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return list(answer.invitations)

    async def delete_invitation(self, organization_id: str, invitation_id: str) -> None:
        """Let an invitation's link lead nowhere."""
        request = pb.DeleteInvitationRequest(
            organization_id=organization_id, invitation_id=invitation_id
        )
        await self._once(
            self._organizations.delete_invitation(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    async def update_member(
        self, organization_id: str, user_id: str, role: pb.Role
    ) -> tuple[pb.Member, int]:
        """Give a member another role; return it, and how many tokens ended with that."""
        request = pb.UpdateMemberRequest(
            organization_id=organization_id, user_id=user_id, role=role
        )
        answer = await self._again(
            lambda: self._organizations.update_member(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return _there(answer.member, "member"), answer.revoked_tokens

    async def remove_member(self, organization_id: str, user_id: str) -> int:
        """Remove a member; return how many tokens ended with that."""
        request = pb.RemoveMemberRequest(organization_id=organization_id, user_id=user_id)
        answer = await self._once(
            self._organizations.remove_member(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return answer.revoked_tokens


def _there(message: Message | None, what: str) -> Message:
    if message is None:
        raise ClientError(f"the server answered without the {what}")
    return message
