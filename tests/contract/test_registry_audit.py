"""What is in the audit log after a request to the registry, on every pair of stores."""

from dataclasses import replace

import pytest

from layover.audit.models import AuditEvent, AuditQuery, Result
from layover.identity.ids import new_secret, public_part
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST
from tests.contract.registry_api import FOREIGNER, PROJECT, PULLER, USER, RegistryApi, builder
from tests.stores import REPOSITORY, SIBLING, Stores, image, push_blob, push_image

pytestmark = pytest.mark.anyio

TYPE = {"content-type": OCI_MANIFEST}


@pytest.fixture
def api(stores: Stores) -> RegistryApi:
    return RegistryApi(stores)


async def told(api: RegistryApi, organization_id: str | None = "org") -> list[AuditEvent]:
    """An organization's log, or the server's own, in the order that things happened."""
    await api.audit.close()
    events = await api.stores.audit.list_page(AuditQuery(organization_id), None, 100)
    return [replace(event, id=0) for event in reversed(events)]


async def put(api: RegistryApi, caller: object, reference: str, body: bytes) -> int:
    answer = await api.call(
        caller,  # type: ignore[arg-type]  # whoever a test says
        "PUT",
        f"/v2/{REPOSITORY}/manifests/{reference}",
        body,
        {**TYPE, "user-agent": "docker/29.0\x1b[31m"},
    )
    return answer.status


async def test_a_push_is_told_with_who_what_where_and_from_where(api: RegistryApi) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer")
    assert await put(api, PROJECT, "v1?tag=v2", body) == 201
    (event,) = await told(api)
    assert (event.action, event.result) == ("manifests.push", Result.DONE)
    assert (event.organization_id, event.project_id) == ("org", "mine")
    assert (event.actor_kind, event.actor_id) == ("project", "project-token")
    assert event.subject == f"{REPOSITORY}:v1"
    assert event.address == "127.0.0.1"
    assert len(event.request_id) == 16
    assert event.details == {
        "digest": str(Digest.of(body)),
        "tags": "v2",
        "client": "docker/29.0[31m",
    }


async def test_deletions_are_told_by_what_was_deleted(api: RegistryApi) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    blob = await push_blob(api.stores, REPOSITORY, b"alone")
    base = f"/v2/{REPOSITORY}"
    for path in ("manifests/v1", f"manifests/{Digest.of(body)}", f"blobs/{blob}"):
        assert (await api.call(PROJECT, "DELETE", f"{base}/{path}")).status == 202
    assert [(event.action, event.subject) for event in await told(api)] == [
        ("tags.delete", f"{REPOSITORY}:v1"),
        ("manifests.delete", f"{REPOSITORY}@{Digest.of(body)}"),
        ("blobs.delete", f"{REPOSITORY}@{blob}"),
    ]


async def test_a_mount_from_another_repository_is_told(api: RegistryApi) -> None:
    blob = await push_blob(api.stores, REPOSITORY, b"shared")
    for source, status in ((REPOSITORY, 201), ("mine/nothing", 202)):
        url = f"/v2/{SIBLING}/blobs/uploads/?mount={blob}&from={source}"
        assert (await api.call(PROJECT, "POST", url)).status == status
    (event,) = await told(api)
    assert (event.action, event.subject) == ("blobs.mount", f"{SIBLING}@{blob}")
    assert event.details["from"] == str(REPOSITORY)


async def test_a_mount_from_what_is_another_organizations_is_in_the_callers_log_alone(
    api: RegistryApi,
) -> None:
    digest = Digest.of(b"theirs")
    url = f"/v2/{REPOSITORY}/blobs/uploads/?mount={digest}&from=foreign/app"
    assert (await api.call(PROJECT, "POST", url)).status == 202
    (event,) = await told(api)
    assert (event.action, event.result) == ("repositories.pull", Result.DENIED)
    assert (event.subject, event.project_id) == ("foreign/app", "mine")
    assert await told(api, "other-org") == []


async def test_reads_and_uploads_are_not_told(api: RegistryApi) -> None:
    body = await push_image(api.stores, REPOSITORY, b"layer", tag="v1")
    for path in ("manifests/v1", f"blobs/{Digest.of(b'layer')}", "tags/list"):
        assert (await api.call(PROJECT, "GET", f"/v2/{REPOSITORY}/{path}")).status == 200
    assert (await api.call(PROJECT, "POST", f"/v2/{REPOSITORY}/blobs/uploads/")).status == 202
    assert (await api.call(PROJECT, "GET", "/v2/")).status == 200
    assert body
    assert await told(api) == []


async def test_what_a_caller_may_not_is_told_as_denied(api: RegistryApi) -> None:
    assert await put(api, PULLER, "v1", image()) == 403
    assert (await api.call(PULLER, "DELETE", f"/v2/{REPOSITORY}/manifests/v1")).status == 403
    assert await put(api, builder("b1"), "others", image()) == 403
    assert [(event.action, event.result, event.project_id) for event in await told(api)] == [
        ("repositories.push", Result.DENIED, "mine"),
        ("repositories.delete", Result.DENIED, "mine"),
        ("manifests.push", Result.DENIED, "mine"),
    ]


@pytest.mark.parametrize("repository", ["mine/app", "never/was"])
async def test_what_is_tried_on_others_is_in_the_callers_log_and_in_nobody_elses(
    api: RegistryApi, repository: str
) -> None:
    for method in ("GET", "DELETE"):
        answer = await api.call(FOREIGNER, method, f"/v2/{repository}/manifests/v1")
        assert answer.status == 404
    events = await told(api, "other-org")
    assert [(event.action, event.result, event.subject) for event in events] == [
        ("repositories.pull", Result.DENIED, repository),
        ("repositories.delete", Result.DENIED, repository),
    ]
    assert {event.project_id for event in events} == {None}
    assert await told(api) == []


async def test_a_push_that_fails_is_told_with_why(api: RegistryApi) -> None:
    assert await put(api, PROJECT, "v1", b"{}") == 400
    (event,) = await told(api)
    assert (event.action, event.result) == ("manifests.push", Result.FAILED)
    assert event.details["reason"]


async def test_logins_are_told_once_and_counted(api: RegistryApi) -> None:
    for _ in range(5):
        await api.registry_token(USER, "repository:mine/app:pull")
    first, counted = await told(api)
    assert (first.action, first.result, first.actor_id) == (
        "login.registry",
        Result.DONE,
        "user-token",
    )
    assert "times" not in first.details
    assert counted.details["times"] == "4"


async def test_refused_logins_are_told_to_the_server_and_of_a_token_that_is_over_to_its_owner(
    api: RegistryApi,
) -> None:
    over = await api.token(PULLER, until=api.now)
    unknown = new_secret()
    for secret in (over, unknown):
        assert (await api.call(secret, "GET", "/v2/")).status == 401
        form = f"grant_type=password&username=x-token&password={secret}".encode()
        assert (await api.call(None, "POST", "/token", form)).status == 401
    assert (await api.call(None, "GET", "/v2/")).status == 401
    own = await told(api)
    assert [(event.action, event.result, event.actor_id) for event in own] == [
        ("login.registry", Result.DENIED, "pull-token")
    ] * 2
    assert own[0].project_id == "mine"
    strangers = await told(api, None)
    assert [(event.actor_kind, event.address) for event in strangers] == [
        ("nobody", "127.0.0.1")
    ] * 2
    assert strangers[0].details["token"] == public_part(unknown)
    for secret in (over, unknown):
        assert secret not in repr((own, strangers))
