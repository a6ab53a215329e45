import pytest
from starlette.types import Message

from layover.http.oci.errors import InvalidRequest
from layover.http.oci.paths import MAX_PAGE, bounded_body, content, page_limit
from layover.registry.models import UploadTruncated
from tests.unit.http.oci.requests import request

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        ("", MAX_PAGE),
        ("n=0", 0),
        ("n=1", 1),
        ("n=0000000000001", 1),
        ("n=" + "0" * 5_000 + "7", 7),
        (f"n={MAX_PAGE}", MAX_PAGE),
        (f"n={MAX_PAGE + 1}", MAX_PAGE),
        ("n=1000000", MAX_PAGE),
        ("n=" + "9" * 5_000, MAX_PAGE),
    ],
)
def test_a_page_is_as_long_as_asked_for_up_to_a_limit(query: str, limit: int) -> None:
    assert page_limit(request(query=query)) == limit


@pytest.mark.parametrize("text", ["", "-1", "1.5", "a", "+1", " 1", "%C2%B2", "%D9%A1", "0x10"])
def test_a_page_length_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        page_limit(request(query=f"n={text}"))


async def test_content_that_breaks_off_is_told_after_what_came() -> None:
    came = []
    with pytest.raises(UploadTruncated):
        async for chunk in content(
            request(
                messages=[
                    {"type": "http.request", "body": b"some", "more_body": True},
                    {"type": "http.disconnect"},
                ]
            )
        ):
            came.append(chunk)
    assert came == [b"some"]


async def test_a_body_over_the_limit_is_refused_before_it_is_read_to_its_end() -> None:
    endless: list[Message] = [{"type": "http.request", "body": b"x" * 10, "more_body": True}] * 3
    with pytest.raises(InvalidRequest):
        await bounded_body(request(messages=[*endless]), 15, InvalidRequest("too large"))
    whole: list[Message] = [
        *endless[:1],
        {"type": "http.request", "body": b"y" * 5, "more_body": False},
    ]
    body = await bounded_body(request(messages=whole), 15, InvalidRequest("too large"))
    assert body == b"x" * 10 + b"y" * 5
