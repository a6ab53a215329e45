"""`layover projects trust`: whose ID tokens open a project, so that CI needs no secret."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from layover.cli.build_rows import moment
from layover.cli.errors import DONE, FAILED, WrongUsage, explain, say
from layover.cli.options import OUTPUT, PROJECT, find_project, find_server, run, server_options
from layover.cli.output import Column, Row, age, print_rows, rfc3339
from layover.client.address import Server
from layover.client.errors import NotFound
from layover.client.trust import TrustClient
from layover.rpc.layover.v1.trust_pb import CreateTrustPolicyRequest, Grant, TrustPolicy

PROVIDERS = ("github", "gitlab", "circleci", "buildkite", "kubernetes", "generic")

_GRANTS = {"project": Grant.PROJECT, "pull": Grant.PULL}
_TOLD_GRANTS = {grant: name for name, grant in _GRANTS.items()}

_COLUMNS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("PROVIDER", "provider"),
    Column("ISSUER", "issuer"),
    Column("CLAIMS", "claims"),
    Column("GRANTS", "grants"),
    Column("CREATED BY", "createdBy"),
    Column("AGE", "age", is_number=True),
)


class PairType(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, separator, text = str(value).partition("=")
        if not separator or not name.strip() or not text.strip():
            self.fail(f"expected NAME=VALUE, not {value!r}", param, ctx)
        return name.strip(), text.strip()


@click.group(
    "trust", epilog="Example: layover projects trust add github repository=acme/app branch=main"
)
def command() -> None:
    """Say which CI jobs and pods may use a project, without a secret of yours."""


@command.command(
    "add",
    epilog="Example: layover projects trust add github repository=acme/app branch=main",
)
@click.argument("provider", type=click.Choice(PROVIDERS))
@click.argument("conditions", type=PairType(), metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--name", metavar="NAME", help="What the policy is called in listings.")
@click.option(
    "--claim",
    "claims",
    type=PairType(),
    multiple=True,
    metavar="CLAIM=PATTERN",
    help="Another claim of the ID token that has to match; several times.",
)
@click.option("--issuer", default="", metavar="URL", help="Who signs, if not the provider itself.")
@click.option(
    "--audience",
    default="",
    metavar="TEXT",
    help="Whom the ID token has to be for [default: this server].",
)
@click.option(
    "--grant",
    type=click.Choice(list(_GRANTS)),
    default="project",
    show_default=True,
    help="All that a project's token may, or only to pull.",
)
@PROJECT
@OUTPUT
@server_options
def add(
    provider: str,
    conditions: Sequence[tuple[str, str]],
    name: str | None,
    claims: Sequence[tuple[str, str]],
    issuer: str,
    audience: str,
    grant: str,
    project: str | None,
    form: str,
    url: str | None,
    token: str | None,
) -> None:
    """Let the ID tokens of CI jobs or pods open a project.

    Every condition has to hold. In a value `*` stands for any text. The conditions of each
    provider, of which those in capitals are needed:

    \b
    github      REPOSITORY branch tag ref environment workflow
                reusable-workflow event repository-id owner-id
    gitlab      PROJECT ref ref-type ref-protected environment project-id
    circleci    ORGANIZATION PROJECT branch tag origin context
    buildkite   ORGANIZATION PIPELINE branch tag step source
    kubernetes  NAMESPACE SERVICE-ACCOUNT, and --issuer
    generic     none: --issuer and --claim
    """
    request = CreateTrustPolicyRequest(
        name=name or " ".join([provider, *(value for _, value in conditions)])[:100],
        provider=provider,
        issuer=issuer,
        audience=audience,
        conditions=_each_once(conditions, "condition"),
        claims=_each_once(claims, "claim"),
        grants=_GRANTS[grant],
    )
    policy, warning = run(_add(find_server(url, token, project), project, request))
    _print([policy], form)
    if warning:
        say(f"warning: it trusts nobody yet: {warning}")


@command.command("list", epilog="Example: layover projects trust list --output json")
@PROJECT
@OUTPUT
@server_options
def list_policies(project: str | None, form: str, url: str | None, token: str | None) -> None:
    """List a project's trust policies."""
    _print(run(_list(find_server(url, token, project), project)), form)


@command.command("rm", epilog="Example: layover projects trust rm POLICY_ID")
@click.argument("policy_ids", metavar="POLICY_ID...", nargs=-1, required=True)
@PROJECT
@server_options
def remove(
    policy_ids: Sequence[str], project: str | None, url: str | None, token: str | None
) -> int:
    """Delete trust policies; what was traded for by them ends at once."""
    return run(_remove(find_server(url, token, project), project, policy_ids))


def _each_once(pairs: Sequence[tuple[str, str]], what: str) -> dict[str, str]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise WrongUsage(f"a {what} is given twice: each once, or a policy for each")
    return named


def _print(policies: Sequence[TrustPolicy], form: str) -> None:
    now = datetime.now(UTC)
    print_rows(
        [_row(policy) for policy in policies],
        [_shown(policy, now) for policy in policies],
        _COLUMNS,
        form,
    )


def _row(policy: TrustPolicy) -> Row:
    return {
        "id": policy.id,
        "name": policy.name,
        "projectId": policy.project_id,
        "provider": policy.provider,
        "issuer": policy.issuer,
        # Null is this server's own address.
        "audience": policy.audience or None,
        "claims": dict(policy.claims),
        "grants": _TOLD_GRANTS.get(policy.grants, ""),
        "createdBy": policy.created_by or None,
        "createdAt": rfc3339(moment(policy.created_at)),
    }


def _shown(policy: TrustPolicy, now: datetime) -> dict[str, str]:
    claims = [f"{name}={pattern}" for name, pattern in sorted(policy.claims.items())]
    if policy.audience:
        claims.append(f"aud={policy.audience}")
    return {
        "id": policy.id,
        "name": policy.name,
        "provider": policy.provider,
        "issuer": policy.issuer,
        "claims": "\n".join(claims),
        "grants": _TOLD_GRANTS.get(policy.grants, ""),
        "createdBy": policy.created_by,
        "age": age(moment(policy.created_at), now),
    }


async def _add(
    server: Server, project: str | None, request: CreateTrustPolicyRequest
) -> tuple[TrustPolicy, str]:
    async with TrustClient(server) as client:
        request.project_id = await find_project(client, project, Path())
        return await client.create_trust_policy(request)


async def _list(server: Server, project: str | None) -> list[TrustPolicy]:
    async with TrustClient(server) as client:
        return await client.list_trust_policies(await find_project(client, project, Path()))


async def _remove(server: Server, project: str | None, policy_ids: Sequence[str]) -> int:
    status = DONE
    async with TrustClient(server) as client:
        project_id = await find_project(client, project, Path())
        for policy_id in policy_ids:
            try:
                await client.delete_trust_policy(project_id, policy_id)
            except NotFound as error:
                # The others go all the same.
                say(explain(error))
                status = FAILED
            else:
                click.echo(policy_id)
    return status
