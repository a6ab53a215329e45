from layover.adapters.buildkit.probe import split_platforms
from layover.builds.builders import Platforms
from layover.rpc.moby.buildkit.v1.control_pb import Platform


def platforms(*names: str) -> list[Platform]:
    parts = [name.split("/") for name in names]
    return [
        Platform(os=os, architecture=architecture, variant=variant[0] if variant else "")
        for os, architecture, *variant in parts
    ]


def test_the_machines_own_platform_comes_first_and_its_subset_is_native_too() -> None:
    assert split_platforms(
        platforms("linux/amd64", "linux/amd64/v2", "linux/386", "linux/arm64", "linux/arm/v7")
    ) == Platforms(native=("linux/amd64", "linux/386"), emulated=("linux/arm64", "linux/arm"))


def test_an_arm_machine_emulates_what_an_amd_machine_has() -> None:
    assert split_platforms(platforms("linux/arm64", "linux/arm/v7", "linux/amd64")) == Platforms(
        native=("linux/arm64", "linux/arm"), emulated=("linux/amd64",)
    )
