import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.oci.names import RepositoryName
from layover.oci.references import Destination, InvalidDestination, Place


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("app", "docker.io/library/app:latest"),
        ("app:v1", "docker.io/library/app:v1"),
        ("acme/app", "docker.io/acme/app:latest"),
        ("docker.io/app", "docker.io/library/app:latest"),
        ("index.docker.io/acme/app:v1", "docker.io/acme/app:v1"),
        ("registry-1.docker.io/app", "docker.io/library/app:latest"),
        ("ghcr.io/acme/app:v1", "ghcr.io/acme/app:v1"),
        ("GHCR.io/acme/app", "ghcr.io/acme/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("[::1]:5000/a/b/c:V.1_2-3", "[::1]:5000/a/b/c:V.1_2-3"),
    ],
)
def test_a_destination_is_what_dockers_clients_read(text: str, full: str) -> None:
    destination = Destination.parse(text)
    assert str(destination) == full
    assert Destination.parse(full) == destination


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid repository name"),
        ("App", "invalid repository name"),
        ("app:", "invalid tag"),
        ("app:-v1", "invalid tag"),
        ("app:a:b", "invalid tag"),
        ("app@sha256:" + "0" * 64, "by a digest"),
        ("https://ghcr.io/acme/app", "without a scheme"),
        ("user:secret@ghcr.io/app", "by a digest"),
        ("ghcr.io:0/app", "is not a registry's host"),
        ("ghcr.io:65536/app", "is not a registry's host"),
        ("Registry/app", "needs its port, as registry:443"),
        ("-ghcr.io/app", "is not a registry's host"),
        ("ghcr..io/app", "is not a registry's host"),
        ("ghcr.io /app", "is not a registry's host"),
        ("ghcr.io/", "invalid repository name"),
        ("ghcr.io//app", "invalid repository name"),
        ("ghcr.io/../app", "invalid repository name"),
        ("ghcr.io/app\r\nHost: evil.example", "invalid"),
        ("ghcr.io/" + "a" * 300, "invalid repository name"),
    ],
)
def test_what_names_no_place_is_refused_with_what_was_asked_for(text: str, reason: str) -> None:
    with pytest.raises(InvalidDestination) as caught:
        Destination.parse(text)
    assert reason in str(caught.value)
    assert caught.value.text == text
    assert str(caught.value).startswith(f"invalid destination {text[:300]!r}: ")


def test_a_place_is_read_of_its_two_parts_and_neither_leaks_into_the_other() -> None:
    assert Place.parse("GHCR.io", "acme/app") == Place("ghcr.io", RepositoryName("acme/app"))
    assert Place.parse("registry-1.docker.io", "app").host == "registry-1.docker.io"
    assert str(Place.parse("index.docker.io", "app")) == "docker.io/library/app"
    for registry, repository in (
        ("", "app"),
        # Written down it would be Docker Hub's registry/app.
        ("registry", "app"),
        ("ghcr.io/acme", "app"),
        ("a@ghcr.io", "app"),
        ("ghcr.io", ""),
        ("ghcr.io", "/app"),
        ("ghcr.io", "app:v1"),
        ("ghcr.io", "app@sha256"),
        ("ghcr.io\n", "app"),
    ):
        with pytest.raises(InvalidDestination):
            Place.parse(registry, repository)


@given(text=st.text(max_size=60) | st.from_regex(r"[a-z.:\[\]0-9A-Z/@-]{0,60}", fullmatch=True))
def test_whatever_is_read_is_read_the_same_again(text: str) -> None:
    try:
        destination = Destination.parse(text)
    except InvalidDestination:
        return
    assert Destination.parse(str(destination)) == destination
    place = destination.place
    assert Place.parse(place.registry, str(place.repository)) == place
    assert place.registry == place.registry.lower()
    assert str(place).isascii()
    assert str(place).isprintable()
