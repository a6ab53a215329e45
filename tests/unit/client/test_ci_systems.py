from layover.client.ci_systems import how_to_get_one


def test_a_job_without_a_token_hears_what_its_system_wants() -> None:
    assert "id-token: write" in how_to_get_one({"GITHUB_ACTIONS": "true"})
    assert "id_tokens" in how_to_get_one({"GITLAB_CI": "true"})
    assert how_to_get_one({"CIRCLECI": "true"})
    assert "buildkite-agent" in how_to_get_one({"BUILDKITE": "true"})
    assert how_to_get_one({}) == ""
