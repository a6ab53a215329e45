"""layover.v1.BuildsService: builds as Layover's own client lists and shows them."""

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from connectrpc.request import RequestContext

from layover.builds.address import PublicAddress
from layover.builds.life import BuildService
from layover.builds.listing import ListingService
from layover.builds.models import Build, SavedImage
from layover.builds.pulls import target_of
from layover.builds.reports import ReportService
from layover.http.rpc.authentication import caller
from layover.http.rpc.convert import STATUSES, to_duration, to_length, to_timestamp
from layover.identity.retention import InvalidRetention
from layover.retention.receipts import ReceiptService
from layover.rpc.layover.v1 import builds_connect
from layover.rpc.layover.v1 import builds_pb as pb

Context: TypeAlias = RequestContext[Any, Any]


class BuildsRpc(builds_connect.BuildsService):
    """Parses each request, calls the services, shapes the response."""

    def __init__(
        self,
        builds: BuildService,
        reports: ReportService,
        listing: ListingService,
        receipts: ReceiptService,
        address: PublicAddress,
    ) -> None:
        self._builds = builds
        self._reports = reports
        self._listing = listing
        self._receipts = receipts
        self._address = address

    async def list_builds(
        self, request: pb.ListBuildsRequest, ctx: Context
    ) -> pb.ListBuildsResponse:
        page = await self._listing.list_page(
            caller(), request.project_id or None, request.page_size, request.page_token
        )
        sizes = await self._listing.sizes(page.builds)
        return pb.ListBuildsResponse(
            builds=[_build(build, sizes.get(build.id, 0)) for build in page.builds],
            next_page_token=page.next_token or "",
        )

    async def get_build(self, request: pb.GetBuildRequest, ctx: Context) -> pb.GetBuildResponse:
        build, images = await self._listing.show(caller(), request.build_id)
        size_bytes = (await self._listing.sizes([build])).get(build.id, 0)
        message = _build(build, size_bytes)
        message.images = list(self._images(build, images))
        return pb.GetBuildResponse(
            build=message,
            steps=[
                pb.Step(
                    digest=step.digest,
                    name=step.name,
                    started_at=to_timestamp(step.started_at),
                    completed_at=to_timestamp(step.completed_at),
                    cached=step.cached,
                    error=step.error or "",
                )
                for step in await self._reports.steps(build)
            ],
            dockerfiles=[
                pb.Dockerfile(target=file.target, filename=file.filename, contents=file.contents)
                for file in await self._reports.dockerfiles(build)
            ],
        )

    async def get_build_log(
        self, request: pb.GetBuildLogRequest, ctx: Context
    ) -> AsyncIterator[pb.GetBuildLogResponse]:
        async for entry in self._reports.log(caller(), request.build_id):
            yield pb.GetBuildLogResponse(
                step_digest=entry.step_digest,
                timestamp=to_timestamp(entry.timestamp),
                stream=entry.stream,
                message=entry.message,
            )

    async def keep_build(self, request: pb.KeepBuildRequest, ctx: Context) -> pb.KeepBuildResponse:
        if request.retention is None:
            raise InvalidRetention("retention is missing: how long to keep the build from now on")
        build = await self._builds.keep(caller(), request.build_id, to_length(request.retention))
        return pb.KeepBuildResponse(expires_at=to_timestamp(build.expires_at))

    async def delete_build(
        self, request: pb.DeleteBuildRequest, ctx: Context
    ) -> pb.DeleteBuildResponse:
        await self._builds.delete(caller(), request.build_id)
        return pb.DeleteBuildResponse()

    async def get_receipt(
        self, request: pb.GetReceiptRequest, ctx: Context
    ) -> pb.GetReceiptResponse:
        receipt = await self._receipts.find(self._builds, caller(), request.build_id)
        return pb.GetReceiptResponse(
            document=receipt.document, signature=receipt.signature, public_key=receipt.public_key
        )

    async def get_receipt_key(
        self, request: pb.GetReceiptKeyRequest, ctx: Context
    ) -> pb.GetReceiptKeyResponse:
        caller()
        return pb.GetReceiptKeyResponse(public_key=self._receipts.public_key)

    def _images(self, build: Build, images: list[SavedImage]) -> list[pb.SavedImage]:
        return [
            pb.SavedImage(
                target=target,
                reference=self._address.reference(build.project_id, image.tag),
                digest=image.digest,
                platforms=list(image.platforms),
                size_bytes=image.size_bytes,
            )
            for image in images
            if (target := target_of(build, image)) is not None
        ]


def _build(build: Build, size_bytes: int) -> pb.Build:
    return pb.Build(
        id=build.id,
        status=STATUSES[build.status],
        project_id=build.project_id,
        created_at=to_timestamp(build.created_at),
        started_at=to_timestamp(build.started_at),
        finished_at=to_timestamp(build.finished_at),
        command=build.command.value,
        save=build.is_saved,
        tags=list(build.tags),
        size_bytes=size_bytes,
        error=build.error or "",
        expires_at=to_timestamp(build.expires_at),
        retention=to_duration(build.retention),
    )
