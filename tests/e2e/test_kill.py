"""A server that is killed in the middle of its work, and started again on what it left."""

import json
import subprocess
from pathlib import Path

from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import DockerEngine, Skopeo
from tests.e2e.images import MIB, OciLayout, busybox_context
from tests.e2e.processes import wait_until


def size_of(folder: Path) -> int:
    """Return what the files in a folder hold; they come and go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_a_push_that_a_kill_cut_off_succeeds_when_it_is_made_again(
    start_server: ServerFactory, skopeo: Skopeo, tmp_path: Path
) -> None:
    server = start_server()
    layout = OciLayout(tmp_path / "layout", [3 * MIB, 768 * MIB])
    target = f"docker://{server.host}/{server.project_id}/cut:off"
    push = skopeo.command(
        *("copy", "--dest-tls-verify=false", "--dest-creds", f"x-token:{server.token}"),
        *("--preserve-digests", f"oci:{layout.folder}", target),
    )
    before = size_of(server.data_folder)
    with subprocess.Popen(
        push, env=skopeo.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_until(
            lambda: size_of(server.data_folder) - before > 128 * MIB,
            timeout=60,
            what="128 MiB of the push",
            interval=0.01,
        )
        server.kill()
        process.communicate(timeout=120)
    assert process.returncode != 0

    server.start()
    # Nothing of the push shows, and what shows is whole.
    repository = f"/v2/{server.project_id}/cut"
    assert server.request("GET", f"{repository}/manifests/off").status == 404
    assert server.request("HEAD", f"{repository}/blobs/{layout.blob_digests[1]}").status == 404
    first = server.request("GET", f"{repository}/blobs/{layout.blob_digests[0]}")
    assert first.status == 404 or len(first.body) == 3 * MIB

    skopeo(*push[3:])
    copy = tmp_path / "copy"
    skopeo(
        *("copy", "--src-tls-verify=false", "--src-creds", f"x-token:{server.token}"),
        *("--preserve-digests", target, f"oci:{copy}:copy"),
    )
    assert json.loads((copy / "index.json").read_text())["manifests"][0]["digest"] == layout.digest
    for digest in layout.blob_digests:
        assert (copy / "blobs" / "sha256" / digest.removeprefix("sha256:")).is_file()
    server.assert_whole()


def test_a_killed_server_has_its_builds_and_its_builder_again_after_a_restart(
    start_server: ServerFactory, docker: DockerEngine, tmp_path: Path
) -> None:
    server = start_server()
    before = server.save(busybox_context(tmp_path / "before", "before the kill"))
    digest = server.manifest(before.id).headers["Docker-Content-Digest"]
    # The builder that it started lives on for a moment or for good, as nobody told it to end.
    server.kill()
    server.start()
    assert server.manifest(before.id).headers["Docker-Content-Digest"] == digest
    after = server.save(busybox_context(tmp_path / "after", "after the kill"))
    for build, greeting in ((before, "before the kill"), (after, "after the kill")):
        name = f"killed:{build.id}"
        server.cli("pull", build.id, "-t", name, env={"DOCKER_HOST": docker.host})
        assert docker("run", "--rm", name).stdout == f"{greeting}\n"
    server.assert_whole()
