import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from layover.adapters.sql import images as images_module
from layover.adapters.sql import registry_rows
from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.images import SqlSavedImages
from layover.builds.models import SavedImage
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST, Manifest, parse_manifest
from layover.oci.names import RepositoryName, Tag
from tests.stores import (
    NOW,
    REPOSITORY,
    Stores,
    descriptor,
    finish,
    image,
    index,
    opened,
    push_blob,
    put_manifest,
)

pytestmark = pytest.mark.anyio

CONFIG = json.dumps({"os": "linux", "architecture": "arm64", "variant": "v8"}).encode()
PROJECT = RepositoryName("mine")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(tmp_path) as stores:
        yield stores


@pytest.fixture
def images(stores: Stores) -> SqlSavedImages:
    return SqlSavedImages(stores.database, stores.blobs)


async def save(
    stores: Stores, build_id: str, tag: str, *layers: bytes, config: bytes = CONFIG
) -> bytes:
    for content in (config, *layers):
        await push_blob(stores, PROJECT, content)
    body = image(*layers, config=config)
    await put_manifest(stores, PROJECT, body, tag, build_id)
    return body


async def delete(stores: Stores, build_id: str) -> None:
    assert await SqlBuildStore(stores.database).delete(build_id, NOW)


async def is_there(stores: Stores, body: bytes) -> bool:
    return bool(await stores.registry.find_manifest(PROJECT, Digest.of(body), NOW))


async def test_a_saved_image_has_its_platform_and_its_size(
    stores: Stores, images: SqlSavedImages
) -> None:
    body = await save(stores, "b1", "b1", b"layer")
    await finish(stores, "b1")
    assert await images.of_build("mine", "b1") == [
        SavedImage("b1", str(Digest.of(body)), ("linux/arm64/v8",), len(body + CONFIG) + 5)
    ]
    assert await images.sizes(["b1", "b2"]) == {"b1": len(body + CONFIG) + 5}
    assert await images.of_build("foreign", "b1") == []
    assert await images.of_build("mine", "b2") == []


async def test_a_project_s_blobs_count_once_each_for_what_it_uses(
    stores: Stores, images: SqlSavedImages
) -> None:
    await save(stores, "b1", "b1", b"layer")
    await save(stores, "b2", "b2", b"layer", b"another")
    assert await images.used_bytes("mine") == len(CONFIG + b"layeranother")
    assert await images.used_bytes("foreign") == 0


async def test_a_manifest_is_read_once_however_many_tags_name_it(
    stores: Stores, images: SqlSavedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await save(stores, "b1", "b1", b"layer")
    for number in range(20):
        await put_manifest(stores, PROJECT, body, f"b1-{number}", "b1")
    await finish(stores, "b1")
    parsed: list[bytes] = []

    def parse(body: bytes, media_type: str) -> Manifest:
        parsed.append(body)
        return parse_manifest(body, media_type)

    monkeypatch.setattr(images_module, "parse_manifest", parse)
    saved = await images.of_build("mine", "b1")
    assert {image.platforms for image in saved} == {("linux/arm64/v8",)}
    assert (len(saved), parsed) == (21, [body])


async def test_a_saved_index_has_the_platforms_of_its_images_without_attestations(
    stores: Stores, images: SqlSavedImages
) -> None:
    child = await save(stores, "other", "child", b"layer")
    attested = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    platform = {"os": "linux", "architecture": "amd64"}
    parent = index(
        manifests=[
            descriptor(OCI_MANIFEST, child, platform=platform),
            descriptor(OCI_MANIFEST, child, platform={"os": "unknown"}, **attested),
        ]
    )
    await put_manifest(stores, PROJECT, parent, "b1", "b1")
    await finish(stores, "b1")
    (saved,) = await images.of_build("mine", "b1")
    assert saved.platforms == ("linux/amd64",)
    # Each digest counts once, though two entries name it.
    assert saved.size_bytes == len(parent + child + CONFIG) + 5


@pytest.mark.parametrize(
    "config", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"os": 1}', b'{"os": "linux"}']
)
async def test_a_config_that_names_no_platform_gives_none(
    stores: Stores, images: SqlSavedImages, config: bytes
) -> None:
    await save(stores, "b1", "b1", config=config)
    await finish(stores, "b1")
    (saved,) = await images.of_build("mine", "b1")
    assert saved.platforms == ()


@pytest.mark.parametrize("size", [0, 1, len(CONFIG) + 1, 2**62])
async def test_a_config_whose_descriptor_lies_about_its_size_is_read_all_the_same(
    stores: Stores, images: SqlSavedImages, size: int
) -> None:
    await push_blob(stores, PROJECT, CONFIG)
    lying = {**descriptor("application/vnd.oci.image.config.v1+json", CONFIG), "size": size}
    body = json.loads(image(config=CONFIG)) | {"config": lying}
    await put_manifest(stores, PROJECT, json.dumps(body).encode(), "b1", "b1")
    await finish(stores, "b1")
    assert {saved.platforms for saved in await images.of_build("mine", "b1")} == {
        ("linux/arm64/v8",)
    }


async def test_a_large_config_is_not_read(stores: Stores, images: SqlSavedImages) -> None:
    await save(stores, "b1", "b1", config=CONFIG + b" " * (1 << 20))
    await finish(stores, "b1")
    (saved,) = await images.of_build("mine", "b1")
    assert saved.platforms == ()


async def test_a_deleted_build_takes_what_it_alone_needs(
    stores: Stores, images: SqlSavedImages
) -> None:
    shared = await save(stores, "b2", "b2-app", b"shared")
    own = await save(stores, "b1", "b1-own", b"own")
    parent = index(shared, own)
    await put_manifest(stores, PROJECT, parent, "b1", "b1")
    await put_manifest(stores, PROJECT, index(parent), "b1-nested", "b1")
    await finish(stores, "b1", "b2")
    await delete(stores, "b1")
    assert [await is_there(stores, body) for body in (parent, index(parent), own, shared)] == [
        False,
        False,
        False,
        True,
    ]
    assert len(await images.of_build("mine", "b2")) == 1


async def test_a_deleted_build_leaves_what_anothers_index_needs(
    stores: Stores, images: SqlSavedImages
) -> None:
    for content in (CONFIG, b"layer"):
        await push_blob(stores, PROJECT, content)
    child = image(b"layer", config=CONFIG)
    await put_manifest(stores, PROJECT, child, build_id="b1")
    for build_id in ("b1", "b2"):
        parent = index(child, annotations={"build": build_id})
        await put_manifest(stores, PROJECT, parent, build_id, build_id)
    await delete(stores, "b1")
    assert await is_there(stores, child)
    await delete(stores, "b2")
    assert not await is_there(stores, child)


async def test_a_deleted_build_leaves_what_others_name(
    stores: Stores, images: SqlSavedImages
) -> None:
    body = await save(stores, "b1", "b1", b"layer")
    await put_manifest(stores, PROJECT, body, "kept-by-a-user")
    await finish(stores, "b1")
    assert await stores.registry.find_manifest(PROJECT, Tag("b1"), NOW)
    await delete(stores, "b1")
    assert await stores.registry.find_manifest(PROJECT, Tag("b1"), NOW) is None
    assert await stores.registry.find_manifest(PROJECT, Tag("kept-by-a-user"), NOW)


async def test_a_save_tag_that_moved_on_is_the_next_builds(
    stores: Stores, images: SqlSavedImages
) -> None:
    await save(stores, "b1", "main", b"first")
    body = await save(stores, "b2", "main", b"second")
    await finish(stores, "b1", "b2")
    await delete(stores, "b1")
    found = await stores.registry.find_manifest(PROJECT, Tag("main"), NOW)
    assert found is not None
    assert found.body == body


async def test_a_build_of_many_images_is_deleted_in_parts(
    stores: Stores, images: SqlSavedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with more digests than SQLite takes parameters.
    monkeypatch.setattr(registry_rows, "_MAX_PARAMETERS", 3)
    children = [
        await save(stores, "b1", f"b1-{number}", str(number).encode()) for number in range(9)
    ]
    parent = index(*children)
    await put_manifest(stores, PROJECT, parent, "b1", "b1")
    await delete(stores, "b1")
    assert not any([await is_there(stores, child) for child in (*children, parent)])


async def test_nothing_is_asked_when_nobody_is(images: SqlSavedImages) -> None:
    assert await images.sizes([]) == {}


async def test_another_repository_of_the_project_keeps_its_own(
    stores: Stores, images: SqlSavedImages
) -> None:
    body = await save(stores, "b1", "b1", b"layer")
    for content in (CONFIG, b"layer"):
        await push_blob(stores, REPOSITORY, content)
    await put_manifest(stores, REPOSITORY, body, "main")
    await delete(stores, "b1")
    assert await stores.registry.find_manifest(REPOSITORY, Tag("main"), NOW)
