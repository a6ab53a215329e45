"""Docker's config.json gets one entry, keeps everything else, and gives the entry back."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layover.client import docker_config
from layover.client.docker_config import (
    DockerConfigInvalid,
    DockerConfigUnwritable,
    HelperTaken,
    install,
    read,
    uninstall,
    warnings,
)
from layover.client.registries import parse_registry
from tests.unit.client.test_json_text import STYLES, VALUES

HOST = "layover.example.com"

CONFIG = """{
\t"auths": {
\t\t"https://index.docker.io/v1/": {
\t\t\t"auth": "c29tZWJvZHk6\\u0073ecret"
\t\t}
\t},
\t"HttpHeaders": {"z": "1", "a": "2"},
\t"psFormat": "\\u00e9 é",
\t"detachKeys": 1.50
}
"""


def content_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_that_is_missing_is_made_for_its_owner_alone_and_goes_again(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "config.json"
    assert install(read(path), HOST)
    assert content_of(path) == {"credHelpers": {HOST: "layover"}}
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert uninstall(read(path), HOST)
    assert not path.exists()


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_none_as_docker_has_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    assert install(read(path), HOST)
    assert content_of(path) == {"credHelpers": {HOST: "layover"}}


@pytest.mark.parametrize(
    "text",
    [
        CONFIG,
        CONFIG.replace("\n", "\r\n"),
        json.dumps(json.loads(CONFIG)),
        "{}",
        " {\n} ",
        '{"credHelpers": {"gcr.io": "gcloud"}, "auths": {}}',
        '{\n  "credHelpers": {\n    "gcr.io": "gcloud"\n  },\n  "auths": {}\n}',
        '{"credhelpers": {"gcr.io": "gcloud"}}',
    ],
)
def test_uninstall_gives_back_the_file_to_the_byte(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode())
    path.chmod(0o640)
    assert install(read(path), HOST)
    before, after = json.loads(text), content_of(path)
    section = next((key for key in before if key.lower() == "credhelpers"), "credHelpers")
    assert after == {**before, section: {**before.get(section, {}), HOST: "layover"}}
    assert mode_of(path) == 0o640
    assert uninstall(read(path), HOST)
    assert path.read_bytes() == text.encode()
    assert mode_of(path) == 0o640


def test_the_entry_is_written_in_the_files_own_style(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{\n  "auths": {}\n}\n')
    install(read(path), HOST)
    assert path.read_text() == (
        '{\n  "auths": {},\n  "credHelpers": {\n    "layover.example.com": "layover"\n  }\n}\n'
    )


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(CONFIG)
    assert install(read(path), HOST)
    once = path.stat()
    assert not install(read(path), HOST)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (once.st_ino, once.st_mtime_ns)
    assert uninstall(read(path), HOST)
    assert not uninstall(read(path), HOST)
    assert path.read_text() == CONFIG


def test_only_the_asked_registrys_entry_goes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    install(read(path), HOST)
    install(read(path), "127.0.0.1:5000")
    assert uninstall(read(path), HOST)
    assert content_of(path) == {"credHelpers": {"127.0.0.1:5000": "layover"}}
    assert not uninstall(read(path), HOST)


def test_what_docker_wrote_in_the_meantime_stays(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    install(read(path), HOST)
    path.write_text(json.dumps({"auths": {HOST: {}}, **content_of(path)}, indent="\t"))
    assert uninstall(read(path), HOST)
    assert content_of(path) == {"auths": {HOST: {}}}


def test_another_helpers_entry_is_neither_replaced_nor_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    text = json.dumps({"credHelpers": {HOST: "pass"}})
    path.write_text(text)
    with pytest.raises(HelperTaken, match="'pass'"):
        install(read(path), HOST)
    assert not uninstall(read(path), HOST)
    assert path.read_text() == text


@pytest.mark.parametrize("value", [None, {HOST: ""}])
def test_a_section_that_says_nothing_is_filled(tmp_path: Path, value: object) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": value, "auths": {}}))
    assert install(read(path), HOST)
    assert content_of(path) == {"credHelpers": {HOST: "layover"}, "auths": {}}


@pytest.mark.parametrize(
    "content",
    [
        b'{"auths": {"a": {"auth": "s3cret"}}',
        b'{"auths": {"a": {"auth": "s3cret"}},}',
        b'["s3cret"]',
        b'"s3cret"',
        b'\xef\xbb\xbf{"auths": {"a": {"auth": "s3cret"}}}',
        b'{"a": NaN, "b": "s3cret"}',
        b'{"b": "s3cret\xff"}',
        b'{"b": "s3cret", "credHelpers": []}',
        b'{"b": "s3cret", "credHelpers": {"a": 1}}',
        b'{"b": "s3cret", "credHelpers": {}, "CREDHELPERS": {}}',
        b'{"a":' * 50_000,
    ],
)
def test_a_malformed_file_is_refused_left_alone_and_not_quoted(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(DockerConfigInvalid, match="Nothing was changed") as raised:
        read(path)
    assert "s3cret" not in str(raised.value)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == content


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DockerConfigInvalid, match="Is a directory"):
        read(tmp_path)


def test_a_link_goes_on_to_point_where_it_did(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    path = tmp_path / "config.json"
    path.symlink_to(real)
    for text in ("{}", None):
        if text is not None:
            real.write_text(text)
        else:
            real.unlink()
        assert install(read(path), HOST)
        assert path.is_symlink()
        assert content_of(real) == {"credHelpers": {HOST: "layover"}}
        assert uninstall(read(path), HOST)
        assert path.is_symlink()
        assert content_of(real) == {}


def test_the_file_stays_its_owners_when_root_changes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text(CONFIG)
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda file, uid, gid: given.append((uid, gid)))
    for user, expected in ((1000, []), (0, [(path.stat().st_uid, path.stat().st_gid)])):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert install(read(path), HOST)
        assert given == expected
        given.clear()
        assert uninstall(read(path), HOST)
        given.clear()


def test_nothing_is_left_behind_where_the_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text(CONFIG)
    config = read(path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DockerConfigUnwritable, match="No space left"):
        install(config, HOST)
    assert path.read_text() == CONFIG
    assert list(tmp_path.iterdir()) == [path]


def test_a_configuration_shows_nothing_of_itself() -> None:
    config = docker_config.DockerConfig(Path("config.json"), '{"auths": "s3cret"}')
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("content", "env", "said"),
    [
        ({"auths": {HOST: {"auth": "eDp5"}}}, {}, "holds a login for layover.example.com as well"),
        ({"auths": {f"https://{HOST}/v1/": {"identitytoken": "x"}}}, {}, "holds a login for"),
        ({"credsStore": "desktop"}, {}, "'desktop'"),
        ({"credsStore": "layover"}, {}, "its own servers alone"),
        ({}, {"DOCKER_AUTH_CONFIG": "{}"}, "DOCKER_AUTH_CONFIG"),
        ({"auths": {HOST: {}, "other.example": {"auth": "eDp5"}, "a b": {"auth": "x"}}}, {}, ""),
        ({"auths": None, "credsStore": ""}, {}, ""),
    ],
)
def test_what_else_speaks_for_the_registry_is_warned_about(
    tmp_path: Path, content: object, env: dict[str, str], said: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    found = warnings(read(path), parse_registry(HOST), env)
    assert len(found) == bool(said)
    assert said in "".join(found)
    assert "eDp5" not in "".join(found)


@settings(deadline=None)
@given(
    content=st.dictionaries(
        st.sampled_from(["auths", "credsStore", "credHelpers", "CredHelpers", "plugins", "x"]),
        VALUES | st.dictionaries(st.sampled_from([HOST, "a"]), st.text(max_size=3), min_size=1),
        max_size=4,
    ),
    style=STYLES,
)
def test_whatever_is_in_the_file_it_is_changed_as_said_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], style: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("docker") / "config.json"
    text = json.dumps(content, **style)
    path.write_bytes(text.encode())
    try:
        config = read(path)
        changed = install(config, HOST)
    except (DockerConfigInvalid, HelperTaken):
        assert path.read_bytes() == text.encode()
        return
    warnings(config, parse_registry(HOST), {})
    helpers = {k: v for k, v in content.items() if k.lower() == "credhelpers"}
    section = next(iter(helpers), "credHelpers")
    expected = {**content, section: {**(helpers.get(section) or {}), HOST: "layover"}}
    assert content_of(path) == expected
    assert changed == (expected != content)
    assert uninstall(read(path), HOST)
    if (
        changed
        and HOST not in (helpers.get(section) or {})
        and helpers.get(section, "") not in ({}, None)
    ):
        assert path.read_bytes() == text.encode()


@settings(deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.text(alphabet='{}":,credHelpers[]', max_size=40).map(str.encode)
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("docker") / "config.json"
    path.write_bytes(content)
    try:
        config = read(path)
    except DockerConfigInvalid:
        return
    assert config.helper_of(HOST) == ""
