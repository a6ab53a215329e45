"""The token that this machine has for a registry, as Docker's clients ask a helper for it.

It is found as every command finds it: LAYOVER_TOKEN or the CI job's own, for the server that
LAYOVER_URL or the login names and no other; else the token that the login's file keeps for that
very server.
"""

import contextlib
from collections.abc import Mapping

from layover.client import choices, login_file
from layover.client.address import parse_token, parse_url
from layover.client.choices import JobToken, NoServer, NoToken, no_job_token
from layover.client.ci_systems import may_have_token
from layover.client.registries import Registry

# The user name that goes with every token.
USER_NAME = "x-token"


def find_token(
    registry: Registry, env: Mapping[str, str], job_token: JobToken = no_job_token
) -> str:
    """The token for the registry, empty when there is none.

    Raises what `choices.find_server` does, but for NoServer and NoToken.
    """
    if registry.is_at(_url_in_use(env)):
        try:
            return choices.find_server(None, None, env, job_token).token
        except NoToken:
            return ""
    kept = login_file.read(login_file.login_path(env)).tokens
    urls = _kept_urls(registry, kept)
    return parse_token(kept[urls[0]]) if urls else ""


def has_token(registry: Registry, env: Mapping[str, str]) -> bool:
    """Whether `find_token` would find one, as far as that can be told without asking anybody."""
    in_job = may_have_token(env) and registry.is_at(_url_in_use(env))
    return in_job or bool(find_token(registry, env))


def keep_token(registry: Registry, token: str, env: Mapping[str, str]) -> None:
    """Keep a token for the registry, as `layover login` does, without changing the server in use.

    Raises InvalidToken, LoginFileInvalid, LoginFileUnwritable.
    """
    token = parse_token(token)
    path = login_file.login_path(env)
    login = login_file.read(path)
    in_use = _url_in_use(env)
    urls = [in_use] if registry.is_at(in_use) else _kept_urls(registry, login.tokens)
    url = urls[0] if urls else _likely_url(registry)
    login_file.write(path, login_file.Login(login.url, {**login.tokens, url: token}))


def forget_token(registry: Registry, env: Mapping[str, str]) -> None:
    """Forget what is kept for the registry; none is no error.

    Raises LoginFileInvalid, LoginFileUnwritable.
    """
    path = login_file.login_path(env)
    login = login_file.read(path)
    urls = _kept_urls(registry, login.tokens)
    for url in urls:
        login = login.without(url)
    if urls:
        login_file.write(path, login)


def list_registries(env: Mapping[str, str]) -> list[str]:
    """The hosts of the registries that there may be a token for, as in an image's name.

    Raises what `find_token` does.
    """
    urls = set(login_file.read(login_file.login_path(env)).tokens)
    with contextlib.suppress(NoServer, NoToken):
        urls.add(choices.find_server(None, None, env).url)
    if may_have_token(env) and (in_use := _url_in_use(env)):
        urls.add(in_use)
    return sorted({url.partition("://")[2].partition("/")[0] for url in urls})


def _url_in_use(env: Mapping[str, str]) -> str:
    """The server that commands mean, empty when nobody said which."""
    try:
        return choices.find_url(None, env)
    except NoServer:
        return ""


def _kept_urls(registry: Registry, tokens: Mapping[str, str]) -> list[str]:
    """The addresses of the registry in the login's file, HTTPS before plain HTTP."""
    return sorted((url for url in tokens if registry.is_at(url)), reverse=True)


def _likely_url(registry: Registry) -> str:
    """The address of a server that nobody named by one: Docker's own rule."""
    scheme = registry.scheme or ("http" if registry.is_loopback else "https")
    return parse_url(f"{scheme}://{registry.host}")
