import pytest

from layover.builds.address import PublicAddress
from layover.builds.models import BuildOptions, BuildOutput

ADDRESS = PublicAddress("https://layover.example:5443")
HERE = "layover.example:5443"


@pytest.mark.parametrize(
    ("option", "names"),
    [
        (BuildOptions(push=True, tags=(f"{HERE}/p1/app:v1",)), {"p1/app:v1"}),
        (BuildOptions(push=True, tags=(f"{HERE}/p1/app",)), {"p1/app:latest"}),
        (BuildOptions(tags=(f"{HERE}/p1/app:v1",)), set()),
        (BuildOptions(push=True, tags=(f"{HERE}/p2/app:v1",)), set()),
        (BuildOptions(push=True, tags=("other.example/p1/app:v1", "app:v1")), set()),
        (BuildOptions(push=True, tags=(f"{HERE}/P1/../app:v1", f"{HERE}/p1:", f"{HERE}/")), set()),
        (
            BuildOptions(
                tags=(f"{HERE}/p1/a:1",), outputs=(BuildOutput("registry"), BuildOutput("local"))
            ),
            {"p1/a:1"},
        ),
        (
            BuildOptions(
                tags=(f"{HERE}/p1/a:1",),
                outputs=(
                    BuildOutput("image", (("push", "true"), ("name", f"{HERE}/p1:x,{HERE}/p1:y"))),
                    BuildOutput("oci", (("name", f"{HERE}/p1:z"),)),
                ),
            ),
            {"p1:x", "p1:y"},
        ),
    ],
)
def test_a_builds_token_opens_what_its_client_pushes_to_the_same_project(
    option: BuildOptions, names: set[str]
) -> None:
    assert ADDRESS.own_names("p1", [option]) == names


@pytest.mark.parametrize(
    ("url", "registry", "is_own"),
    [
        ("https://layover.example", "layover.example", True),
        ("https://layover.example", "Layover.Example:443", True),
        ("https://layover.example:443", "layover.example", True),
        ("https://layover.example", "layover.example:80", False),
        ("http://layover.example", "layover.example:80", True),
        ("http://layover.example", "layover.example:443", False),
        ("https://layover.example:5443", "layover.example", False),
        ("https://layover.example", "other.example", False),
    ],
)
def test_a_registry_is_this_one_whatever_is_said_of_its_usual_port(
    url: str, registry: str, is_own: bool
) -> None:
    assert PublicAddress(url).is_own(registry) == is_own
