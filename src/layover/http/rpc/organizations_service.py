"""layover.v1.OrganizationsService and depot.core.v1.OrganizationService."""

from typing import Any, TypeAlias

from connectrpc.request import RequestContext

from layover.builds.address import PublicAddress
from layover.http.rpc.authentication import caller
from layover.http.rpc.convert import to_timestamp
from layover.http.rpc.identity_messages import (
    invitation_message,
    member_message,
    organization_message,
    to_lifetime,
    to_role,
)
from layover.identity.organizations import OrganizationService
from layover.rpc.depot.core.v1 import organization_connect as depot_connect
from layover.rpc.depot.core.v1 import organization_pb as depot
from layover.rpc.layover.v1 import organizations_connect
from layover.rpc.layover.v1 import organizations_pb as pb

Context: TypeAlias = RequestContext[Any, Any]


class DepotOrganizationsRpc(depot_connect.OrganizationService):
    """Lists what the caller may see."""

    def __init__(self, organizations: OrganizationService) -> None:
        self._organizations = organizations

    async def list_organizations(
        self, request: depot.ListOrganizationsRequest, ctx: Context
    ) -> depot.ListOrganizationsResponse:
        return depot.ListOrganizationsResponse(
            organizations=[
                depot.ListOrganizationsResponse.Organization(
                    org_id=organization.id,
                    name=organization.name,
                    created_at=to_timestamp(organization.created_at),
                )
                for organization in await self._organizations.list_organizations(caller())
            ]
        )


class OrganizationsRpc(organizations_connect.OrganizationsService):
    """Parses each request, calls the service, shapes the response."""

    def __init__(self, organizations: OrganizationService, address: PublicAddress) -> None:
        self._organizations = organizations
        self._address = address

    async def list_organizations(
        self, request: pb.ListOrganizationsRequest, ctx: Context
    ) -> pb.ListOrganizationsResponse:
        found = await self._organizations.list_organizations(caller())
        return pb.ListOrganizationsResponse(
            organizations=[organization_message(each, caller()) for each in found]
        )

    async def create_organization(
        self, request: pb.CreateOrganizationRequest, ctx: Context
    ) -> pb.CreateOrganizationResponse:
        organization = await self._organizations.create(caller(), request.name)
        message = organization_message(organization, caller())
        message.role = pb.Role.OWNER
        return pb.CreateOrganizationResponse(organization=message)

    async def update_organization(
        self, request: pb.UpdateOrganizationRequest, ctx: Context
    ) -> pb.UpdateOrganizationResponse:
        organization = await self._organizations.rename(
            caller(), request.organization_id, request.name
        )
        return pb.UpdateOrganizationResponse(
            organization=organization_message(organization, caller())
        )

    async def delete_organization(
        self, request: pb.DeleteOrganizationRequest, ctx: Context
    ) -> pb.DeleteOrganizationResponse:
        await self._organizations.delete(caller(), request.organization_id)
        return pb.DeleteOrganizationResponse()

    # --- members -------------------------------------------------------------------------------

    async def list_members(
        self, request: pb.ListMembersRequest, ctx: Context
    ) -> pb.ListMembersResponse:
        members = await self._organizations.list_members(caller(), request.organization_id)
        return pb.ListMembersResponse(members=[member_message(member) for member in members])

    async def update_member(
        self, request: pb.UpdateMemberRequest, ctx: Context
    ) -> pb.UpdateMemberResponse:
        member, revoked = await self._organizations.update_member(
            caller(), request.organization_id, request.user_id, to_role(request.role)
        )
        return pb.UpdateMemberResponse(member=member_message(member), revoked_tokens=revoked)

    async def remove_member(
        self, request: pb.RemoveMemberRequest, ctx: Context
    ) -> pb.RemoveMemberResponse:
        revoked = await self._organizations.remove_member(
            caller(), request.organization_id, request.user_id
        )
        return pb.RemoveMemberResponse(revoked_tokens=revoked)

    # --- invitations ---------------------------------------------------------------------------

    async def invite_member(
        self, request: pb.InviteMemberRequest, ctx: Context
    ) -> pb.InviteMemberResponse:
        made = await self._organizations.invite(
            caller(),
            request.organization_id,
            to_role(request.role),
            request.note,
            to_lifetime(request.lifetime),
        )
        return pb.InviteMemberResponse(
            invitation=invitation_message(made.invitation),
            url=self._address.join_url(made.secret),
        )

    async def list_invitations(
        self, request: pb.ListInvitationsRequest, ctx: Context
    ) -> pb.ListInvitationsResponse:
        found = await self._organizations.list_invitations(caller(), request.organization_id)
        return pb.ListInvitationsResponse(invitations=[invitation_message(each) for each in found])

    async def delete_invitation(
        self, request: pb.DeleteInvitationRequest, ctx: Context
    ) -> pb.DeleteInvitationResponse:
        await self._organizations.delete_invitation(
            caller(), request.organization_id, request.invitation_id
        )
        return pb.DeleteInvitationResponse()
