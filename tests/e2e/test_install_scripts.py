"""The scripts that install what Layover, its demo and its tests run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import PATH, ROOT, environment, find, run

SCRIPTS = ROOT / "scripts"
SHELL_SCRIPTS = sorted(
    path
    for path in (*SCRIPTS.iterdir(), ROOT / ".ci" / "run")
    if path.is_file()
    and (path.suffix == ".sh" or path.read_bytes().startswith(b"#!/usr/bin/env bash"))
)


def path_without(folder: Path, *programs: str) -> str:
    """Return a PATH on which everything is but these programs.

    The scripts add the sbin folders themselves, so nothing from there can be hidden.
    """
    folder.mkdir()
    for directory in PATH.split(os.pathsep):
        if not Path(directory).is_dir() or directory == str(ROOT / ".engines" / "bin"):
            continue
        for program in Path(directory).iterdir():
            link = folder / program.name
            if program.name not in programs and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)


def install_engines(
    folder: Path, *engines: str, path: str = PATH, check: bool = True, **more: str
) -> "subprocess.CompletedProcess[str]":
    """Run the script with a scratch folder in the place of .engines."""
    env = environment(Path(os.environ.get("HOME", "/root")), **more)
    env.update(PATH=path, LAYOVER_ENGINES_DIR=str(folder / "engines"))
    return run([SCRIPTS / "install-engines", *engines], env=env, check=check, timeout=600)


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_a_shell_script_has_no_finding_of_shellcheck(script: Path) -> None:
    run([find("shellcheck"), "--external-sources", script], env=environment(ROOT), cwd=ROOT)


def test_every_engine_is_installed_and_a_second_run_installs_nothing(tmp_path: Path) -> None:
    env = environment(tmp_path)
    done = run([SCRIPTS / "install-engines"], env=env, timeout=20)
    assert "missing" not in done.stdout
    for engine in (
        "buildkitd",
        "buildctl",
        "buildx",
        "runc",
        "dockerd",
        "docker",
        "skopeo",
        "podman",
    ):
        assert f"{engine}: " in done.stdout


def test_a_missing_engine_is_compiled_at_the_locked_version(tmp_path: Path) -> None:
    path = path_without(tmp_path / "path", "buildctl")
    done = install_engines(tmp_path, "buildctl", path=path)
    assert "buildctl: missing" in done.stdout
    installed = tmp_path / "engines" / "bin" / "buildctl"
    locked = (SCRIPTS / "engines" / "buildkit" / "go.mod").read_text()
    version = run([installed, "--version"], env=environment(tmp_path)).stdout.split()[2]
    assert f"github.com/moby/buildkit {version} " in locked
    again = install_engines(tmp_path, "buildctl", path=path)
    assert again.stdout == f"buildctl: {installed}\n"


def test_a_static_busybox_is_unpacked_without_changing_the_system(tmp_path: Path) -> None:
    path = path_without(tmp_path / "path", "busybox")
    install_engines(tmp_path, "busybox", path=path)
    busybox = tmp_path / "engines" / "bin" / "busybox"
    assert run([busybox, "echo", "runs"], env=environment(tmp_path)).stdout == "runs\n"


def test_an_engine_that_cannot_be_had_is_named_with_what_to_do(tmp_path: Path) -> None:
    # No Go, nothing to download with and no Debian packages: what is left is to tell the user.
    programs = ("buildctl", "go", "curl", "wget", "apt-get", "apt-cache")
    path = path_without(tmp_path / "path", *programs)
    done = install_engines(tmp_path, "buildctl", path=path, check=False)
    assert done.returncode == 1
    assert "error: could not get buildkit: neither by Go nor as a release archive" in done.stderr
    assert "https://github.com/moby/buildkit/releases" in done.stderr


def test_a_debian_package_that_cannot_be_installed_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = path_without(tmp_path / "path", "jq", "apt-get")
    done = install_engines(tmp_path, "jq", path=path, check=False)
    assert done.returncode == 1
    assert "these cannot be installed here: jq" in done.stderr
    assert "your own package manager" in done.stderr


def test_an_engine_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    done = install_engines(tmp_path, "kaniko", check=False)
    assert done.returncode == 2
    assert "no engine kaniko" in done.stderr


def test_a_file_with_another_checksum_is_not_installed(tmp_path: Path) -> None:
    # The functions of the script without its run, which begins where the wanted engines are read.
    source, _, _ = (SCRIPTS / "install-engines").read_text().partition('\nall=("${DEMO[@]}"')
    (tmp_path / "archive").write_text("not what was published")
    scratch = tmp_path / "scripts"
    scratch.mkdir()
    shutil.copy(SCRIPTS / "lib.sh", scratch)
    checker = scratch / "verify"
    checker.write_text(f'{source}\nverify "$1" "$2"\n')
    done = run(
        [find("bash"), checker, tmp_path / "archive", "0" * 64],
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == 1
    assert "the checksum of archive is not the published one" in done.stderr


def test_a_python_environment_is_made_once_and_then_only_looked_at(tmp_path: Path) -> None:
    env = environment(tmp_path, LAYOVER_VENV_DIR=str(tmp_path / "venv"))
    env["LAYOVER_ENGINES_DIR"] = str(tmp_path / "engines")
    run([SCRIPTS / "install-python"], env=env)
    run([tmp_path / "venv" / "bin" / "python", "-c", "import docker, layover, sqlalchemy"], env=env)
    assert (tmp_path / "venv" / "bin" / "depot").is_file()
    again = run([SCRIPTS / "install-python"], env=env)
    assert "up to date" in again.stdout


def test_make_without_a_target_lists_the_tasks(tmp_path: Path) -> None:
    listing = run(
        [find("make"), "--no-print-directory"], env=environment(tmp_path), cwd=ROOT
    ).stdout
    for target in ("install", "engines", "demo", "serve", "test", "lint", "bench", "proto", "lock"):
        assert f"make {target} " in listing
