"""Real container engines for the tests: a Docker Engine of their own, and registry clients.

None of them reads or writes the user's configuration, images or networks.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e import processes
from tests.e2e.processes import Background, environment, find, run


def static_busybox() -> Path:
    """Return a busybox that needs no library, so that it runs in an image made from scratch."""
    for candidate in (str(processes.ENGINES / "bin" / "busybox"), find("busybox")):
        if not Path(candidate).is_file():
            continue
        # ldd fails for a program without a dynamic section.
        if subprocess.run([find("ldd"), candidate], capture_output=True, check=False).returncode:
            return Path(candidate)
    raise processes.MissingEngineError("no static busybox; run scripts/install-engines busybox")


class DockerEngine:
    """A dockerd with its own socket, data and containerd namespace, and no network."""

    def __init__(self, folder: Path) -> None:
        """`folder` has to be short: a socket's path has at most 107 characters."""
        self._folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self.config_folder = folder / "config"
        self.config_folder.mkdir(parents=True)
        (folder / "daemon.json").write_text("{}")
        self.env = environment(folder, DOCKER_HOST=self.host, DOCKER_CONFIG=str(self.config_folder))
        self._daemon = Background(
            [
                *(find("dockerd"), "--config-file", folder / "daemon.json", "--host", self.host),
                *("--data-root", folder / "data", "--exec-root", folder / "exec"),
                *("--pidfile", folder / "dockerd.pid", "--bridge=none", "--iptables=false"),
                *("--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
                *("--containerd-namespace", "layover-tests"),
                *("--containerd-plugins-namespace", "layover-tests-plugins"),
            ],
            env=self.env,
            log=folder / "dockerd.log",
        )
        try:
            processes.wait_until(self._answers, timeout=60, what="the Docker Engine")
        except AssertionError as error:
            tail = self._daemon.log()[-4000:]
            self.stop()
            raise AssertionError(f"dockerd did not start: {tail}") from error

    def _answers(self) -> bool:
        if not self._daemon.is_running:
            raise AssertionError("dockerd ended")
        return self("version", check=False).returncode == 0

    def __call__(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `docker ARGUMENTS` against this engine."""
        return run([find("docker"), *arguments], env=self.env, check=check, stdin=stdin)

    def image_names(self) -> set[str]:
        """Return every name:tag and every name@digest that the engine's images have."""
        listing = self("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        digests = self("image", "ls", "--digests", "--format", "{{.Repository}}@{{.Digest}}")
        return {
            name
            for name in (*listing, *digests.stdout.split())
            if not name.endswith(("@<none>", ":<none>"))
        }

    def stop(self) -> None:
        self._daemon.stop()
        processes.remove(self._folder)


@dataclass(frozen=True)
class Skopeo:
    """skopeo, with credentials and a policy of its own."""

    folder: Path
    env: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "policy.json").write_text(
            '{"default": [{"type": "insecureAcceptAnything"}]}'
        )
        env = environment(self.folder, REGISTRY_AUTH_FILE=str(self.folder / "auth.json"))
        object.__setattr__(self, "env", env)

    def __call__(
        self,
        *arguments: str,
        check: bool = True,
        timeout: float = 300,
        stdin: str | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        return run(
            self.command(*arguments), env=self.env, check=check, timeout=timeout, stdin=stdin
        )

    def command(self, *arguments: str) -> list[str]:
        return [find("skopeo"), "--policy", str(self.folder / "policy.json"), *arguments]


@dataclass(frozen=True)
class Podman:
    """podman, with storage, credentials and configuration of its own."""

    folder: Path
    env: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # podman asks for 1048576 open files by default; in a container or a small virtual machine
        # the hard limit is lower and only a process with CAP_SYS_RESOURCE may raise it.
        (self.folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
            f'[engine]\ntmp_dir = "{self.folder}/tmp"\n'
        )
        # podman ends with an error when it is pointed at an auth file that is not there.
        (self.folder / "auth.json").write_text("{}")
        env = environment(
            self.folder,
            REGISTRY_AUTH_FILE=str(self.folder / "auth.json"),
            CONTAINERS_CONF=str(self.folder / "containers.conf"),
        )
        object.__setattr__(self, "env", env)

    def __call__(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return run(self.command(*arguments), env=self.env, check=check, stdin=stdin)

    def command(self, *arguments: str) -> list[str]:
        root = ("--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"))
        return [find("podman"), *root, *arguments]

    def remove(self) -> None:
        processes.remove(self.folder)


# They need a network, a device, or a file system of their own.
_UNUSED_PLUGINS = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]


class Containerd:
    """A containerd with its own socket and data; no other's, such as Docker's, is used."""

    def __init__(self, folder: Path) -> None:
        """`folder` has to be short: a socket's path has at most 107 characters."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._socket = folder, folder / "containerd.sock"
        (folder / "config.toml").write_text(
            "version = 2\n"
            f"disabled_plugins = {json.dumps(_UNUSED_PLUGINS)}\n"
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{folder}/opt"\n'
        )
        self.env = environment(folder)
        self._daemon = Background(
            [
                *(find("containerd"), "--config", folder / "config.toml"),
                *(
                    "--address",
                    self._socket,
                    "--root",
                    folder / "root",
                    "--state",
                    folder / "state",
                ),
            ],
            env=self.env,
            log=folder / "containerd.log",
        )
        try:
            processes.wait_until(self._answers, timeout=60, what="containerd")
        except AssertionError as error:
            tail = self._daemon.log()[-4000:]
            self.stop()
            raise AssertionError(f"containerd did not start: {tail}") from error

    def _answers(self) -> bool:
        if not self._daemon.is_running:
            raise AssertionError("containerd ended")
        return self("version", check=False).returncode == 0

    def __call__(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `ctr ARGUMENTS` against this containerd."""
        return run([find("ctr"), "--address", self._socket, *arguments], env=self.env, check=check)

    def pull(
        self, reference: str, *, hosts: Path, user: str, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Pull with a login, USER:SECRET, and a folder that says how hosts are reached."""
        # This snapshotter needs nothing of the kernel.
        return self(
            *("images", "pull", "--snapshotter", "native", "--hosts-dir", str(hosts)),
            *("--user", user, reference),
            check=check,
        )

    def stop(self) -> None:
        self._daemon.stop()
        processes.remove(self._folder)
