"""The distribution specification 1.1, an endpoint at a time, over a real server's socket."""

from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.registry import (
    LAYER_TYPE,
    OCI_INDEX,
    OCI_MANIFEST,
    Registry,
    code,
    descriptor,
    digest_of,
    image,
    index,
    location,
    raw,
)
from tests.e2e.server import LayoverServer

pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)

LARGE = bytes(range(256)) * 8192  # 2 MiB: more than a block


@pytest.fixture
def registry(server: LayoverServer, request: pytest.FixtureRequest) -> Registry:
    """A repository of the test's own."""
    name = request.node.name.split("[")[0].replace("_", "-")
    return Registry(server, f"{server.project_id}/{name}", server.basic_auth)


# --- support and manifests --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_the_base_says_that_the_specification_is_spoken(registry: Registry, path: str) -> None:
    answer = registry("GET", path)
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "media_type", [OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"]
)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512", None])
def test_a_manifest_is_pulled_as_it_was_pushed(
    registry: Registry, media_type: str, algorithm: str | None
) -> None:
    for content in (b"{}", b"layer"):
        registry.push_blob(content)
    body = b" " + image(b"layer", mediaType=media_type, annotations={"algorithm": str(algorithm)})
    digest = digest_of(body, algorithm or "sha256")
    pushed = registry.push_manifest(digest if algorithm else "main", body)
    assert pushed.status == 201
    assert pushed.headers["Docker-Content-Digest"] == digest
    assert location(pushed) == f"/v2/{registry.repository}/manifests/{digest}"
    for reference in (digest,) if algorithm else (digest, "main"):
        pulled = registry("GET", f"manifests/{reference}", headers={"Accept": media_type})
        looked = registry("HEAD", f"manifests/{reference}")
        for answer in (pulled, looked):
            assert answer.status == 200
            assert answer.headers["Content-Type"] == media_type
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.headers["Content-Length"] == str(len(body))
        assert (pulled.body, looked.body) == (body, b"")


@pytest.mark.parametrize(
    "media_type", [OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"]
)
def test_an_index_is_pulled_as_it_was_pushed(registry: Registry, media_type: str) -> None:
    child = registry.push_image("child", b"layer")
    body = index(child, mediaType=media_type)
    assert registry.push_manifest("multi", body).status == 201
    pulled = registry("GET", "manifests/multi")
    assert (pulled.headers["Content-Type"], pulled.body) == (media_type, body)


def test_a_manifest_that_the_client_has_already_is_not_sent_again(registry: Registry) -> None:
    body = registry.push_image("main", b"layer")
    etag = f'"{digest_of(body)}"'
    assert registry("GET", "manifests/main").headers["ETag"] == etag
    for method in ("GET", "HEAD"):
        for tags in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            answer = registry(method, "manifests/main", headers={"If-None-Match": tags})
            assert (answer.status, answer.body) == (304, b"")
            assert answer.headers["ETag"] == etag
    assert registry("GET", "manifests/main", headers={"If-None-Match": '"other"'}).body == body


def test_a_tag_moves_and_every_later_answer_knows(registry: Registry) -> None:
    # Invariant 6.
    for number in range(5):
        body = registry.push_image("main", str(number).encode())
        assert registry("GET", "manifests/main").body == body


@pytest.mark.parametrize(
    "name",
    ["manifests", "blobs", "uploads", "blobs/uploads", "tags/list", "referrers", "v2", "token"],
)
def test_a_repository_may_be_named_as_an_endpoint_is(registry: Registry, name: str) -> None:
    named = registry.at(f"{registry.repository}/{name}")
    body = named.push_image("list", b"layer")
    assert named("GET", "manifests/list").body == body
    assert named("GET", f"blobs/{digest_of(b'layer')}").body == b"layer"
    assert named("GET", "tags/list").json() == {"name": named.repository, "tags": ["list"]}
    session = named.start()
    assert named("PATCH", session, b"x").headers["Range"] == "0-0"
    assert named("DELETE", session).status == 204
    assert named("GET", f"referrers/{digest_of(body)}").json()["manifests"] == []


# --- blobs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_is_pulled_as_it_was_pushed(registry: Registry, algorithm: str) -> None:
    digest = registry.push_blob(LARGE, algorithm)
    pulled = registry("GET", f"blobs/{digest}")
    looked = registry("HEAD", f"blobs/{digest}")
    for answer in (pulled, looked):
        assert answer.status == 200
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Content-Length"] == str(len(LARGE))
        assert answer.headers["Accept-Ranges"] == "bytes"
    assert pulled.body == LARGE
    assert looked.body == b""


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-1999999", 1_000_000, 2_000_000),
        ("bytes=-7", len(LARGE) - 7, len(LARGE)),
        ("bytes=-99999999", 0, len(LARGE)),
        ("bytes=2097151-", len(LARGE) - 1, len(LARGE)),
        ("bytes=5-99999999", 5, len(LARGE)),
    ],
)
def test_a_part_of_a_blob_is_pulled_alone(
    registry: Registry, asked: str, start: int, stop: int
) -> None:
    digest = registry.push_blob(LARGE)
    answer = registry("GET", f"blobs/{digest}", headers={"Range": asked})
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(LARGE)}"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.body == LARGE[start:stop]


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "items=0-1", "bytes=5-1", "bytes=a-b", "bytes=" + "9" * 9000 + "-"]
)
def test_a_range_of_another_form_gives_the_whole(registry: Registry, asked: str) -> None:
    digest = registry.push_blob(b"content")
    answer = registry("GET", f"blobs/{digest}", headers={"Range": asked})
    assert (answer.status, answer.body) == (200, b"content")


@pytest.mark.parametrize("asked", ["bytes=7-", "bytes=100-200", "bytes=-0"])
def test_a_range_behind_the_end_is_told_the_size(registry: Registry, asked: str) -> None:
    digest = registry.push_blob(b"content")
    answer = registry("GET", f"blobs/{digest}", headers={"Range": asked})
    assert (answer.status, code(answer)) == (416, "SIZE_INVALID")
    assert answer.headers["Content-Range"] == "bytes */7"


def test_an_empty_blob_has_no_range(registry: Registry) -> None:
    digest = registry.push_blob(b"")
    assert registry("GET", f"blobs/{digest}").status == 200
    for asked in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        answer = registry("GET", f"blobs/{digest}", headers={"Range": asked})
        assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */0")


def test_a_range_counts_for_get_alone_and_under_its_entity_tag(registry: Registry) -> None:
    digest = registry.push_blob(b"content")
    part = {"Range": "bytes=0-1"}
    looked = registry("HEAD", f"blobs/{digest}", headers=part)
    assert (looked.status, looked.headers["Content-Length"]) == (200, "7")
    for tag, body in (
        (f'"{digest}"', b"co"),
        ('"other"', b"content"),
        (f'W/"{digest}"', b"content"),
    ):
        answer = registry("GET", f"blobs/{digest}", headers={**part, "If-Range": tag})
        assert answer.body == body


def test_a_blob_that_the_client_has_already_is_not_sent_again(registry: Registry) -> None:
    digest = registry.push_blob(b"content")
    for method in ("GET", "HEAD"):
        answer = registry(method, f"blobs/{digest}", headers={"If-None-Match": f'"{digest}"'})
        assert (answer.status, answer.body) == (304, b"")


# --- uploads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"content", LARGE], ids=len)
def test_a_blob_is_pushed_in_every_way_there_is(registry: Registry, content: bytes) -> None:
    half = len(content) // 2
    digests = {name: digest_of(content) for name in ("post", "put", "patch", "chunks")}

    pushed = registry("POST", f"blobs/uploads/?digest={digests['post']}", content)
    assert (pushed.status, location(pushed)) == (
        201,
        f"/v2/{registry.repository}/blobs/{digests['post']}",
    )

    pushed = registry("PUT", f"{registry.start()}?digest={digests['put']}", content)
    assert pushed.status == 201

    session = registry.start()
    streamed = registry("PATCH", session, content)
    assert streamed.status == 202
    assert registry("PUT", f"{location(streamed)}?digest={digests['patch']}").status == 201

    session = registry.start()
    if content:
        for start, stop in ((0, half), (half, len(content))):
            chunk = registry(
                "PATCH", session, content[start:stop], {"Content-Range": f"{start}-{stop - 1}"}
            )
            assert chunk.status == 202
            assert chunk.headers["Range"] == f"0-{stop - 1}"
            session = location(chunk)
    pushed = registry("PUT", f"{session}?digest={digests['chunks']}")
    assert pushed.status == 201
    assert pushed.headers["Docker-Content-Digest"] == digests["chunks"]
    assert registry("GET", f"blobs/{digests['chunks']}").body == content
    # Over, each of them.
    assert code(registry("GET", session)) == "BLOB_UPLOAD_UNKNOWN"


def test_a_last_request_whose_answer_was_lost_can_be_made_again(registry: Registry) -> None:
    content = b"whose answer was lost"
    digest, session = digest_of(content), registry.start()
    assert registry("PATCH", session, content).status == 202
    other = registry.at(f"{registry.repository}-other")
    for _ in range(2):
        answer = registry("PUT", f"{session}?digest={digest}")
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
        # What is not there was not finished before, nor is what another repository has.
        path = session.rsplit("/", 1)[1]
        unknown = other("PUT", f"blobs/uploads/{path}?digest={digest}")
        assert (unknown.status, code(unknown)) == (404, "BLOB_UPLOAD_UNKNOWN")
    unknown = registry("PUT", f"{session}?digest={digest_of(b'another')}")
    assert (unknown.status, code(unknown)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_chunk_of_unknown_length_is_taken(registry: Registry) -> None:
    session = registry.start()
    answer = raw(
        registry.server,
        f"PATCH {session} HTTP/1.1\r\nHost: x\r\nAuthorization:"
        f" {registry.credentials['Authorization']}\r\nTransfer-Encoding: chunked\r\n"
        "Expect: 100-continue\r\nConnection: close\r\n\r\n".encode(),
        b"4\r\ncont\r\n",
        b"3\r\nent\r\n0\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 100 Continue")
    assert b"HTTP/1.1 202" in answer
    digest = digest_of(b"content")
    assert registry("PUT", f"{session}?digest={digest}").status == 201
    assert registry("GET", f"blobs/{digest}").body == b"content"


def test_a_session_tells_how_far_it_is_and_ends_when_canceled(registry: Registry) -> None:
    session = registry.start()
    empty = registry("GET", session)
    assert (empty.status, empty.headers["Range"], empty.body) == (204, "0-0", b"")
    registry("PATCH", session, b"content")
    status = registry("GET", session)
    assert (status.status, status.headers["Range"]) == (204, "0-6")
    assert location(status) == session
    assert registry("DELETE", session).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = registry(method, session)
        assert (answer.status, code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_blob_is_mounted_from_another_repository_of_the_project(registry: Registry) -> None:
    digest = registry.push_blob(b"content")
    target = registry.at(f"{registry.repository}/target")
    assert target("HEAD", f"blobs/{digest}").status == 404
    mounted = target("POST", f"blobs/uploads/?mount={digest}&from={registry.repository}")
    assert mounted.status == 201
    assert location(mounted) == f"/v2/{target.repository}/blobs/{digest}"
    assert target("GET", f"blobs/{digest}").body == b"content"


def test_a_blob_is_mounted_from_wherever_in_the_project_it_is(registry: Registry) -> None:
    digest = registry.push_blob(b"somewhere")
    target = registry.at(f"{registry.repository}/target")
    assert target("POST", f"blobs/uploads/?mount={digest}").status == 201
    assert target("GET", f"blobs/{digest}").body == b"somewhere"


@pytest.mark.parametrize("source", ["&from={repository}/empty", "&from=unknown/app"])
def test_a_mount_that_cannot_be_becomes_an_upload(registry: Registry, source: str) -> None:
    digest = registry.push_blob(b"content")
    target = registry.at(f"{registry.repository}/target")
    answer = target(
        "POST",
        f"blobs/uploads/?mount={digest}{source.format(repository=registry.repository)}",
    )
    assert answer.status == 202
    assert target("PUT", f"{location(answer)}?digest={digest}", b"content").status == 201


# --- deletes ----------------------------------------------------------------------------------


def test_tags_and_manifests_are_deleted_and_blobs_go_along(
    registry: Registry,
) -> None:
    body = registry.push_image("main", b"layer")
    layer = digest_of(b"layer")
    refused = registry("DELETE", f"blobs/{layer}")
    assert (refused.status, code(refused)) == (409, "DENIED")
    assert registry("DELETE", "manifests/main").status == 202
    assert code(registry("GET", "manifests/main")) == "MANIFEST_UNKNOWN"
    assert registry("GET", f"manifests/{digest_of(body)}").status == 200
    assert registry("DELETE", f"manifests/{digest_of(body)}").status == 202
    assert code(registry("GET", f"manifests/{digest_of(body)}")) == "MANIFEST_UNKNOWN"
    # It was there for that manifest alone.
    assert code(registry("GET", f"blobs/{layer}")) == "BLOB_UNKNOWN"
    for path, expected in (
        ("manifests/main", "MANIFEST_UNKNOWN"),
        (f"manifests/{digest_of(body)}", "MANIFEST_UNKNOWN"),
        (f"blobs/{layer}", "BLOB_UNKNOWN"),
    ):
        again = registry("DELETE", path)
        assert (again.status, code(again)) == (404, expected)


def test_a_blob_that_no_manifest_needs_is_deleted(registry: Registry) -> None:
    digest = registry.push_blob(b"needed by nobody")
    assert registry("DELETE", f"blobs/{digest}").status == 202
    for method in ("GET", "DELETE"):
        assert code(registry(method, f"blobs/{digest}")) == "BLOB_UNKNOWN"


def test_what_an_index_needs_is_not_deleted(registry: Registry) -> None:
    child = registry.push_image("child", b"layer")
    registry.push_manifest("multi", index(child))
    refused = registry("DELETE", f"manifests/{digest_of(child)}")
    assert (refused.status, code(refused)) == (409, "DENIED")


# --- lists ------------------------------------------------------------------------------------


def test_tags_are_listed_in_pages_that_lead_to_each_other(registry: Registry) -> None:
    body = registry.push_image("a", b"layer")
    names = ["a", "b", "c.1", "c_2", "d"]
    for name in names[1:]:
        registry.push_manifest(name, body)
    whole = registry("GET", "tags/list")
    assert whole.json() == {"name": registry.repository, "tags": names}
    assert "Link" not in whole.headers
    seen, path = [], "tags/list?n=2"
    while path:
        page = registry("GET", path)
        assert 1 <= len(page.json()["tags"]) <= 2
        seen += page.json()["tags"]
        link = page.headers.get("Link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link[1:].split(">")[0]
        assert not path or parse_qs(urlsplit(path).query)["n"] == ["2"]
    assert seen == names
    assert registry("GET", "tags/list?last=b").json()["tags"] == names[2:]
    assert registry("GET", "tags/list?n=1&last=bb").json()["tags"] == ["c.1"]
    empty = registry("GET", "tags/list?n=0")
    assert (empty.json()["tags"], "Link" in empty.headers) == ([], False)


def test_referrers_are_listed_by_type(registry: Registry) -> None:
    subject = registry.push_image("main", b"layer")
    referring = {"subject": descriptor(OCI_MANIFEST, subject)}
    signature = image(
        layers=[descriptor(LAYER_TYPE, b"layer")],
        artifactType="application/x-signature",
        annotations={"by": "\N{SNOWMAN}"},
        **referring,
    )
    pushed = registry.push_manifest(digest_of(signature), signature)
    assert pushed.headers["OCI-Subject"] == digest_of(subject)
    registry.push_manifest("sbom", image(artifactType="application/x-sbom", **referring))
    whole = registry("GET", f"referrers/{digest_of(subject)}")
    assert (whole.status, whole.headers["Content-Type"]) == (200, OCI_INDEX)
    assert whole.json()["schemaVersion"] == 2
    assert len(whole.json()["manifests"]) == 2
    assert "OCI-Filters-Applied" not in whole.headers
    filtered = registry(
        "GET", f"referrers/{digest_of(subject)}?artifactType=application/x-signature"
    )
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert filtered.json()["manifests"] == [
        {
            "mediaType": OCI_MANIFEST,
            "digest": digest_of(signature),
            "size": len(signature),
            "artifactType": "application/x-signature",
            "annotations": {"by": "\N{SNOWMAN}"},
        }
    ]
    nothing = registry("GET", f"referrers/{digest_of(b'unknown')}")
    assert (nothing.status, nothing.json()["manifests"]) == (200, [])


def test_referrers_lead_to_the_next_page_when_they_are_many(registry: Registry) -> None:
    subject = registry.push_image("main", b"layer")
    for number in range(5):
        body = image(
            subject=descriptor(OCI_MANIFEST, subject),
            artifactType="a/b",
            annotations={"number": str(number), "filler": "x" * 400_000},
        )
        assert registry.push_manifest(digest_of(body), body).status == 201
    seen: list[str] = []
    path = f"referrers/{digest_of(subject)}?artifactType=a/b"
    while path:
        page = registry("GET", path)
        assert len(page.body) < 2 << 20
        assert len(page.json()["manifests"]) < 5
        seen += [found["digest"] for found in page.json()["manifests"]]
        path = page.headers.get("Link", "")[1:].split(">")[0]
    assert len(set(seen)) == len(seen) == 5


def test_what_is_answered_says_nothing_twice_and_a_head_nothing_at_all(registry: Registry) -> None:
    body = registry.push_image("main", b"layer")
    paths = (
        "manifests/main",
        "manifests/unknown",
        f"manifests/{digest_of(body)}",
        f"blobs/{digest_of(b'layer')}",
        f"blobs/{digest_of(b'unknown')}",
        "blobs/nonsense",
        "nonsense",
    )
    for path in paths:
        answer = raw(
            registry.server,
            f"HEAD /v2/{registry.repository}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization:"
            f" {registry.credentials['Authorization']}\r\nConnection: close\r\n\r\n".encode(),
        )
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert rest == b"", path
        names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        assert len(set(names)) == len(names), path
