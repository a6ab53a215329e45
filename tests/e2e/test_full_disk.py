"""A data folder with no room left: the push fails cleanly, and nothing else does."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import Skopeo
from tests.e2e.images import MIB, OciLayout
from tests.e2e.processes import environment, find, remove, run, wait_until

SIZE = 256 * MIB


@pytest.fixture
def small_disk(own_folder: Path) -> Iterator[Path]:
    """A file system of its own with 256 MiB."""
    folder = own_folder / "disk"
    folder.mkdir()
    env = environment(own_folder)
    run([find("mount"), "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], env=env)
    yield folder
    remove(own_folder)


def free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def test_a_push_that_does_not_fit_fails_cleanly_and_its_space_comes_back(
    small_disk: Path, start_server: ServerFactory, skopeo: Skopeo, tmp_path: Path
) -> None:
    server = start_server(data_folder=small_disk / "data", settings={"REAPER_INTERVAL": "1s"})
    repository = f"docker://{server.host}/{server.project_id}/disk"
    flags = (
        "--preserve-digests",
        "--dest-tls-verify=false",
        "--dest-creds",
        f"x-token:{server.token}",
    )

    def push(layout: OciLayout, tag: str, *, check: bool = True) -> str:
        done = skopeo(*("copy", *flags, f"oci:{layout.folder}", f"{repository}:{tag}"), check=check)
        assert check or done.returncode != 0
        return done.stderr

    fits = OciLayout(tmp_path / "fits", [64 * MIB])
    push(fits, "fits")
    before = free_bytes(small_disk)
    too_large = OciLayout(tmp_path / "too-large", [SIZE])
    message = push(too_large, "too-large", check=False)
    assert "Insufficient Storage" in message

    # It is alive, what it had it has, and what it could not take it does not show.
    assert server.process.is_running
    assert server.manifest("fits", f"{server.project_id}/disk").body
    layer = server.request("GET", f"/v2/{server.project_id}/disk/blobs/{fits.blob_digests[0]}")
    assert len(layer.body) == 64 * MIB
    assert server.request("GET", f"/v2/{server.project_id}/disk/manifests/too-large").status == 404

    # The database may keep a few pages more than before.
    wait_until(
        lambda: free_bytes(small_disk) > before - 4 * MIB, timeout=30, what="the space to come back"
    )
    push(OciLayout(tmp_path / "fits-too", [96 * MIB]), "fits-too")
    server.assert_whole()


def test_without_a_byte_left_pulls_go_on_and_pushes_fail_until_there_is_room(
    small_disk: Path, start_server: ServerFactory, skopeo: Skopeo, tmp_path: Path
) -> None:
    server = start_server(data_folder=small_disk / "data")
    reference = f"docker://{server.host}/{server.project_id}/full"
    creds = f"x-token:{server.token}"
    push = ("copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", creds)
    pull = ("copy", "--preserve-digests", "--src-tls-verify=false", "--src-creds", creds)
    kept = OciLayout(tmp_path / "kept", [4 * MIB])
    skopeo(*push, f"oci:{kept.folder}", f"{reference}:kept")

    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    skopeo(*pull, f"{reference}:kept", f"dir:{tmp_path / 'pulled'}")
    small = OciLayout(tmp_path / "small", [1000])
    failed = skopeo(*push, f"oci:{small.folder}", f"{reference}:small", check=False)
    assert "Insufficient Storage" in failed.stderr
    skopeo(*pull, f"{reference}:kept", f"dir:{tmp_path / 'pulled-again'}")

    filler.unlink()
    skopeo(*push, f"oci:{small.folder}", f"{reference}:small")
    server.assert_whole()
