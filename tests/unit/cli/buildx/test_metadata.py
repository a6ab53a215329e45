"""The metadata lands where it was asked for, and takes nothing else's place."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from layover.cli.buildx import metadata


def write(path: Path) -> None:
    metadata.check_writable(path)
    content = metadata.content_of(Path("/none"), build_id="b", project_id="p", targets=[])
    metadata.write(path, content)


def test_what_cannot_be_written_is_told_before_the_build(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none" / "build.json", "no such folder"),
    ):
        with pytest.raises(metadata.MetadataUnwritable, match=reason):
            metadata.check_writable(path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for _ in range(2):
        write(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert json.loads((tmp_path / "file").read_text())["depot.build"]["buildID"] == "b"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        write(pipe)
        assert json.loads(reader.communicate()[0])["depot.build"]["projectID"] == "p"
    assert pipe.is_fifo()


def test_a_standard_stream_gets_it_after_what_it_has(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    os.write(1, b"sha256:1\n")
    write(Path("/dev/stdout"))
    image, rest = capfd.readouterr().out.split("\n", 1)
    assert image == "sha256:1"
    assert json.loads(rest)["depot.build"]["buildID"] == "b"
    assert Path("/dev/stdout").is_symlink()


def test_a_file_that_cannot_be_replaced_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(metadata, "replace_file", refuse)
    (tmp_path / "build.json").write_text("old, and longer than what comes after it" * 9)
    write(tmp_path / "build.json")
    assert json.loads((tmp_path / "build.json").read_text())["depot.build"]["buildID"] == "b"
    with pytest.raises(metadata.MetadataUnwritable, match="Permission denied"):
        write(tmp_path / "new.json")
