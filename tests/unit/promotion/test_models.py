import pytest

from layover.oci.references import Destination
from layover.promotion.models import RegistryRefused

PLACE = Destination.parse("r.io/acme/app:v1").place


@pytest.mark.parametrize("status", [400, 409, 412])
def test_a_tag_that_may_not_be_overwritten_is_to_be_pushed_under_another_name(status: int) -> None:
    error = RegistryRefused(PLACE, "tag v1", status, "it is immutable.", is_tag=True)
    assert str(error) == (
        f"r.io refused tag v1 ({status}): it is immutable."
        " If it lets no tag be overwritten, push under another one"
    )


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (403, "`docker login r.io`"),
        (404, "no repository acme/app, create that there first"),
        (405, "push to where it has them from"),
        (413, "a proxy in front of it"),
        (415, "`--platform OS/ARCH`"),
    ],
)
def test_a_refusal_says_what_may_help(status: int, advice: str) -> None:
    for told in ("", "DENIED: no"):
        assert advice in str(RegistryRefused(PLACE, "a blob", status, told))


def test_a_refusal_that_nobody_knows_a_help_for_is_told_as_it_is() -> None:
    assert str(RegistryRefused(PLACE, "a blob", 400, "no")) == "r.io refused a blob (400): no"
    assert str(RegistryRefused(PLACE, "a blob", 418, "")) == "r.io refused a blob (418)"
