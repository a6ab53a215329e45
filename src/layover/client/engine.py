"""Pulling into a Docker Engine, through its API.

The engine is found as Docker's own client finds it: DOCKER_HOST, DOCKER_CONTEXT, the context
in use, the usual socket. `docker` is imported with this module, which commands load late.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from layover.client.docker_context import Endpoint, find_endpoint
from layover.client.errors import ClientError
from layover.client.layers import LayerProgress, Report
from layover.client.references import Image

# A pull says something at least as often as a layer's progress; extracting a large layer on a
# slow disk does not. The engine gives up on its own long before.
_TIMEOUT_SECONDS = 600

# Statuses of a layer that the engine has.
_DONE = frozenset({"Pull complete", "Already exists"})


class EngineUnavailable(ClientError):
    """No Docker Engine answers."""

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(
            f"cannot reach Docker{' at ' + address if address else ''}: {cause}\n"
            "Start it (`sudo systemctl start docker`, or Docker Desktop), or point DOCKER_HOST or"
            " a Docker context at an engine; https://docs.docker.com/engine/install/ says how to"
            " get it. Without Docker, skopeo and podman pull the same image."
        )


class PullFailed(ClientError):
    """The engine could not pull the image."""

    def __init__(self, reference: str, reason: str) -> None:
        super().__init__(f"Docker could not pull {reference}: {reason}")
        self.reference = reference


class Engine:
    """A Docker Engine's image store."""

    def __init__(self, client: docker.APIClient) -> None:
        self._client = client

    @classmethod
    @contextlib.contextmanager
    def connect(cls, env: Mapping[str, str]) -> Iterator["Engine"]:
        """Find the engine and see that it answers. Raises EngineUnavailable."""
        try:
            client = _dial(env)
            client.ping()
        except (DockerException, requests.RequestException, OSError) as error:
            raise EngineUnavailable(_address(env), _why(error)) from error
        try:
            yield cls(client)
        finally:
            client.close()

    def pull(
        self, image: Image, *, username: str, password: str, platform: str | None, report: Report
    ) -> None:
        """Pull an image. Raises PullFailed with the engine's own words."""
        try:
            events = self._client.pull(
                image.name,
                tag=image.version,
                stream=True,
                decode=True,
                auth_config={"username": username, "password": password} if password else None,
                platform=platform,
            )
            for event in events:
                if error := event.get("error"):
                    raise PullFailed(str(image), str(error))
                report(_progress(event))
        except APIError as error:
            raise PullFailed(str(image), _why(error)) from error
        except (requests.RequestException, OSError) as error:
            raise EngineUnavailable("", _why(error)) from error

    def has(self, image: Image) -> bool:
        """Whether the engine holds this name."""
        try:
            self._client.inspect_image(str(image))  # type: ignore[no-untyped-call]  # its stub has no types
        except ImageNotFound:
            return False
        return True

    def tag(self, image: Image, name: Image) -> None:
        """Give an image another name."""
        try:
            self._client.tag(str(image), name.name, tag=name.tag or "latest", force=True)
        except APIError as error:
            raise ClientError(f"Docker could not tag {name}: {_why(error)}") from error

    def untag(self, image: Image) -> None:
        """Take a name away; the image stays under its other names."""
        try:
            self._client.remove_image(str(image), noprune=True)
        except ImageNotFound:
            return
        except APIError as error:
            raise ClientError(f"Docker could not remove the tag {image}: {_why(error)}") from error


def _dial(env: Mapping[str, str]) -> docker.APIClient:
    version = env.get("DOCKER_API_VERSION") or None
    if env.get("DOCKER_HOST"):
        settings = kwargs_from_env(environment=dict(env))
        return docker.APIClient(
            version=version,
            timeout=_TIMEOUT_SECONDS,
            use_ssh_client=settings["base_url"].startswith("ssh://"),
            **settings,
        )
    endpoint = find_endpoint(env)
    return docker.APIClient(
        base_url=endpoint.host or None,
        version=version,
        timeout=_TIMEOUT_SECONDS,
        tls=_tls(endpoint),
        use_ssh_client=endpoint.host.startswith("ssh://"),
    )


def _tls(endpoint: Endpoint) -> TLSConfig | bool:
    if not endpoint.uses_tls:
        return False
    pair = (str(endpoint.cert), str(endpoint.key)) if endpoint.cert and endpoint.key else None
    ca = str(endpoint.ca) if endpoint.ca else None
    return TLSConfig(client_cert=pair, ca_cert=ca, verify=not endpoint.skips_tls_verification)


def _address(env: Mapping[str, str]) -> str:
    """What the engine's address is, as far as it was said."""
    return env.get("DOCKER_HOST") or find_endpoint(env).host


def _progress(event: Mapping[str, Any]) -> LayerProgress:
    detail = event.get("progressDetail") or {}
    status = str(event.get("status", ""))
    layer = str(event.get("id", ""))
    if status.startswith("Pulling from"):
        layer = ""
    done, total = detail.get("current") or 0, detail.get("total") or 0
    return LayerProgress(layer, status, done, total, is_done=status in _DONE)


def _why(error: BaseException) -> str:
    """The cause in few words: requests and urllib3 wrap the system's own error several times."""
    if isinstance(error, APIError):
        return str(error.explanation or error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return next(iter(str(error).splitlines()), "") or type(error).__name__
