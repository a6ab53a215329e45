"""`layover push` of a part of what was built, and of what belongs to it, to real registries."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.destinations import (
    Distribution,
    Distribution3,
    LayoverDestination,
    docker_config,
    started,
)
from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import Skopeo
from tests.e2e.images import busybox_context
from tests.e2e.referrers import push_referrer, referrers_of
from tests.e2e.server import LayoverServer, SavedBuild

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/386")

BAKE = """
group "default" { targets = ["app", "web"] }
target "app" { context = "files" }
target "web" {
  context = "files"
  platforms = ["linux/amd64", "linux/arm64", "linux/386"]
}
"""


@pytest.fixture(scope="module")
def baked(server: LayoverServer, tmp_path_factory: pytest.TempPathFactory) -> SavedBuild:
    """Two targets, of which one is for several platforms."""
    folder = tmp_path_factory.mktemp("bake")
    busybox_context(folder / "files", "a part")
    (folder / "docker-bake.hcl").write_text(BAKE)
    metadata = folder / "build.json"
    server.cli("bake", "--save", f"--metadata-file={metadata}", cwd=folder)
    return server.saved(metadata)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    with started(Distribution3(tmp_path_factory.mktemp("parts") / "registry")) as registry:
        yield registry


def raw(skopeo: Skopeo, reference: str) -> dict[str, Any]:
    """The manifest by that name, as it is there."""
    shown = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
    document = json.loads(shown.stdout)
    assert isinstance(document, dict)
    return document


def platforms_of(index: dict[str, Any]) -> set[str]:
    platforms = (one["platform"] for one in index["manifests"])
    return {f"{one['os']}/{one['architecture']}" for one in platforms}


def copied(skopeo: Skopeo, reference: str, folder: Path) -> None:
    """Read every blob and manifest of it, which skopeo compares with their digests."""
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{reference}", f"oci:{folder}")


def test_a_target_goes_alone_and_whole(
    server: LayoverServer,
    skopeo: Skopeo,
    baked: SavedBuild,
    registry: Distribution,
    tmp_path: Path,
) -> None:
    reference = f"{registry.host}/bake/web:v1"
    pushed = server.cli("push", baked.id, "--target", "web", "-t", reference)
    digest = server.manifest(f"{baked.id}-web").headers["Docker-Content-Digest"]
    assert pushed.stdout == f"{reference}@{digest}\n"
    assert {*PLATFORMS} <= platforms_of(raw(skopeo, reference))
    copied(skopeo, reference, tmp_path / "copy")
    # Of several targets one has to be named.
    unnamed = server.cli("push", baked.id, "-t", reference, check=False)
    assert unnamed.returncode == 2
    assert "app, web" in unnamed.stderr


def test_of_several_platforms_one_goes_as_an_image_and_more_go_with_what_attests_them(
    server: LayoverServer,
    skopeo: Skopeo,
    baked: SavedBuild,
    registry: Distribution,
    tmp_path: Path,
) -> None:
    push = ("push", baked.id, "--target", "web")
    one = f"{registry.host}/parts/one:v1"
    server.cli(*push, "--platform=linux/arm64", "-t", one)
    assert "layers" in raw(skopeo, one)
    config = skopeo("inspect", "--config", "--tls-verify=false", f"docker://{one}")
    assert json.loads(config.stdout)["architecture"] == "arm64"
    copied(skopeo, one, tmp_path / "one")

    two = f"{registry.host}/parts/two:v1"
    server.cli(*push, "--platform=linux/386", "--platform=linux/amd64", "-t", two)
    index = raw(skopeo, two)
    assert platforms_of(index) == {"linux/386", "linux/amd64", "unknown/unknown"}
    images = {entry["digest"] for entry in index["manifests"]}
    attested = {
        entry["annotations"]["vnd.docker.reference.digest"]
        for entry in index["manifests"]
        if entry["platform"]["os"] == "unknown"
    }
    assert attested < images
    copied(skopeo, two, tmp_path / "two")


def test_a_registry_without_referrers_lists_them_by_a_tag_where_it_is_asked_for(
    server: LayoverServer, skopeo: Skopeo, registry: Distribution, tmp_path: Path
) -> None:
    build, root, signature = signed_build(server, tmp_path / "context")
    reference = f"{registry.host}/signed/app"
    server.cli("push", build.id, "-t", f"{reference}:bare")
    # distribution-spec v1.1.1, "Referrers Tag Schema".
    listing = f"{reference}:{root.replace(':', '-')}"
    missing = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{listing}", check=False)
    assert missing.returncode
    for _ in range(2):  # The second time finds it listed.
        server.cli("push", build.id, "--referrers", "-t", f"{reference}:v1")
        (listed,) = raw(skopeo, listing)["manifests"]
        assert listed["digest"] == signature
        assert listed["artifactType"] == "application/vnd.example.signature"
    found = raw(skopeo, f"{reference}@{signature}")
    assert found["subject"]["digest"] == root


def test_a_registry_with_referrers_lists_them_itself_where_it_is_asked_for(
    server: LayoverServer, start_server: ServerFactory, tmp_path: Path
) -> None:
    build, root, signature = signed_build(server, tmp_path / "context")
    other = LayoverDestination(start_server())
    repository = f"{other.host}/{other.server.project_id}"
    env = docker_config(tmp_path / "docker", other.host, other)
    server.cli("push", build.id, "-t", f"{repository}:bare", env=env)
    assert referrers_of(other.server, root) == []
    server.cli("push", build.id, "--referrers", "-t", f"{repository}:v1", env=env)
    assert referrers_of(other.server, root) == [signature]


def signed_build(server: LayoverServer, context: Path) -> tuple[SavedBuild, str, str]:
    """A build, the digest of what it saved, and that of a signature of it."""
    build = server.save(busybox_context(context, f"signed in {context}"))
    root = server.manifest(build.id).headers["Docker-Content-Digest"]
    assert root is not None
    return build, root, push_referrer(server, build)
