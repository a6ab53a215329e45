from hypothesis import given
from hypothesis import strategies as st

from layover.builds.builders import LeaseState, Platforms
from layover.builds.placement import MAX_EXTRA_LOAD, choose_builder

AMD, ARM = "linux/amd64", "linux/arm64"
NAMES = st.sampled_from(["a", "b", "c", "d"])
PLATFORMS = st.builds(
    Platforms,
    native=st.sampled_from([(AMD,), (ARM,), (AMD, ARM)]),
    emulated=st.sampled_from([(), (AMD,), (ARM,)]),
)
STATES = st.builds(
    LeaseState,
    current=st.none() | NAMES,
    last_used=st.none() | NAMES,
    loads=st.dictionaries(NAMES, st.integers(0, 10)),
)


def state(current: str | None = None, last_used: str | None = None, **loads: int) -> LeaseState:
    return LeaseState(current, last_used, loads)


def amd(*names: str) -> dict[str, Platforms]:
    return {name: Platforms((AMD,)) for name in names}


@given(st.dictionaries(NAMES, PLATFORMS, min_size=1), st.sampled_from([AMD, ARM]), STATES)
def test_the_choice_is_healthy_and_native_wherever_it_can_be(
    healthy: dict[str, Platforms], platform: str, known: LeaseState
) -> None:
    chosen = choose_builder(healthy, platform, "project", known)
    assert chosen in healthy
    if any(platform in can.native for can in healthy.values()):
        assert platform in healthy[chosen].native
    elif any(platform in can.emulated for can in healthy.values()):
        assert platform in healthy[chosen].emulated


@given(st.dictionaries(NAMES, st.integers(0, 10), min_size=1), st.none() | NAMES)
def test_no_choice_is_much_more_loaded_than_the_least_loaded(
    loads: dict[str, int], last_used: str | None
) -> None:
    chosen = choose_builder(amd(*loads), AMD, "project", LeaseState(None, last_used, loads))
    extra = loads[chosen] - min(loads.values())
    assert extra <= (MAX_EXTRA_LOAD if chosen == last_used else 0)


def test_a_build_stays_on_its_builder() -> None:
    assert choose_builder(amd("a", "b"), AMD, "p", state(current="a", a=9)) == "a"


def test_a_project_comes_back_to_its_warm_cache() -> None:
    healthy = amd("a", "b", "c")
    assert choose_builder(healthy, AMD, "p", state(last_used="b", b=3)) == "b"


def test_a_warm_cache_does_not_hold_a_build_on_an_overloaded_builder() -> None:
    assert choose_builder(amd("a", "b"), AMD, "p", state(last_used="b", b=4)) == "a"


def test_an_unhealthy_warm_builder_is_passed_over() -> None:
    assert choose_builder(amd("a"), AMD, "p", state(last_used="b")) == "a"


def test_without_a_warm_cache_the_least_loaded_is_taken() -> None:
    assert choose_builder(amd("a", "b", "c"), AMD, "p", state(a=2, b=1, c=2)) == "b"


def test_projects_spread_over_an_idle_fleet_and_each_comes_back_to_its_own() -> None:
    healthy = amd("a", "b", "c")
    choices = {
        project: choose_builder(healthy, AMD, project, state()) for project in map(str, range(50))
    }
    assert set(choices.values()) == set(healthy)
    for project, name in choices.items():
        assert choose_builder(healthy, AMD, project, state()) == name


def test_a_platform_that_nobody_has_goes_to_any_builder() -> None:
    assert choose_builder(amd("a"), "linux/riscv64", "p", state()) == "a"
