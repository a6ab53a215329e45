from layover.client.ci_systems import how_to_get_one, may_have_token


def test_a_job_without_a_token_hears_what_its_system_wants() -> None:
    assert "id-token: write" in how_to_get_one({"GITHUB_ACTIONS": "true"})
    assert "id_tokens" in how_to_get_one({"GITLAB_CI": "true"})
    assert how_to_get_one({"CIRCLECI": "true"})
    assert "buildkite-agent" in how_to_get_one({"BUILDKITE": "true"})
    assert how_to_get_one({}) == ""


def test_a_job_that_may_have_a_token_is_known_by_its_environment() -> None:
    for name in ("LAYOVER_ID_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "CIRCLECI", "BUILDKITE"):
        assert may_have_token({name: "x"})
        assert not may_have_token({name: ""})
    assert not may_have_token({"CI": "true", "GITHUB_ACTIONS": "true"})
