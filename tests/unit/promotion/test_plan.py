import json
from datetime import UTC, datetime

import pytest

from layover.oci.digest import Digest
from layover.oci.manifests import OCI_INDEX, OCI_MANIFEST
from layover.oci.names import RepositoryName
from layover.promotion import plan as module
from layover.promotion.models import InvalidPush, SourceGone
from layover.promotion.plan import Plan, make_plan
from tests.unit.promotion.images import Images
from tests.unit.promotion.memory import MemoryPushSource

pytestmark = pytest.mark.anyio

REPOSITORY = RepositoryName("project123")
NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture
def images() -> Images:
    return Images(MemoryPushSource(), REPOSITORY)


async def plan(images: Images, digest: Digest, *platforms: str, referrers: bool = False) -> Plan:
    at = NOW if referrers else None
    return await make_plan(images.source, REPOSITORY, digest, platforms, referrers_at=at)


async def test_an_image_goes_as_its_bytes_with_its_config_and_its_layers(images: Images) -> None:
    image = images.image("a", layers=2)
    made = await plan(images, image.digest)
    assert [one.digest for one in made.manifests] == [image.digest]
    assert made.root.body == image.body
    assert {blob.digest for blob in made.blobs} == set(image.blobs)
    assert made.kept == {image.digest}


async def test_children_come_before_the_index_that_names_them_and_shared_blobs_once(
    images: Images,
) -> None:
    amd64, arm64 = images.image("a", layers=2), images.image("a", layers=3)
    index = images.index({"linux/amd64": amd64, "linux/arm64": arm64})
    made = await plan(images, index)
    assert [one.digest for one in made.manifests] == [amd64.digest, arm64.digest, index]
    assert len(made.blobs) == len({*amd64.blobs, *arm64.blobs}) == 4


async def test_more_manifests_than_a_push_holds_in_memory_are_refused(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images.image("a")
    signatures = [images.referrer(f"signature {number}", image.digest) for number in range(3)]
    monkeypatch.setattr(module, "_MOST_MANIFESTS", 4)
    assert len((await plan(images, image.digest, referrers=True)).referrers) == len(signatures)
    images.referrer("one more", image.digest)
    with pytest.raises(InvalidPush, match="without --referrers"):
        await plan(images, image.digest, referrers=True)
    monkeypatch.setattr(module, "_MOST_BYTES", len(image.body))
    assert await plan(images, image.digest)
    monkeypatch.setattr(module, "_MOST_BYTES", len(image.body) - 1)
    with pytest.raises(InvalidPush, match="more manifests"):
        await plan(images, image.digest)


async def test_attestations_in_the_index_go_along(images: Images) -> None:
    amd64 = images.image("a")
    proof = images.image("proof")
    index = images.index({"linux/amd64": amd64}, attested={proof: amd64})
    made = await plan(images, index)
    assert [one.digest for one in made.manifests] == [amd64.digest, proof.digest, index]


async def test_one_platform_goes_as_its_own_manifest(images: Images) -> None:
    amd64, arm64 = images.image("a"), images.image("b")
    index = images.index({"linux/amd64": amd64, "linux/arm64/v8": arm64})
    made = await plan(images, index, "arm64")
    assert [one.digest for one in made.manifests] == [arm64.digest]
    # The index is what leads to it when another server goes on.
    assert made.kept == {index, arm64.digest}


async def test_several_platforms_go_as_an_index_of_them_and_their_attestations(
    images: Images,
) -> None:
    built = {f"linux/{name}": images.image(name) for name in ("amd64", "arm64", "s390x")}
    proofs = {images.image(f"proof of {name}"): image for name, image in built.items()}
    index = images.index(built, attested=proofs)
    made = await plan(images, index, "linux/amd64", "linux/s390x")
    document = json.loads(made.root.body)
    wanted = [built["linux/amd64"], built["linux/s390x"]]
    wanted += [proof for proof, image in proofs.items() if image in wanted]
    assert {child["digest"] for child in document["manifests"]} == {
        str(image.digest) for image in wanted
    }
    assert made.root.media_type == OCI_INDEX
    assert made.root.digest == Digest.of(made.root.body) != index
    again = await plan(images, index, "linux/amd64", "linux/s390x")
    assert again.root.digest == made.root.digest


async def test_a_platform_that_it_is_not_built_for_is_named_with_those_it_is(
    images: Images,
) -> None:
    index = images.index({"linux/amd64": images.image("a"), "linux/arm64": images.image("b")})
    with pytest.raises(InvalidPush, match="not built for linux/s390x; it is for linux/amd64, li"):
        await plan(images, index, "linux/amd64", "linux/s390x")


async def test_referrers_go_along_when_they_are_asked_for_and_those_of_referrers(
    images: Images,
) -> None:
    image = images.image("a")
    sbom = images.referrer("sbom", image.digest)
    signature = images.referrer("signature", sbom.digest)
    index = images.index({"linux/amd64": image})
    assert (await plan(images, index)).referrers == ()
    made = await plan(images, index, referrers=True)
    assert [one.digest for one in made.referrers] == [sbom.digest, signature.digest]
    assert made.root.digest == index
    assert [one.subject.digest for one in made.referrers if one.subject] == [
        image.digest,
        sbom.digest,
    ]
    assert set(signature.blobs) <= {blob.digest for blob in made.blobs}


async def test_a_layer_that_may_stay_elsewhere_is_not_sent(images: Images) -> None:
    image = images.image("a", foreign=True)
    made = await plan(images, image.digest)
    assert {blob.digest for blob in made.blobs} == set(image.blobs)


@pytest.mark.parametrize("missing", ["index", "child"])
async def test_what_is_no_longer_there_is_said(images: Images, missing: str) -> None:
    image = images.image("a")
    index = images.index({"linux/amd64": image})
    gone = index if missing == "index" else image.digest
    images.source.remove(REPOSITORY, gone)
    with pytest.raises(SourceGone, match=str(gone)):
        await plan(images, index)


async def test_what_an_image_is_not_built_for_is_not_asked_of_a_lone_manifest(
    images: Images,
) -> None:
    image = images.image("a")
    made = await plan(images, image.digest, "linux/amd64")
    assert made.root.media_type == OCI_MANIFEST
