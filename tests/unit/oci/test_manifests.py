import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.oci.digest import Digest
from layover.oci.manifests import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    InvalidManifest,
    Manifest,
    parse_manifest,
)

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(content: bytes = b"layer", media_type: str = LAYER_TYPE, **more: Any) -> Any:
    digest = str(Digest.of(content))
    return {"mediaType": media_type, "digest": digest, "size": len(content), **more}


def image(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(b"{}", CONFIG_TYPE),
        "layers": [descriptor(b"one"), descriptor(b"two")],
        **more,
    }


def index(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            descriptor(
                b"child",
                OCI_MANIFEST,
                platform={"os": "linux", "architecture": "arm", "variant": "v7"},
            )
        ],
        **more,
    }


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def parse(document: object, content_type: str | None = None) -> Manifest:
    return parse_manifest(json.dumps(document).encode(), content_type)


def test_an_images_config_comes_before_its_layers() -> None:
    manifest = parse(image())
    assert [blob.digest for blob in manifest.blobs] == [
        Digest.of(content) for content in (b"{}", b"one", b"two")
    ]
    assert manifest.config == manifest.blobs[0]
    assert manifest.manifests == ()


def test_an_index_knows_its_manifests_and_their_platforms() -> None:
    manifest = parse(index())
    assert manifest.blobs == ()
    assert manifest.config is None
    assert [child.platform for child in manifest.manifests] == ["linux/arm/v7"]


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_images_of_oci_and_docker_are_taken(media_type: str) -> None:
    document = image(mediaType=media_type)
    assert parse(document).media_type == media_type
    assert parse(without(document, "mediaType"), media_type).media_type == media_type
    assert parse(document, f"{media_type}; charset=utf-8").media_type == media_type


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_MANIFEST_LIST])
def test_indexes_of_oci_and_docker_are_taken(media_type: str) -> None:
    assert parse(index(mediaType=media_type)).media_type == media_type


def test_an_image_without_layers_is_taken_as_go_writes_it() -> None:
    assert parse(image(layers=[])).blobs == parse(image(layers=None)).blobs


def test_the_artifact_type_of_an_image_falls_back_to_its_configs() -> None:
    assert parse(image()).artifact_type == CONFIG_TYPE
    assert parse(image(artifactType="a/b")).artifact_type == "a/b"
    assert parse(index()).artifact_type is None


def test_a_foreign_layer_is_not_needed_and_a_foreign_config_is() -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    document = image(
        config=descriptor(b"{}", foreign),
        layers=[descriptor(b"one"), descriptor(b"two", foreign)],
    )
    assert [blob.digest for blob in parse(document).needed_blobs] == [
        Digest.of(b"{}"),
        Digest.of(b"one"),
    ]


def test_a_subject_and_annotations_are_read() -> None:
    subject = descriptor(b"subject", OCI_MANIFEST)
    manifest = parse(image(subject=subject, annotations={"a": "b"}))
    assert manifest.subject is not None
    assert manifest.subject.digest == Digest.of(b"subject")
    assert manifest.annotations == (("a", "b"),)
    assert parse(image(subject=None, annotations=None)).subject is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"{}",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf" + json.dumps(image()).encode(),
        json.dumps(image()).encode("utf-16"),
        json.dumps(image()).encode() + b"\xff",
        json.dumps(image()).encode() + b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schemaVersion":2,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"1" * 10_000,
        json.dumps(image(extra=float("nan"))).encode(),
        json.dumps(image(extra=float("inf"))).encode(),
        json.dumps(image(extra="\ud800")).encode(),
        json.dumps(image(annotations={"\udfff": ""})).encode(),
        json.dumps(image()).encode().replace(b'"layers"', b'"layers": [], "layers"'),
        json.dumps(image()).encode().replace(b'"size"', b'"size": 0, "size"', 1),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_json_object_that_all_readers_agree_on_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(body, OCI_MANIFEST)


WRONG_TYPES: tuple[Any, ...] = (True, 1, 1.5, -1, "text", [], {}, [[]], [{}], None)


@pytest.mark.parametrize(
    "document",
    [
        image(schemaVersion=1),
        image(schemaVersion=2.0),
        image(schemaVersion="2"),
        image(schemaVersion=True),
        without(image(), "schemaVersion"),
        image(mediaType=1),
        image(mediaType="application/json"),
        image(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"),
        without(image(), "mediaType"),
        image(manifests=[]),
        without(image(), "config"),
        without(image(), "layers"),
        without(index(), "manifests"),
        index(layers=[]),
        index(config=descriptor()),
        index(manifests=[descriptor(platform="linux/amd64")]),
        index(manifests=[descriptor(platform={"os": 1})]),
        image(artifactType=1),
        image(artifactType="a/b\0c"),
        image(subject="sha256"),
        image(subject={}),
        image(annotations=[]),
        image(annotations={"a": 1}),
        image(layers=[descriptor()] * 10_001),
        *(image(config=value) for value in WRONG_TYPES),
        *(image(layers=value) for value in WRONG_TYPES if value not in (None, [])),
        *(index(manifests=value) for value in WRONG_TYPES if value not in (None, [])),
        *(image(config=descriptor(size=value)) for value in WRONG_TYPES if value != 1),
        image(config=descriptor(size=2**63)),
        image(config=descriptor(size=1.0)),
        *(image(config=descriptor(digest=value)) for value in WRONG_TYPES),
        *(image(config=descriptor(mediaType=value)) for value in WRONG_TYPES if value != "text"),
        *(image(config=descriptor(annotations=value)) for value in (1, "a", [1], {"a": None})),
        image(config=without(descriptor(), "size")),
        image(config=without(descriptor(), "digest")),
        image(config=without(descriptor(), "mediaType")),
    ],
    ids=lambda document: json.dumps(document)[:60],
)
def test_a_field_of_the_wrong_type_is_refused(document: object) -> None:
    with pytest.raises(InvalidManifest):
        parse(document)


def test_the_header_and_the_body_have_to_agree_on_the_type() -> None:
    with pytest.raises(InvalidManifest, match="Content-Type"):
        parse(image(), DOCKER_MANIFEST)
    with pytest.raises(InvalidManifest, match="unsupported"):
        parse(without(image(), "mediaType"), "application/octet-stream")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    document=st.fixed_dictionaries(
        {"schemaVersion": st.just(2)},
        optional=dict.fromkeys(
            ("mediaType", "config", "layers", "manifests", "subject", "annotations"), JSON
        ),
    ),
    content_type=st.sampled_from([OCI_MANIFEST, OCI_INDEX, None, "", "text/plain"]),
)
def test_any_json_is_a_manifest_or_one_error(document: object, content_type: str | None) -> None:
    try:
        manifest = parse(document, content_type)
    except InvalidManifest as error:
        str(error).encode()
    else:
        assert manifest.media_type in (OCI_MANIFEST, OCI_INDEX)


@given(body=st.binary(max_size=256))
def test_any_bytes_are_a_manifest_or_one_error(body: bytes) -> None:
    with pytest.raises(InvalidManifest):
        parse_manifest(body, OCI_MANIFEST)
