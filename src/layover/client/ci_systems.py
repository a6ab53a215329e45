"""The CI systems that give jobs ID tokens, as far as a job without one has to be told of them."""

from collections.abc import Mapping

TOKEN_VARIABLE = "LAYOVER_ID_TOKEN"  # noqa: S105  # a variable's name


# One of these is set in every job that may have an ID token.
_MARKS = (TOKEN_VARIABLE, "ACTIONS_ID_TOKEN_REQUEST_URL", "CIRCLECI", "BUILDKITE")


def may_have_token(env: Mapping[str, str]) -> bool:
    """Whether it is worth asking for the ID token of the job that we run in."""
    return any(env.get(name) for name in _MARKS)


def how_to_get_one(env: Mapping[str, str]) -> str:
    """How a job of the CI system that we run in gets an ID token; outside of one nothing."""
    if env.get("GITHUB_ACTIONS"):
        return "In GitHub Actions, a job with `permissions: id-token: write` needs none."
    if env.get("GITLAB_CI"):
        return f"In GitLab CI, a job with {TOKEN_VARIABLE} under `id_tokens:` needs none."
    if env.get("CIRCLECI"):
        return "In CircleCI, a job that may use OpenID Connect tokens needs none."
    if env.get("BUILDKITE"):
        return "In Buildkite, a job that has `buildkite-agent` on its PATH needs none."
    return ""
