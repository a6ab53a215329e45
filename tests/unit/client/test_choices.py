"""Which server, token and project is meant: flags, then variables, then files."""

import json
from pathlib import Path

import pytest

from layover.client import choices, login_file
from layover.client.address import InvalidAddress, InvalidToken, Server, parse_url
from layover.client.login_file import Login, LoginFileInvalid, LoginFileUnwritable

URL = "https://layover.example.com"


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), **more}


def log_in(tmp_path: Path, url: str = URL, token: str = "kept") -> Path:
    path = login_file.login_path(environment(tmp_path))
    login_file.write(path, login_file.read(path).with_token(url, token))
    return path


def test_a_flag_goes_before_variables_and_ours_before_the_older_ones(tmp_path: Path) -> None:
    log_in(tmp_path)
    old = {"DEPOT_API_URL": "https://old.example.com", "DEPOT_TOKEN": "old"}
    new = {"LAYOVER_URL": "https://new.example.com", "LAYOVER_TOKEN": "new"}
    find = choices.find_server
    assert find(None, None, environment(tmp_path)) == Server(URL, "kept")
    assert find(None, None, environment(tmp_path, **old)) == Server(old["DEPOT_API_URL"], "old")
    both = environment(tmp_path, **old, **new)
    assert find(None, None, both) == Server(new["LAYOVER_URL"], "new")
    assert find("http://flag:5000/", "flag", both) == Server("http://flag:5000", "flag")


def test_a_token_is_the_one_kept_for_that_server(tmp_path: Path) -> None:
    log_in(tmp_path, "http://other:5000", "other")
    log_in(tmp_path)
    env = environment(tmp_path)
    assert choices.find_server("http://OTHER:5000", None, env).token == "other"
    with pytest.raises(choices.NoToken, match="LAYOVER_TOKEN"):
        choices.find_server("https://unknown.example.com", None, env)


def test_what_surrounds_a_token_is_dropped_and_what_breaks_it_is_told_without_it() -> None:
    for text in ("secret\n", " secret\r\n", "secret"):
        assert choices.find_server(URL, text, {}).token == "secret"
    for text in ("sec ret", "sec\nret", "sec\rret", "secr\xe9t", "sec\0ret"):
        with pytest.raises(InvalidToken) as raised:
            choices.find_server(URL, text, {})
        assert "sec" not in str(raised.value)
    with pytest.raises(choices.NoToken):
        choices.find_server(URL, None, {"HOME": "/nowhere", "LAYOVER_TOKEN": "\n"})


def test_with_nothing_given_every_way_of_giving_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(choices.NoServer, match=r"--url.*LAYOVER_URL.*layover login"):
        choices.find_server(None, None, environment(tmp_path))
    with pytest.raises(choices.NoProject, match=r"--project.*LAYOVER_PROJECT_ID.*depot\.json"):
        choices.only_project([])
    with pytest.raises(choices.NoProject, match="aaaaaaaaaa  first"):
        choices.only_project([("aaaaaaaaaa", "first"), ("bbbbbbbbbb", "second")])
    assert choices.only_project([("aaaaaaaaaa", "first")]) == "aaaaaaaaaa"


def test_a_project_file_is_looked_for_upward(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "a" / "depot.json").write_text(json.dumps({"id": "cccccccccc"}))
    assert choices.find_project(None, {}, deep) == "cccccccccc"
    assert choices.find_project(None, {"DEPOT_PROJECT_ID": "dddddddddd"}, deep) == "dddddddddd"
    both = {"DEPOT_PROJECT_ID": "dddddddddd", "LAYOVER_PROJECT_ID": "eeeeeeeeee"}
    assert choices.find_project(None, both, deep) == "eeeeeeeeee"
    assert choices.find_project("ffffffffff", both, deep) == "ffffffffff"
    (deep / "depot.json").write_text("[]")
    with pytest.raises(choices.ProjectFileInvalid, match="layover init"):
        choices.find_project(None, {}, deep)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Layover.Example.com/", "https://layover.example.com"),
        ("https://layover.example.com:443", "https://layover.example.com"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://[::1]:5000/", "http://[::1]:5000"),
        (" https://example.com/layover/ ", "https://example.com/layover"),
    ],
)
def test_an_address_has_one_form(text: str, url: str) -> None:
    assert parse_url(text) == url
    assert parse_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "layover",
        "ftp://a",
        "https://",
        "https://a:b",
        "https://u:p@a",
        "http://a?b",
        "http://[",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddress):
        parse_url(text)


def test_a_token_shows_in_no_repr() -> None:
    assert "secret" not in repr(Server(URL, "secret"))
    assert "secret" not in repr(Login(URL, {URL: "secret"}))


def test_a_login_is_read_back_whatever_its_text(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "config.toml"
    login = Login(URL).with_token(URL, 'a"b\\c\x01\x7f\n').with_token("http://b", "ü")
    login_file.write(path, login)
    assert login_file.read(path) == login
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]
    assert not login_file.is_readable_by_others(path)
    path.chmod(0o640)
    assert login_file.is_readable_by_others(path)


def test_a_login_file_of_another_make_is_told_without_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    for content in ("[tokens", "url = 1", "tokens = 1", '[tokens]\n"a" = 1'):
        path.write_text(content)
        with pytest.raises(LoginFileInvalid, match="layover login"):
            login_file.read(path)
    assert login_file.read(tmp_path / "none") == Login()


def test_a_linked_login_file_stays_a_link(tmp_path: Path) -> None:
    kept, link = tmp_path / "dotfiles.toml", tmp_path / "folder" / "config.toml"
    kept.touch()
    link.parent.mkdir()
    link.symlink_to(kept)
    login_file.write(link, Login(URL, {URL: "secret"}))
    assert link.is_symlink()
    assert login_file.read(kept).tokens == {URL: "secret"}
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_login_that_cannot_be_kept_says_what_to_do_instead(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoginFileUnwritable, match="LAYOVER_CONFIG_DIR"):
        login_file.write(tmp_path / "file" / "layover" / "config.toml", Login())


def test_the_configuration_folder_can_be_moved(tmp_path: Path) -> None:
    assert login_file.config_folder({"LAYOVER_CONFIG_DIR": "/a"}) == Path("/a")
    assert login_file.config_folder({"XDG_CONFIG_HOME": "/b"}) == Path("/b/layover")
    assert login_file.config_folder({"HOME": "/c"}) == Path("/c/.config/layover")


def test_a_jobs_token_goes_before_the_login_and_behind_all_that_is_said(tmp_path: Path) -> None:
    asked: list[tuple[str, bool]] = []

    def job_token(url: str, has_login: bool) -> str:
        asked.append((url, has_login))
        return "of the job"

    env = environment(tmp_path)
    assert choices.find_server(URL, None, env, job_token) == Server(URL, "of the job")
    log_in(tmp_path)
    assert choices.find_server(URL, None, env, job_token) == Server(URL, "of the job")
    assert asked == [(URL, False), (URL, True)]
    for said in ({"LAYOVER_TOKEN": "said"}, {"DEPOT_TOKEN": "said"}):
        assert choices.find_server(URL, None, {**env, **said}, job_token).token == "said"
    assert choices.find_server(URL, "said", env, job_token).token == "said"
    assert len(asked) == 2
    assert choices.find_server(URL, None, env, lambda url, has_login: "").token == "kept"


def test_a_job_without_any_token_hears_what_its_ci_system_wants(tmp_path: Path) -> None:
    with pytest.raises(choices.NoToken, match="id-token: write"):
        choices.find_server(URL, None, environment(tmp_path, GITHUB_ACTIONS="true"))
