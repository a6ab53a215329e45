"""What a daemon that was killed leaves mounted: its steps' file systems."""

import ctypes
import os
import re
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_MNT_DETACH = 2
_ESCAPE = re.compile(r"\\([0-7]{3})")


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """The mount points below `folder`, the inner ones first."""
    # proc(5): the fifth field is the mount point, with spaces and the like as octal numbers.
    points = [
        _ESCAPE.sub(lambda escape: chr(int(escape[1], 8)), line.split(" ")[4])
        for line in mountinfo.splitlines()
    ]
    return [point for point in reversed(points) if point.startswith(f"{folder}/")]


def unmount_below(folder: Path) -> None:
    """Unmount what is mounted below `folder`, as far as it can be.

    Left alone, it would keep the folder from being deleted for as long as the machine runs.
    """
    unmount = ctypes.CDLL(None, use_errno=True).umount2
    for point in mounts_below(folder, _MOUNTINFO.read_text(errors="surrogateescape")):
        unmount(os.fsencode(point), _MNT_DETACH)
