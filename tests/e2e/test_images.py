"""Images that are not small and simple: platforms, layers, large ones, attestations, a bake."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.engines import DockerEngine, Skopeo
from tests.e2e.images import MIB, OciLayout, busybox_context
from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.server import LayoverServer, SavedBuild

pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)

PROVENANCE = "https://slsa.dev/provenance/"
IN_TOTO = "https://in-toto.io/Statement/v0.1"
SPDX = "https://spdx.dev/Document"


def platform_of(descriptor: dict[str, Any]) -> str:
    return f"{descriptor['platform']['os']}/{descriptor['platform']['architecture']}"


def attestations(server: LayoverServer, build: SavedBuild) -> dict[str, list[dict[str, Any]]]:
    """Return the in-toto statements of each platform, as BuildKit attaches them to an index."""
    found: dict[str, list[dict[str, Any]]] = {}
    descriptors = server.manifest(build.id).json()["manifests"]
    names = {descriptor["digest"]: platform_of(descriptor) for descriptor in descriptors}
    for descriptor in descriptors:
        annotations = descriptor.get("annotations", {})
        if annotations.get("vnd.docker.reference.type") != "attestation-manifest":
            continue
        subject = names[annotations["vnd.docker.reference.digest"]]
        for layer in server.manifest(descriptor["digest"]).json()["layers"]:
            assert layer["mediaType"] == "application/vnd.in-toto+json"
            blob = server.request("GET", f"/v2/{server.project_id}/blobs/{layer['digest']}")
            found.setdefault(subject, []).append(json.loads(blob.body))
    return found


def test_a_build_for_two_platforms_is_an_index_from_which_each_can_be_pulled(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "on two platforms")
    build = server.save(context, "--platform=linux/amd64,linux/arm64", "--provenance=false")
    index = server.manifest(build.id)
    assert index.headers["Content-Type"] == "application/vnd.oci.image.index.v1+json"
    descriptors = index.json()["manifests"]
    assert [platform_of(descriptor) for descriptor in descriptors] == ["linux/amd64", "linux/arm64"]
    for descriptor in descriptors:
        architecture = descriptor["platform"]["architecture"]
        server.cli(
            *("pull", build.id, "--platform", f"linux/{architecture}"),
            *("-t", f"two-platforms:{architecture}"),
            env={"DOCKER_HOST": docker.host},
        )
        config = server.manifest(descriptor["digest"]).json()["config"]["digest"]
        inspected = json.loads(docker("image", "inspect", f"two-platforms:{architecture}").stdout)
        assert inspected[0]["Architecture"] == architecture
        assert inspected[0]["Id"] == config


def test_an_image_of_twenty_layers_is_pulled_whole(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "unused")
    lines = ["FROM scratch", "COPY busybox /bin/busybox"]
    for number in range(1, 20):
        (context / f"part{number:02}").write_text(f"{number}\n")
        lines.append(f"COPY part{number:02} /parts/")
    lines.append('CMD ["/bin/busybox", "sh", "-c", "/bin/busybox cat /parts/*"]')
    (context / "Dockerfile").write_text("\n".join(lines))
    build = server.save(context, "--provenance=false")
    assert len(server.manifest(build.id).json()["layers"]) == 20
    server.cli("pull", build.id, "-t", "twenty:layers", env={"DOCKER_HOST": docker.host})
    output = docker("run", "--rm", "twenty:layers").stdout
    assert output == "".join(f"{number}\n" for number in range(1, 20))


def test_a_layer_of_a_gibibyte_goes_in_and_out_in_little_memory(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "unused")
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=1024"]\n'
        'CMD ["/bin/busybox", "stat", "-c", "%s", "/big"]\n'
    )
    before = server.reset_peak_memory()
    build = server.save(context, "--provenance=false")
    assert server.manifest(build.id).json()["layers"][-1]["size"] >= 1024 * MIB
    server.cli("pull", build.id, "-t", "large:layer", env={"DOCKER_HOST": docker.host})
    assert docker("run", "--rm", "large:layer").stdout == f"{1024 * MIB}\n"
    assert server.peak_memory() - before < 64 * MIB
    docker("image", "rm", "large:layer")


def test_a_pushed_layer_of_a_gibibyte_takes_little_memory_and_is_the_same_bytes_again(
    server: LayoverServer, skopeo: Skopeo, tmp_path: Path
) -> None:
    layout = OciLayout(tmp_path / "layout", [1024 * MIB])
    repository = f"docker://{server.host}/{server.project_id}/large"
    credentials = f"x-token:{server.token}"
    before = server.reset_peak_memory()
    skopeo(
        *("copy", "--dest-tls-verify=false", "--dest-creds", credentials, "--preserve-digests"),
        *(f"oci:{layout.folder}", f"{repository}:pushed"),
    )
    # skopeo checks each blob's digest as it arrives.
    skopeo(
        *("copy", "--src-tls-verify=false", "--src-creds", credentials, "--preserve-digests"),
        *(f"{repository}:pushed", f"dir:{tmp_path / 'copy'}"),
    )
    assert server.peak_memory() - before < 64 * MIB


def test_provenance_is_saved_with_the_image_it_is_about(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "with provenance")
    build = server.save(context, "--provenance=mode=max", "--platform=linux/amd64")
    statements = attestations(server, build)["linux/amd64"]
    assert [statement["predicateType"].startswith(PROVENANCE) for statement in statements] == [True]
    image = next(
        descriptor
        for descriptor in server.manifest(build.id).json()["manifests"]
        if platform_of(descriptor) == "linux/amd64"
    )
    subjects = {subject["digest"]["sha256"] for subject in statements[0]["subject"]}
    assert subjects == {image["digest"].removeprefix("sha256:")}


@pytest.fixture
def scanner(server: LayoverServer, tmp_path: Path) -> SavedBuild:
    """A scanner that follows BuildKit's SBOM protocol, itself a build saved in the registry."""
    context = busybox_context(tmp_path / "scanner", "unused")
    (context / "scan").write_text(
        "#!/bin/busybox sh\nset -eu\n"
        'files=$(/bin/busybox ls "$BUILDKIT_SCAN_SOURCE" | /bin/busybox tr "\\n" " ")\n'
        'document=$(printf \'{"spdxVersion": "SPDX-2.3", "name": "%s"}\' "$files")\n'
        f'printf \'{{"_type": "{IN_TOTO}", "predicateType": "{SPDX}", "predicate": %s}}\' '
        '"$document" >"$BUILDKIT_SCAN_DESTINATION/scan.spdx.json"\n'
    )
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY --chmod=755 scan /bin/scan\n"
        'ENTRYPOINT ["/bin/scan"]\n'
    )
    return server.save(context, "--provenance=false")


def test_an_sbom_made_by_a_scanner_from_the_registry_is_saved_with_the_image(
    server: LayoverServer, scanner: SavedBuild, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "scanned")
    build = server.save(context, f"--sbom=generator={scanner.reference}", "--platform=linux/amd64")
    documents = [
        statement["predicate"]
        for statement in attestations(server, build)["linux/amd64"]
        if statement["predicateType"] == SPDX
    ]
    assert [document["name"].split() for document in documents] == [["bin", "greeting"]]


def test_each_target_of_a_bake_is_pulled_by_its_name(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "unused")
    targets = ("api", "web", "worker")
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nARG WHO\nENV WHO=$WHO\n"
        'CMD ["/bin/busybox", "sh", "-c", "echo I am $WHO"]\n'
    )
    (context / "docker-bake.json").write_text(
        json.dumps(
            {
                "group": {"default": {"targets": targets}},
                "target": {name: {"context": ".", "args": {"WHO": name}} for name in targets},
            }
        )
    )
    metadata_file = context / "build.json"
    server.cli("bake", "--save", f"--metadata-file={metadata_file}", cwd=context)
    build = server.saved(metadata_file)
    assert sorted(build.metadata["depot.build"]["targets"]) == sorted(targets)
    for target in targets:
        server.cli(
            *("pull", build.id, "--target", target, "-t", f"baked:{target}"),
            env={"DOCKER_HOST": docker.host},
        )
        assert docker("run", "--rm", f"baked:{target}").stdout == f"I am {target}\n"
    docker("login", server.host, "-u", "x-token", "--password-stdin", stdin=server.token)
    docker("pull", f"{build.reference}-web")
    assert docker("run", "--rm", f"{build.reference}-web").stdout == "I am web\n"
