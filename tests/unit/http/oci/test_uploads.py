import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.http.oci.errors import InvalidRequest
from layover.http.oci.uploads import _first_byte
from tests.unit.http.oci.requests import request


@given(first=st.integers(0, 10**17), length=st.integers(1, 10**17), form=st.integers(0, 3))
def test_content_range_is_read_in_every_form_that_clients_send(
    first: int, length: int, form: int
) -> None:
    last = first + length - 1
    header = (
        f"{first}-{last}",
        f"bytes {first}-{last}/*",
        f"bytes={first}-{last}",
        f"{first}-{last}/9",
    )
    headers = {"Content-Range": header[form], "Content-Length": str(length)}
    assert _first_byte(request("PATCH", headers=headers)) == first


def test_a_request_without_content_range_goes_on_where_the_session_ends() -> None:
    assert _first_byte(request("PATCH", headers={"Content-Length": "5"})) is None


def test_a_chunk_of_unknown_length_still_starts_somewhere() -> None:
    assert _first_byte(request("PATCH", headers={"Content-Range": "5-9"})) == 5


@pytest.mark.parametrize(
    "header",
    [
        "",
        "0",
        "0-",
        "-5",
        "a-b",
        "5-3",
        "-1-5",
        "0-4,6-9",
        "0x0-0x4",
        "0.0-4.0",
        "0-\xb2",
        "9" * 5000,
    ],
)
def test_a_malformed_content_range_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest):
        _first_byte(request("PATCH", headers={"Content-Range": header, "Content-Length": "5"}))


def test_a_content_range_that_its_length_contradicts_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Content-Length"):
        _first_byte(request("PATCH", headers={"Content-Range": "0-4", "Content-Length": "6"}))


def test_a_content_range_that_ends_before_it_starts_is_refused_without_a_length_too() -> None:
    with pytest.raises(InvalidRequest):
        _first_byte(request("PATCH", headers={"Content-Range": "5-3"}))
