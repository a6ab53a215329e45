"""Many clients that push the very same bytes at the very same time."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import Skopeo
from tests.e2e.images import MIB, OciLayout
from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.processes import wait_until

pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)


def test_pushes_of_the_same_blob_at_once_all_succeed_and_it_is_stored_once(
    start_server: ServerFactory, skopeo: Skopeo, tmp_path: Path
) -> None:
    server = start_server(settings={"REAPER_INTERVAL": "1s"})
    layout = OciLayout(tmp_path / "layout", [96 * MIB])
    repositories = [f"{server.project_id}/same/{number}" for number in range(2)]
    targets = [f"{repository}:{tag}" for repository in repositories for tag in ("one", "two")]

    def push(target: str) -> "subprocess.CompletedProcess[str]":
        return skopeo(
            *("copy", "--dest-tls-verify=false", "--dest-creds", f"x-token:{server.token}"),
            *("--preserve-digests", f"oci:{layout.folder}", f"docker://{server.host}/{target}"),
            check=False,
        )

    with ThreadPoolExecutor(len(targets)) as pool:
        for done in pool.map(push, targets):
            assert done.returncode == 0, done.stderr

    digest = layout.blob_digests[0]
    for repository in repositories:
        head = server.request("HEAD", f"/v2/{repository}/blobs/{digest}")
        assert (head.status, head.headers["Content-Length"]) == (200, str(96 * MIB))

    def is_stored_once() -> bool:
        files = (server.blob_folder / "data").glob("*/*")
        return [path for path in files if path.stat().st_size == 96 * MIB] == [
            *server.blob_paths(digest)
        ]

    wait_until(is_stored_once, timeout=30, what="the collector to remove what came twice")
