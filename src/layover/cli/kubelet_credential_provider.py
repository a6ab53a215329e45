"""`layover kubelet-credential-provider`: trades a pod's service account for a pull token."""

import asyncio
import json
import sys
from datetime import UTC, datetime

import click

from layover.cli.errors import CliError
from layover.cli.options import URL, environment, run
from layover.client import choices
from layover.client.address import Server
from layover.client.api import Client
from layover.client.errors import (
    AccessRefused,
    ClientError,
    NotFound,
    RequestRefused,
    TokenRefused,
)
from layover.client.kubernetes import (
    ProviderRequest,
    ProviderRequestInvalid,
    cache_duration,
    claims_of,
    provider_response,
    read_provider_request,
)
from layover.client.registries import parse_registry
from layover.rpc.layover.v1.tokens_pb import ExchangeTokenResponse

# The kubelet ends a provider that takes a minute.
_TIMEOUT_SECONDS = 45

_MAX_REQUEST_BYTES = 1 << 20


class NobodyTrusts(CliError):
    """The server gave nothing for the service account's token."""

    def __init__(self, request: ProviderRequest, why: ClientError) -> None:
        super().__init__(
            f"no pull token of project {request.project_id} for this pod's service account: {why}."
            f" Its token says: {claims_of(request.token)}. A trust policy of that project has to"
            " mean it: `layover projects trust list` shows those that there are"
        )


class ProviderTooSlow(CliError):
    """The server did not answer while the kubelet waits."""

    def __init__(self, url: str) -> None:
        super().__init__(f"the server at {url} did not answer within {_TIMEOUT_SECONDS} s")


@click.command(
    "kubelet-credential-provider",
    epilog="Example: layover kubelet-credential-provider --url https://layover.example.com"
    " < request.json",
)
@URL
def command(url: str | None) -> None:
    """Answer a kubelet that asks how to pull an image, as a credential provider plugin (v1).

    Reads a CredentialProviderRequest from standard input, trades the pod's service account token
    in it for a pull token of the image's project, which has to trust it, and writes the
    CredentialProviderResponse. For the server's own images alone: no other host gets a token.
    """
    server_url = choices.find_named_url(url, environment())
    content = sys.stdin.buffer.read(_MAX_REQUEST_BYTES + 1)
    if len(content) > _MAX_REQUEST_BYTES:
        raise ProviderRequestInvalid(f"the request is longer than {_MAX_REQUEST_BYTES} bytes")
    request = read_provider_request(content)
    if not parse_registry(request.image.host).is_at(server_url):
        raise ProviderRequestInvalid(
            f"the image is at {request.image.host}, and this provider answers for {server_url}"
            " alone: check `matchImages` in the kubelet's CredentialProviderConfig"
        )
    got = run(_exchange(Server(server_url, request.token), request))
    if not got.token or got.expires_at is None or got.project_id != request.project_id:
        raise ClientError("the server answered without a token of the image's project")
    expires_at = got.expires_at.to_datetime().astimezone(UTC)
    cached_for = cache_duration(expires_at, datetime.now(UTC))
    click.echo(json.dumps(provider_response(request, got.token, cached_for)))


async def _exchange(server: Server, request: ProviderRequest) -> ExchangeTokenResponse:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS), Client(server) as client:
            return await client.exchange_token(request.project_id, pull_only=True)
    except TimeoutError:
        raise ProviderTooSlow(server.url) from None
    except (TokenRefused, AccessRefused, NotFound, RequestRefused) as error:
        raise NobodyTrusts(request, error) from error
