from pathlib import Path

from layover.adapters.buildkit.mounts import mounts_below, unmount_below

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /data/a\\040b/root/outer rw,relatime - overlay overlay rw
31 30 0:41 / /data/a\\040b/root/outer/inner rw,relatime - tmpfs tmpfs rw
32 22 0:42 / /data/a\\040b/rooted rw,relatime - tmpfs tmpfs rw
"""


def test_mounts_below_a_folder_are_found_the_inner_ones_first() -> None:
    assert mounts_below(Path("/data/a b/root"), MOUNTINFO) == [
        "/data/a b/root/outer/inner",
        "/data/a b/root/outer",
    ]


def test_a_folder_without_mounts_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    unmount_below(tmp_path)
    assert (tmp_path / "file").read_text() == "kept"
