"""`layover build` and `bake` against real buildx and BuildKit: outputs, names, ends."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]  # it has no stubs
import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import DockerEngine
from tests.e2e.images import busybox_context
from tests.e2e.processes import run
from tests.e2e.server import LAYOVER, LayoverServer

ATTESTATION = ("vnd.docker.reference.type", "attestation-manifest")


def attestations(index: dict[str, Any]) -> int:
    name, value = ATTESTATION
    return sum(m.get("annotations", {}).get(name) == value for m in index["manifests"])


def build_of(server: LayoverServer, build_id: str) -> dict[str, Any]:
    shown = json.loads(server.cli("builds", "show", build_id, "--output", "json").stdout)
    build: dict[str, Any] = shown[0]
    return build


def newest_build(server: LayoverServer) -> dict[str, Any]:
    listed = json.loads(server.cli("list", "builds", "--limit", "1", "--output", "json").stdout)
    build: dict[str, Any] = listed[0]
    return build


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_save_beside_load_keeps_the_users_name_out_of_the_registry_and_ours_out_of_docker(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "loaded and saved")
    before = docker.image_names()
    metadata_file = tmp_path / "build.json"
    server.cli(
        *("build", "--save", "--load", "-t", "loaded:one", "--tag=loaded:two"),
        *(f"--metadata-file={metadata_file}", str(context)),
        env={"DOCKER_HOST": docker.host},
    )
    new = {name for name in docker.image_names() - before if "@" not in name}
    assert new == {"loaded:one", "loaded:two"}
    assert docker("run", "--rm", "loaded:one").stdout == "loaded and saved\n"
    saved = server.saved(metadata_file)
    response = server.manifest(saved.id)
    assert attestations(response.json()) == 1
    assert saved.metadata["containerimage.digest"] == response.headers["Docker-Content-Digest"]
    assert build_of(server, saved.id)["tags"] == ["loaded:one", "loaded:two"]


def test_save_beside_push_makes_one_image_under_both_names(
    server: LayoverServer, start_server: ServerFactory, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "pushed and saved")
    other = start_server()
    docker("login", other.host, "-u", "x-token", "--password-stdin", stdin=other.token)
    repository = f"{other.project_id}/pushed/beside"
    metadata_file = tmp_path / "build.json"
    server.cli(
        *("build", "--save", "--push", "-t", f"{other.host}/{repository}:1.0"),
        *(f"--metadata-file={metadata_file}", str(context)),
        env={"DOCKER_CONFIG": str(docker.config_folder)},
    )
    build = server.saved(metadata_file)
    pushed = other.manifest("1.0", repository).headers["Docker-Content-Digest"]
    assert pushed == server.manifest(build.id).headers["Docker-Content-Digest"]
    assert attestations(server.manifest(build.id).json()) == 1


def test_what_is_pushed_to_the_same_registry_beside_the_save_is_the_users_own(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "pushed beside the saved")
    repository = f"{server.project_id}/pushed/beside"
    build = server.save(context, "--push", "-t", f"{server.host}/{repository}:1.0")
    pushed = server.manifest("1.0", repository).headers["Docker-Content-Digest"]
    assert pushed == server.manifest(build.id).headers["Docker-Content-Digest"]
    builds = json.loads(server.cli("list", "builds", "--output", "json").stdout)
    assert {row["id"]: row["saved"] for row in builds}[build.id]
    # It outlives the build.
    server.cli("builds", "rm", "--yes", build.id)
    assert server.manifest("1.0", repository).status == 200


def test_save_beside_another_output_gives_it_the_users_names(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "exported and saved")
    archive, folder = tmp_path / "image.tar", tmp_path / "files"
    build = server.save(
        context,
        *("-t", "user/app:1", "-o", f"type=oci,dest={archive}", "-o", str(folder)),
    )
    with tarfile.open(archive) as content:
        index = json.load(content.extractfile("index.json") or io.BytesIO())
    names = {m["annotations"]["io.containerd.image.name"] for m in index["manifests"]}
    assert names == {"docker.io/user/app:1"}
    assert (folder / "greeting").read_text() == "exported and saved\n"
    assert attestations(server.manifest(build.id).json()) == 1


def test_a_save_tag_names_the_build_in_its_project(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "tagged")
    build = server.save(context, "--save-tag", "nightly", "--save-tag=newest")
    digests = {
        server.manifest(tag).headers["Docker-Content-Digest"]
        for tag in (build.id, "nightly", "newest")
    }
    assert len(digests) == 1
    name = f"{server.project_id}:nightly"
    pulled = server.cli("pull", name, "-t", "nightly:mine", env={"DOCKER_HOST": docker.host})
    assert pulled.stdout == "nightly:mine\n"
    assert docker("run", "--rm", "nightly:mine").stdout == "tagged\n"


def test_a_build_for_two_platforms_is_one_index(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "two platforms")
    # One builder makes both: nothing is run in it, so none has to be emulated.
    build = server.save(
        context, "--platform", "linux/amd64,linux/arm64", "--build-platform", "linux/amd64"
    )
    index = server.manifest(build.id).json()
    platforms = [m["platform"]["architecture"] for m in index["manifests"]]
    assert [name for name in platforms if name != "unknown"] == ["amd64", "arm64"]
    env = {"DOCKER_HOST": docker.host}
    server.cli("pull", build.id, "--platform", "linux/arm64", "-t", "for:arm", env=env)
    assert docker("image", "inspect", "-f", "{{.Architecture}}", "for:arm").stdout == "arm64\n"
    docker("image", "rm", "for:arm")
    wrong = server.cli("pull", build.id, "--platform", "linux/s390x", env=env, check=False)
    assert wrong.returncode == 2
    assert "linux/amd64, linux/arm64" in wrong.stderr


def test_a_dockerfile_and_a_context_come_through_standard_input(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "from standard input")
    dockerfile = "FROM scratch\nCOPY greeting /renamed\n"
    run(
        [LAYOVER, "build", "--save", "-f", "-", str(context)],
        env=server.cli_env(),
        stdin=dockerfile,
    )
    build = build_of(server, newest_build(server)["id"])
    assert build["dockerfiles"] == [{"target": "", "filename": "-", "contents": dockerfile}]
    assert build["saved"]

    alone = "FROM scratch\nLABEL alone=yes\n"
    run([LAYOVER, "build", "--save", "-"], env=server.cli_env(), stdin=alone)
    build = build_of(server, newest_build(server)["id"])
    assert [d["contents"] for d in build["dockerfiles"]] == [alone]

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as content:
        content.add(context, arcname=".")
    done = subprocess.run(
        [LAYOVER, "build", "--save", "-"],
        input=archive.getvalue(),
        env=server.cli_env(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert build_of(server, newest_build(server)["id"])["dockerfiles"] == []


def test_quiet_prints_the_image_id_alone_and_iidfile_has_it(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "quiet")
    iid, metadata = tmp_path / "iid", tmp_path / "build.json"
    done = server.cli(
        *("build", "--save", "-q", "--iidfile", str(iid), "--metadata-file", str(metadata)),
        str(context),
    )
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout)
    assert iid.read_text() == done.stdout.strip()
    assert set(json.loads(metadata.read_text())["depot.build"]) == {"buildID", "projectID"}


def test_the_users_docker_configuration_is_used_and_stays_as_it_is(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "private configuration")
    folder = tmp_path / "docker"
    (folder / "contexts").mkdir(parents=True)
    (folder / "contexts" / "kept").write_text("kept")
    other = base64.b64encode(b"user:password").decode()
    # This store does not exist: asked for our registry's credentials, it would fail the push.
    config = {"credsStore": "not-there", "auths": {"other.example.com": {"auth": other}}}
    (folder / "config.json").write_text(json.dumps(config))
    before = snapshot(folder)
    build = run(
        [LAYOVER, "build", "--save", str(context)],
        env={**server.cli_env(), "DOCKER_CONFIG": str(folder), "TMPDIR": str(tmp_path)},
    )
    assert "docker pull" in build.stderr
    assert snapshot(folder) == before
    assert list(tmp_path.glob("layover-build-*")) == []


def test_no_secret_is_in_the_environment_of_what_a_build_starts(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "environment")
    slow(context, 3)
    build = subprocess.Popen(
        [LAYOVER, "build", "--save", str(context)],
        env=server.cli_env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen = []
    while build.poll() is None:
        for child in children(build.pid):
            try:
                seen.append(Path(f"/proc/{child}/environ").read_bytes())
                command = Path(f"/proc/{child}/cmdline").read_bytes()
            except OSError:
                continue
            # One that has just ended has no command line any more.
            assert not command or b"buildx" in command or b"git" in command
        time.sleep(0.1)
    assert build.returncode == 0
    assert any(b"BUILDX_CONFIG=" in environ for environ in seen)
    assert not any(server.token.encode() in environ for environ in seen)


def children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(c) for t in tasks for c in (t / "children").read_text().split()]
    except OSError:
        return []


def slow(context: Path, seconds: int) -> None:
    """Make the context's build take a while, and no cache shorten it."""
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\n"
        f'RUN ["/bin/busybox", "sh", "-c", "echo {time.time_ns()}; /bin/busybox sleep {seconds}"]\n'
    )


def sleepers(seconds: int) -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            count += command == f"/bin/busybox\0sleep\0{seconds}\0".encode()
    return count


def wait_for(condition: Any, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_build_is_canceled_on_the_builder_and_on_the_server(
    server: LayoverServer, tmp_path: Path, number: signal.Signals
) -> None:
    context = busybox_context(tmp_path / "context", "interrupted")
    seconds = 7000 + number
    slow(context, seconds)
    build = subprocess.Popen(
        [LAYOVER, "build", "--save", str(context)],
        env=server.cli_env(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: sleepers(seconds) == 1)
    build.send_signal(number)
    _, messages = build.communicate(timeout=60)
    assert build.returncode == 130
    assert "was canceled" in messages
    assert newest_build(server)["status"] == "canceled"
    wait_for(lambda: sleepers(seconds) == 0)


def test_a_build_whose_client_is_killed_ends_on_the_builder_and_its_secrets_go_with_the_next(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "killed")
    slow(context, 7639)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [str(LAYOVER), "build", "--save", str(context)]
    env = {**server.cli_env(), "TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as killed:
        wait_for(lambda: sleepers(7639))
        (buildx,) = children(killed.pid)
        killed.kill()
    wait_for(lambda: not sleepers(7639))
    wait_for(lambda: not Path(f"/proc/{buildx}").exists())
    assert len(list(temporary.iterdir())) == 1
    server.cli("build", str(busybox_context(tmp_path / "next", "next")), env=env)
    assert list(temporary.iterdir()) == []


def test_deleting_a_running_build_stops_it(server: LayoverServer, tmp_path: Path) -> None:
    context = busybox_context(tmp_path / "context", "deleted while it runs")
    slow(context, 7100)
    build = subprocess.Popen(
        [LAYOVER, "build", "--save", str(context)],
        env=server.cli_env(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: sleepers(7100) == 1)
    build_id = newest_build(server)["id"]
    server.cli("builds", "rm", "--yes", build_id)
    _, messages = build.communicate(timeout=30)
    assert build.returncode == 1
    assert f"build {build_id} was stopped" in messages
    wait_for(lambda: sleepers(7100) == 0)
    gone = server.cli("builds", "show", build_id, check=False)
    assert gone.returncode == 1
    assert build_id in gone.stderr


def test_steps_and_log_are_kept_as_they_were_told(server: LayoverServer, tmp_path: Path) -> None:
    context = busybox_context(tmp_path / "context", "told")
    word = f"word-{time.time_ns()}"
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\n"
        f'RUN ["/bin/busybox", "sh", "-c", "echo {word}; echo {word}-error >&2"]\n'
        'RUN ["/bin/busybox", "sh", "-c", "exit 3"]\n'
    )
    failed = server.cli("build", str(context), check=False)
    assert failed.returncode == 1
    build = build_of(server, newest_build(server)["id"])
    assert build["status"] == "failed"
    assert "exit code: 3" in build["error"]
    errors = [step["error"] for step in build["steps"] if step["error"]]
    assert len(errors) == 1
    assert "exit code: 3" in errors[0]
    log = server.cli("builds", "show", build["id"], "--log").stdout
    # The two come through pipes of their own, in either order.
    assert {word, f"{word}-error"} <= set(log.splitlines())
    assert "exit code: 3" in server.cli("builds", "show", build["id"]).stdout


def test_a_push_without_a_name_is_refused_before_a_build_begins(
    server: LayoverServer, tmp_path: Path, bake: Path
) -> None:
    newest = newest_build(server)["id"]
    context = busybox_context(tmp_path / "context", "nameless")
    for arguments, folder in ((["build", "."], context), (["bake", "tool-one"], bake)):
        done = server.cli(*arguments, "--save", "--push", cwd=folder, check=False)
        assert done.returncode == 2
        assert "name" in done.stderr
    assert newest_build(server)["id"] == newest


def test_what_buildx_only_tells_is_not_saved_and_moves_no_tag(
    server: LayoverServer, tmp_path: Path, bake: Path
) -> None:
    context = busybox_context(tmp_path / "context", "told, not built")
    server.cli("build", "--save-tag", "kept", str(context))
    digest = server.manifest("kept").headers["Docker-Content-Digest"]
    for arguments, folder in (
        (["build", "--check", "--save-tag=kept", "."], context),
        (["build", "--call=targets", "--save-tag=kept", "."], context),
        (["bake", "--call=targets", "--save-tag=kept", "tool-one"], bake),
    ):
        told = server.cli(*arguments, cwd=folder)
        assert told.stdout
        assert "Nothing is saved" in told.stderr
        assert "layover pull" not in told.stderr
        assert not newest_build(server)["saved"]
    assert server.manifest("kept").headers["Docker-Content-Digest"] == digest


def test_control_c_on_a_terminal_cancels_once_and_leaves_the_terminal_usable(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "on a terminal")
    slow(context, 7200)
    # A shell of its own, in the foreground of its terminal, as a user has it.
    shell = pexpect.spawn(
        "/bin/sh",
        ["-i"],
        env={**server.cli_env(), "PS1": "ready> ", "TERM": "xterm"},
        encoding="utf-8",
        dimensions=(40, 120),
        timeout=30,
    )
    shell.expect("ready> ")
    shell.sendline(f"{LAYOVER} build --save {context}; echo ended=$?")
    wait_for(lambda: sleepers(7200) == 1)
    shell.sendintr()
    shell.expect("was canceled")
    shell.expect("ended=130")
    shell.expect("ready> ")
    shell.sendline("echo still=here")
    shell.expect("still=here")
    shell.close(force=True)
    assert newest_build(server)["status"] == "canceled"
    wait_for(lambda: sleepers(7200) == 0)


BAKE = """
group "default" { targets = ["app", "tools"] }
group "tools" { targets = ["tool"] }
target "base" {
  context = "files"
  dockerfile-inline = "FROM scratch\\nCOPY busybox /bin/busybox\\n"
}
target "app" {
  contexts = { base = "target:base" }
  context = "files"
  dockerfile = "app.Dockerfile"
  tags = ["bake/app:1"]
}
target "tool" {
  matrix = { kind = ["one", "two"] }
  name = "tool-${kind}"
  contexts = { base = "target:base" }
  context = "files"
  secret = ["id=word,src=word"]
  args = { KIND = kind, DOLLAR = "$${HOME}" }
  dockerfile-inline = <<EOT
FROM base
ARG KIND
ARG DOLLAR
ENV KIND=$KIND DOLLAR=$DOLLAR
RUN --mount=type=secret,id=word ["/bin/busybox", "cp", "/run/secrets/word", "/word"]
CMD ["/bin/busybox", "sh", "-c", "echo $KIND $DOLLAR $(/bin/busybox cat /word)"]
EOT
}
"""


@pytest.fixture
def bake(tmp_path: Path) -> Path:
    folder = tmp_path / "bake"
    busybox_context(folder / "files", "baked")
    (folder / "files" / "app.Dockerfile").write_text(
        'FROM base\nCOPY greeting /\nCMD ["/bin/busybox", "cat", "/greeting"]\n'
    )
    (folder / "word").write_text("secret")
    (folder / "docker-bake.hcl").write_text(BAKE)
    return folder


def test_a_bake_saves_every_target_that_was_asked_for(
    server: LayoverServer, docker: DockerEngine, bake: Path
) -> None:
    metadata = bake / "build.json"
    done = server.cli("bake", "--save", f"--metadata-file={metadata}", cwd=bake)
    facts = json.loads(metadata.read_text())
    assert facts["depot.build"]["targets"] == ["app", "tool-one", "tool-two"]
    # buildx tells of the linked target too, which is no result.
    assert set(facts) == {"app", "base", "tool-one", "tool-two", "depot.build"}
    build_id = facts["depot.build"]["buildID"]
    for target in facts["depot.build"]["targets"]:
        reference = f"{server.host}/{server.project_id}:{build_id}-{target}"
        assert f"docker pull {reference}\n" in done.stderr
        digest = server.manifest(f"{build_id}-{target}").headers["Docker-Content-Digest"]
        assert facts[target]["containerimage.digest"] == digest
    build = build_of(server, build_id)
    assert [image["target"] for image in build["images"]] == ["app", "tool-one", "tool-two"]
    assert {d["target"] for d in build["dockerfiles"]} == {"app", "tool-one", "tool-two"}

    env = {"DOCKER_HOST": docker.host}
    named = server.cli("pull", build_id, "-t", "several:targets", env=env, check=False)
    assert named.returncode == 2
    assert "--target" in named.stderr
    unknown = server.cli("pull", build_id, "--target", "nothing", env=env, check=False)
    assert unknown.returncode == 2
    assert "app, tool-one, tool-two" in unknown.stderr
    one = server.cli("pull", build_id, "--target", "tool-two", "-t", "two:mine", env=env)
    assert one.stdout == "two:mine\n"
    assert docker("run", "--rm", "two:mine").stdout == "two ${HOME} secret\n"
    every = server.cli("pull", build_id, env=env)
    prefix = f"{server.host}/{server.project_id}:{build_id}"
    assert every.stdout.split() == ["bake/app:1", f"{prefix}-tool-one", f"{prefix}-tool-two"]
    assert docker("run", "--rm", "bake/app:1").stdout == "baked\n"


def test_a_bake_beside_load_and_set_does_what_each_says(
    server: LayoverServer, docker: DockerEngine, bake: Path
) -> None:
    metadata = bake / "build.json"
    before = docker.image_names()
    server.cli(
        *("bake", "--save", "--load", "--metadata-file", str(metadata)),
        *("--set", "app.tags=bake/app:set", "--set", "*.labels.by=layover", "app"),
        cwd=bake,
        env={"DOCKER_HOST": docker.host},
    )
    assert {n for n in docker.image_names() - before if "@" not in n} == {"bake/app:set"}
    label = docker("image", "inspect", "-f", "{{.Config.Labels.by}}", "bake/app:set").stdout
    assert label == "layover\n"
    build_id = json.loads(metadata.read_text())["depot.build"]["buildID"]
    assert attestations(server.manifest(f"{build_id}-app").json()) == 1


def test_a_bake_reads_its_file_from_standard_input(server: LayoverServer, bake: Path) -> None:
    (bake / "docker-bake.hcl").unlink()
    for save in (["--save"], []):
        done = subprocess.run(
            [LAYOVER, "bake", *save, "-f", "-", "app"],
            input=BAKE,
            text=True,
            env=server.cli_env(),
            cwd=bake,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        build = newest_build(server)
        assert (build["command"], build["saved"]) == ("bake", bool(save))


def test_what_only_tells_needs_no_server(bake: Path, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    printed = run([LAYOVER, "bake", "--print", "app"], env=env, cwd=bake)
    assert json.loads(printed.stdout)["target"]["app"]["tags"] == ["bake/app:1"]
    listed = run([LAYOVER, "bake", "--list=targets"], env=env, cwd=bake)
    assert "tool-one" in listed.stdout


def test_an_error_in_a_bake_file_is_told_in_buildx_s_words(
    server: LayoverServer, bake: Path
) -> None:
    (bake / "docker-bake.hcl").write_text('target "app" {\n')
    wrong = server.cli("bake", "--save", cwd=bake, check=False)
    assert wrong.returncode == 1
    assert "docker-bake.hcl:1" in wrong.stderr
    unknown = server.cli("bake", "--save", "nothing", cwd=bake, check=False)
    assert unknown.returncode == 1
