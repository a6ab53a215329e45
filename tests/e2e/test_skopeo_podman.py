"""A saved build and the registry clients that are not Docker: skopeo and podman."""

import json
from pathlib import Path

import pytest

from tests.e2e.engines import Podman, Skopeo
from tests.e2e.images import OciLayout, busybox_context
from tests.e2e.pairs import REPLICATED
from tests.e2e.server import LayoverServer

pytestmark = pytest.mark.pairs(REPLICATED)


def login(server: LayoverServer, client: Skopeo | Podman) -> None:
    client("login", "--tls-verify=false", "-u", "x-token", "-p", server.token, server.host)


def test_skopeo_copies_a_saved_build_and_its_digests_stay(
    server: LayoverServer, skopeo: Skopeo, tmp_path: Path
) -> None:
    build = server.save(busybox_context(tmp_path / "context", "copied"))
    login(server, skopeo)
    copy = tmp_path / "copy"
    skopeo(
        *("copy", "--all", "--src-tls-verify=false", "--preserve-digests"),
        *(f"docker://{build.reference}", f"oci:{copy}:copied"),
    )
    descriptor = json.loads((copy / "index.json").read_text())["manifests"][0]
    assert descriptor["digest"] == build.metadata["containerimage.digest"]
    assert descriptor["digest"] == server.manifest(build.id).headers["Docker-Content-Digest"]


def test_a_builds_own_pull_token_copies_it_whole_and_no_other_build(
    server: LayoverServer, skopeo: Skopeo, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "this one")
    own = server.save(context, "--platform=linux/amd64,linux/arm64", "--provenance=true")
    other = server.save(context)
    path = "/depot.cli.v1.BuildService/GetPullInfo"
    told = server.request(
        "POST",
        path,
        body=json.dumps({"buildId": own.id}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {server.token}"},
    ).json()
    credentials = ("-u", told["username"], "-p", told["password"])
    skopeo("login", "--tls-verify=false", *credentials, server.host)
    copy = ("copy", "--all", "--src-tls-verify=false", "--preserve-digests")
    skopeo(*copy, f"docker://{own.reference}", f"oci:{tmp_path / 'own'}:own")
    # Its bytes are those of the other one; its name is not this token's.
    refused = skopeo(
        *copy, f"docker://{other.reference}", f"oci:{tmp_path / 'other'}:other", check=False
    )
    assert refused.returncode != 0
    assert "manifest unknown" in refused.stderr.lower()


def test_skopeo_pushes_lists_inspects_and_deletes(
    server: LayoverServer, skopeo: Skopeo, tmp_path: Path
) -> None:
    layout = OciLayout(tmp_path / "layout", [1000, 2_000_000])
    login(server, skopeo)
    repository = f"docker://{server.host}/{server.project_id}/from/skopeo"
    flags = ("--dest-tls-verify=false", "--preserve-digests")
    for tag in ("b", "a"):
        skopeo("copy", *flags, f"oci:{layout.folder}", f"{repository}:{tag}")
    listing = json.loads(skopeo("list-tags", "--tls-verify=false", repository).stdout)
    assert listing["Tags"] == ["a", "b"]
    inspected = json.loads(
        skopeo("inspect", "--no-tags", "--tls-verify=false", f"{repository}:a").stdout
    )
    assert inspected["Digest"] == layout.digest
    assert inspected["Layers"] == layout.blob_digests
    skopeo("delete", "--tls-verify=false", f"{repository}:a")
    gone = skopeo("inspect", "--tls-verify=false", f"{repository}:a", check=False)
    assert gone.returncode != 0
    assert "manifest unknown" in gone.stderr.lower()


def test_skopeo_copies_a_docker_schema_2_image_as_it_is(
    server: LayoverServer, skopeo: Skopeo, tmp_path: Path
) -> None:
    build = server.save(busybox_context(tmp_path / "context", "converted"))
    login(server, skopeo)
    repository = f"docker://{server.host}/{server.project_id}/schema2"
    tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo("copy", *tls, "--format=v2s2", f"docker://{build.reference}", f"{repository}:one")
    skopeo("copy", *tls, "--preserve-digests", f"{repository}:one", f"{repository}:two")
    one, two = (server.manifest(tag, f"{server.project_id}/schema2") for tag in ("one", "two"))
    assert one.headers["Content-Type"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert one.body == two.body


def test_skopeo_with_a_wrong_token_is_refused(
    server: LayoverServer, skopeo: Skopeo, tmp_path: Path
) -> None:
    build = server.save(busybox_context(tmp_path / "context", "refused"))
    for reference in (build.reference, f"{server.host}/zzzzzzzzzz:{build.id}"):
        refused = skopeo(
            *("inspect", "--tls-verify=false", "--creds", "x-token:wrong", f"docker://{reference}"),
            check=False,
        )
        assert refused.returncode != 0
        assert "unauthorized" in refused.stderr.lower()


def test_podman_pulls_runs_and_pushes_a_saved_build(
    server: LayoverServer, podman: Podman, tmp_path: Path
) -> None:
    build = server.save(busybox_context(tmp_path / "context", "run by podman"))
    login(server, podman)
    podman("pull", "--tls-verify=false", build.reference)
    run = podman("run", "--rm", "--network=none", build.reference)
    assert run.stdout == "run by podman\n"
    target = f"{server.host}/{server.project_id}/from-podman:latest"
    podman("push", "--tls-verify=false", build.reference, target)
    podman("image", "rm", "--all", "--force")
    podman("pull", "--tls-verify=false", target)
    run = podman("run", "--rm", "--network=none", target)
    assert run.stdout == "run by podman\n"
