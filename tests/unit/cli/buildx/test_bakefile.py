"""A printed bake definition is rewritten in its tags and outputs alone."""

import json
from typing import Any

import pytest

from layover.cli.buildx.bakefile import Definition, is_remote
from layover.cli.errors import BuildxFailed

PRINTED: dict[str, Any] = {
    "group": {
        "default": {"targets": ["app", "tools"]},
        "tools": {"targets": ["tool-1", "tool-2", "app"]},
    },
    "target": {
        "app": {
            "context": "app",
            "contexts": {"base": "target:base"},
            "tags": ["u/app:1"],
            "args": {"A": "$${B}"},
            "output": [{"type": "docker"}],
        },
        "base": {"context": ".", "output": [{"type": "cacheonly"}]},
        "tool-1": {"context": ".", "dockerfile-inline": "FROM base\nENV A=$${B} C=%%{D}\n"},
        "tool-2": {"context": ".", "platforms": ["linux/arm64"], "output": ["type=local,dest=x"]},
    },
}


def definition() -> Definition:
    return Definition.parse(json.dumps(PRINTED))


def test_groups_are_taken_apart_and_linked_targets_left_out() -> None:
    assert [target.name for target in definition().requested] == ["app", "tool-1", "tool-2"]


def test_groups_that_name_themselves_or_each_other_end() -> None:
    content = {
        "group": {"default": {"targets": ["a"]}, "a": {"targets": ["a", "b"]}},
        "target": {"a": {}, "b": {}},
    }
    requested = Definition.parse(json.dumps(content)).requested
    assert [target.name for target in requested] == ["a", "b"]


def test_every_requested_target_is_pushed_under_its_own_tag_and_the_rest_stays() -> None:
    content = definition().saved(["h.example/p:b"], insecure_registry=False, several_builders=False)
    targets = content["target"]
    assert content["group"] == PRINTED["group"]
    assert targets["base"] == PRINTED["target"]["base"]
    assert "tags" not in targets["app"]
    assert targets["app"]["args"] == {"A": "$${B}"}
    assert targets["app"]["contexts"] == {"base": "target:base"}
    ours = {"type": "image", "push": "true", "unpack": "false"}
    assert targets["app"]["output"] == [
        {"type": "docker", "name": "u/app:1"},
        {**ours, "name": "h.example/p:b-app"},
    ]
    assert targets["tool-1"]["output"] == [{**ours, "name": "h.example/p:b-tool-1"}]
    assert targets["tool-2"]["output"] == [
        {"type": "local", "dest": "x"},
        {**ours, "name": "h.example/p:b-tool-2"},
    ]
    # What was parsed is as it was.
    assert definition().requested == definition().requested


def test_an_inline_dockerfile_is_read_without_its_escapes() -> None:
    tool = definition().requested[1]
    assert tool.inline_dockerfile == "FROM base\nENV A=${B} C=%{D}\n"
    assert definition().requested[0].inline_dockerfile is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "not JSON"])
def test_what_is_no_definition_is_told(text: str) -> None:
    with pytest.raises(BuildxFailed):
        Definition.parse(text)


def test_a_definition_elsewhere_is_told_from_a_target() -> None:
    for text in ("https://github.com/a/b.git", "git@github.com:a/b", "github.com/a/b"):
        assert is_remote(text)
    for text in ("app", "github", "https"):
        assert not is_remote(text)


def test_a_target_that_is_only_told_about_is_not_saved() -> None:
    content: dict[str, Any] = {
        "group": {"default": {"targets": ["app", "checked"]}},
        "target": {"app": {"call": "build"}, "checked": {"call": "check,format=json"}},
    }
    definition = Definition.parse(json.dumps(content))
    assert [target.is_built for target in definition.requested] == [True, False]
    saved = definition.saved(["h.example/p:b"], insecure_registry=False, several_builders=False)
    assert "output" in saved["target"]["app"]
    assert saved["target"]["checked"] == content["target"]["checked"]
