"""The engine is found where Docker's own client would find it."""

import hashlib
import json
from pathlib import Path

import pytest

from layover.client.docker_context import Endpoint, NoContext, context_name, find_endpoint
from layover.client.errors import ClientError


def make_context(folder: Path, name: str, host: str, *, skips: bool = False) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    described = {"Name": name, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skips}}}
    (meta / "meta.json").write_text(json.dumps(described))
    tls = folder / "contexts" / "tls" / digest / "docker"
    tls.mkdir(parents=True)
    return tls


def test_without_a_context_it_is_the_usual_socket(tmp_path: Path) -> None:
    for env in ({"DOCKER_CONFIG": str(tmp_path)}, {"HOME": str(tmp_path)}):
        assert context_name(env) == "default"
        assert find_endpoint(env) == Endpoint()
    assert not Endpoint().uses_tls


def test_a_named_context_goes_before_the_one_in_use(tmp_path: Path) -> None:
    make_context(tmp_path, "one", "tcp://one:1")
    make_context(tmp_path, "two", "ssh://two")
    (tmp_path / "config.json").write_text('{"currentContext": "one"}')
    env = {"DOCKER_CONFIG": str(tmp_path)}
    assert find_endpoint(env).host == "tcp://one:1"
    assert find_endpoint({**env, "DOCKER_CONTEXT": "two"}).host == "ssh://two"
    assert find_endpoint({**env, "DOCKER_CONTEXT": "default"}).host == ""
    with pytest.raises(NoContext, match="'three'"):
        find_endpoint({**env, "DOCKER_CONTEXT": "three"})


def test_a_context_s_certificates_are_found(tmp_path: Path) -> None:
    tls = make_context(tmp_path, "tls", "tcp://one:2376")
    for part in ("ca", "cert", "key"):
        (tls / f"{part}.pem").touch()
    endpoint = find_endpoint({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "tls"})
    assert (endpoint.ca, endpoint.key) == (tls / "ca.pem", tls / "key.pem")
    assert endpoint.uses_tls
    make_context(tmp_path, "careless", "tcp://two:2376", skips=True)
    env = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "careless"}
    assert find_endpoint(env).skips_tls_verification


def test_a_configuration_that_is_no_json_is_told_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ClientError, match=r"config\.json"):
        find_endpoint({"DOCKER_CONFIG": str(tmp_path)})
