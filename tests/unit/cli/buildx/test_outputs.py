"""A saved build goes to the registry beside every place that the user wants it in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.cli.buildx.outputs import Output, asked_outputs, with_saved
from layover.cli.errors import WrongUsage

SAVED = ("registry.example.com/aaaaaaaaaa:bbbbbbbbbb", "registry.example.com/aaaaaaaaaa:nightly")


def saved(
    *specifications: str,
    push: bool = False,
    load: bool = False,
    names: tuple[str, ...] = (),
    insecure: bool = False,
    several: bool = False,
) -> list[str]:
    outputs = with_saved(
        asked_outputs(specifications, push=push, load=load),
        user_names=names,
        saved_names=SAVED,
        insecure_registry=insecure,
        several_builders=several,
    )
    return [str(output) for output in outputs]


OURS = f'type=image,push=true,unpack=false,"name={SAVED[0]},{SAVED[1]}"'


def test_alone_it_is_the_one_output() -> None:
    assert saved() == [OURS]


def test_a_loaded_image_has_the_users_names_alone() -> None:
    assert saved(load=True, names=("app:1", "app:2")) == ['type=docker,"name=app:1,app:2"', OURS]


def test_a_plain_push_and_the_saving_one_are_one_image() -> None:
    joined = f'type=registry,"name=app:1,{SAVED[0]},{SAVED[1]}"'
    assert saved(push=True, names=("app:1",)) == [joined]
    assert saved("type=registry", names=("app:1",)) == [joined]
    assert saved("type=local,dest=out", push=True, names=("app:1",)) == [
        "type=local,dest=out",
        joined,
    ]


def test_a_push_with_wishes_of_its_own_stays_apart() -> None:
    theirs = "type=image,name=app,push-by-digest=true,push=true"
    assert saved(theirs) == [theirs, OURS]


def test_names_go_to_images_without_one_and_to_nothing_else() -> None:
    outputs = saved(
        *("out", "type=tar,dest=a.tar", "type=oci,dest=b.tar", "type=oci,dest=c.tar,name=own"),
        names=("app:1",),
    )
    assert outputs == [
        "type=local,dest=out",
        "type=tar,dest=a.tar",
        "type=oci,dest=b.tar,name=app:1",
        "type=oci,dest=c.tar,name=own",
        OURS,
    ]


def test_a_registry_over_plain_http_is_told_to_the_builder_and_never_of_another_one() -> None:
    outputs = saved(push=True, names=("app:1",), insecure=True)
    assert outputs == ["type=registry,name=app:1", f"{OURS},registry.insecure=true"]


def test_several_builders_push_once() -> None:
    assert len(saved(push=True, names=("app:1",), several=True)) == 1
    with pytest.raises(WrongUsage, match="--build-platform"):
        saved("type=image,name=app,push=true,compression=zstd", several=True)


def test_a_push_needs_a_name() -> None:
    with pytest.raises(WrongUsage, match="-t NAME:TAG"):
        saved(push=True)


def test_push_turns_an_image_output_into_a_pushing_one_as_in_buildx() -> None:
    (output,) = asked_outputs(["type=image,compression=zstd"], push=True, load=False)
    assert output.pushes
    assert output.attributes["compression"] == "zstd"


def test_load_adds_nothing_to_an_output_that_loads() -> None:
    assert len(asked_outputs(["type=docker"], push=False, load=True)) == 1
    assert len(asked_outputs(["type=docker,dest=a.tar"], push=False, load=True)) == 2


@pytest.mark.parametrize(
    "text", ["type=", "dest=a,b=c", "type=local,out", "a,b", "type=image,push", 'type=a,"b']
)
def test_an_output_that_buildx_would_refuse_is_wrong_usage(text: str) -> None:
    with pytest.raises(WrongUsage):
        Output.parse(text)


@pytest.mark.parametrize("text", ["type=image,push=perhaps"])
def test_a_push_that_is_neither_on_nor_off_is_wrong_usage(text: str) -> None:
    with pytest.raises(WrongUsage):
        saved(text)


KEYS = st.sampled_from(["name", "dest", "annotation.org.example", "compression"])
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)


@given(st.dictionaries(KEYS, TEXT, max_size=4))
def test_what_is_written_down_is_read_back(attributes: dict[str, str]) -> None:
    output = Output("image", attributes)
    assert Output.parse(str(output)) == output
    assert Output.from_json(output.as_json()) == output
    assert Output.from_json(str(output)) == output


@pytest.mark.parametrize("name", ["Upper", "a:b:c", "a b", "", f"a@sha256:{'0' * 64}"])
def test_a_name_that_nothing_can_be_pulled_under_is_refused(name: str) -> None:
    with pytest.raises(WrongUsage, match="-t"):
        saved(names=("app:1", name))
