"""What every RegistryStore does: the embedded one, in SQLite."""

import asyncio

import pytest

from layover.adapters.sql.builds import SqlBuildStore
from layover.oci.digest import Digest
from layover.oci.manifests import OCI_MANIFEST, parse_manifest
from layover.oci.names import RepositoryName, Tag
from layover.registry.models import (
    BlobInUse,
    BlobUnknown,
    BuildOver,
    ManifestBlobUnknown,
    ManifestInUse,
    ManifestUnknown,
    StoredManifest,
    TagProtected,
)
from tests.stores import (
    FOREIGN,
    LEASE,
    NOW,
    REPOSITORY,
    RETENTION,
    SAVES,
    SIBLING,
    Stores,
    descriptor,
    finish,
    image,
    index,
    push_blob,
    push_image,
    put_manifest,
)

pytestmark = pytest.mark.anyio


async def blob_size(stores: Stores, repository: RepositoryName, digest: Digest) -> int | None:
    """The blob's size where a reader sees it."""
    found = await stores.registry.find_blob(repository, digest, NOW)
    return found.size_bytes if found else None


# --- blobs ------------------------------------------------------------------------------------


async def test_a_repository_shows_only_what_was_linked_into_it(stores: Stores) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    assert await blob_size(stores, REPOSITORY, digest) == 7
    assert await blob_size(stores, SIBLING, digest) is None
    assert await blob_size(stores, FOREIGN, digest) is None


async def test_a_second_push_of_a_blob_changes_nothing(stores: Stores) -> None:
    await push_blob(stores, REPOSITORY, b"content")
    digest = await push_blob(stores, REPOSITORY, b"content")
    assert await blob_size(stores, REPOSITORY, digest) == 7


async def test_a_mount_shows_what_the_source_shows(stores: Stores) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    assert await stores.registry.mount_blob(REPOSITORY, SIBLING, digest, NOW, LEASE)
    assert await stores.registry.mount_blob(REPOSITORY, SIBLING, digest, NOW, LEASE)
    assert await blob_size(stores, SIBLING, digest) == 7


async def test_a_mount_of_what_the_source_does_not_show_does_nothing(stores: Stores) -> None:
    digest = await push_blob(stores, FOREIGN, b"content")
    assert not await stores.registry.mount_blob(REPOSITORY, SIBLING, digest, NOW, LEASE)
    assert await blob_size(stores, SIBLING, digest) is None


async def test_an_unlinked_blob_is_hidden_there_and_nowhere_else(stores: Stores) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    await stores.registry.mount_blob(REPOSITORY, SIBLING, digest, NOW, LEASE)
    await stores.registry.unlink_blob(REPOSITORY, digest, NOW)
    assert await blob_size(stores, REPOSITORY, digest) is None
    assert await blob_size(stores, SIBLING, digest) == 7
    for repository in (REPOSITORY, FOREIGN):
        with pytest.raises(BlobUnknown):
            await stores.registry.unlink_blob(repository, digest, NOW)


async def test_a_blob_that_a_manifest_needs_is_not_unlinked(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer")
    for content in (b"layer", b"{}"):
        with pytest.raises(BlobInUse) as refused:
            await stores.registry.unlink_blob(REPOSITORY, Digest.of(content), NOW)
        assert refused.value.manifest == str(Digest.of(body))
    await stores.registry.delete_manifest(REPOSITORY, Digest.of(body), NOW)
    # It was there for that manifest alone, and is gone with it.
    with pytest.raises(BlobUnknown):
        await stores.registry.unlink_blob(REPOSITORY, Digest.of(b"layer"), NOW)
    await push_blob(stores, REPOSITORY, b"layer")
    await stores.registry.unlink_blob(REPOSITORY, Digest.of(b"layer"), NOW)


# --- manifests --------------------------------------------------------------------------------


async def test_a_manifest_is_found_by_tag_and_by_digest_as_its_bytes(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="main")
    stored = StoredManifest(Digest.of(body), OCI_MANIFEST, body, NOW + RETENTION)
    for reference in (Tag("main"), stored.digest):
        assert await stores.registry.find_manifest(REPOSITORY, reference, NOW) == stored
        for repository in (SIBLING, FOREIGN):
            assert await stores.registry.find_manifest(repository, reference, NOW) is None
    assert await stores.registry.find_manifest(REPOSITORY, Tag("other"), NOW) is None


async def test_a_sha512_manifest_is_found_by_that_digest(stores: Stores) -> None:
    await push_image(stores, REPOSITORY)
    body = image()
    digest = Digest.of(body, "sha512")
    stored = StoredManifest(digest, OCI_MANIFEST, body, NOW + RETENTION)
    await stores.registry.put_manifest(
        REPOSITORY, stored, parse_manifest(body, None), [Tag("long")], None, NOW
    )
    assert await stores.registry.find_manifest(REPOSITORY, digest, NOW) == stored
    assert await stores.registry.find_manifest(REPOSITORY, Tag("long"), NOW) == stored


async def test_a_manifest_that_names_a_missing_blob_stores_nothing(stores: Stores) -> None:
    await push_blob(stores, REPOSITORY, b"{}")
    # In another repository of the project, which is not this one.
    await push_blob(stores, SIBLING, b"layer")
    body = image(b"layer", b"other")
    with pytest.raises(ManifestBlobUnknown) as refused:
        await put_manifest(stores, REPOSITORY, body, tag="main")
    assert set(refused.value.missing) == {Digest.of(b"layer"), Digest.of(b"other")}
    for reference in (Tag("main"), Digest.of(body)):
        assert await stores.registry.find_manifest(REPOSITORY, reference, NOW) is None


async def test_an_index_may_name_manifests_that_are_not_there(stores: Stores) -> None:
    child = await push_image(stores, REPOSITORY, b"layer")
    missing = image(b"missing")
    parent = index(child, missing)
    await put_manifest(stores, REPOSITORY, parent, tag="main")
    assert await stores.registry.find_manifest(REPOSITORY, Tag("main"), NOW)
    assert await stores.registry.find_manifest(REPOSITORY, Digest.of(missing), NOW) is None
    # Another repository's is not shown for being named.
    await push_image(stores, SIBLING, b"missing")
    await put_manifest(stores, REPOSITORY, parent, tag="main")
    assert await stores.registry.find_manifest(REPOSITORY, Digest.of(missing), NOW) is None


async def test_a_manifest_is_no_layer(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY)
    with pytest.raises(ManifestBlobUnknown):
        await put_manifest(stores, REPOSITORY, image(body))


async def test_foreign_layers_and_subjects_need_not_be_there(stores: Stores) -> None:
    await push_blob(stores, REPOSITORY, b"{}")
    foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"foreign")
    subject = descriptor(OCI_MANIFEST, b"not pushed yet")
    await put_manifest(stores, REPOSITORY, image(subject=subject, layers=[foreign]), tag="main")
    assert await stores.registry.find_manifest(REPOSITORY, Tag("main"), NOW)


async def test_ten_thousand_missing_layers_are_refused_in_few_words(stores: Stores) -> None:
    await push_blob(stores, REPOSITORY, b"{}")
    layers = [descriptor("a/b", str(number).encode()) for number in range(10_000)]
    body = image(layers=layers)
    with pytest.raises(ManifestBlobUnknown) as refused:
        await put_manifest(stores, REPOSITORY, body)
    assert len(refused.value.missing) == 10_000
    assert len(str(refused.value)) < 2000


async def test_a_tag_moves_to_what_was_pushed_last(stores: Stores) -> None:
    first = await push_image(stores, REPOSITORY, b"first", tag="main")
    second = await push_image(stores, REPOSITORY, b"second", tag="main")
    found = await stores.registry.find_manifest(REPOSITORY, Tag("main"), NOW)
    assert found is not None
    assert found.body == second
    assert await stores.registry.find_manifest(REPOSITORY, Digest.of(first), NOW)


async def test_pushing_a_manifest_again_changes_nothing(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="main")
    await put_manifest(stores, REPOSITORY, body, tag="also")
    page = await stores.registry.list_tags(REPOSITORY, None, None, NOW)
    assert page.tags == (Tag("also"), Tag("main"))


# --- deletes and protected tags ---------------------------------------------------------------


async def test_a_deleted_tag_leaves_what_it_named(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="main")
    await stores.registry.delete_tag(REPOSITORY, Tag("main"), NOW)
    assert await stores.registry.find_manifest(REPOSITORY, Tag("main"), NOW) is None
    assert await stores.registry.find_manifest(REPOSITORY, Digest.of(body), NOW)
    for repository in (REPOSITORY, SIBLING):
        with pytest.raises(ManifestUnknown):
            await stores.registry.delete_tag(repository, Tag("main"), NOW)


async def test_a_deleted_manifest_takes_its_tags_along(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="main")
    await put_manifest(stores, REPOSITORY, body, tag="also")
    await push_image(stores, SIBLING, b"layer", tag="main")
    await stores.registry.delete_manifest(REPOSITORY, Digest.of(body), NOW)
    for reference in (Tag("main"), Tag("also"), Digest.of(body)):
        assert await stores.registry.find_manifest(REPOSITORY, reference, NOW) is None
    assert await stores.registry.find_manifest(SIBLING, Tag("main"), NOW)
    for repository in (REPOSITORY, FOREIGN):
        with pytest.raises(ManifestUnknown):
            await stores.registry.delete_manifest(repository, Digest.of(body), NOW)


async def test_a_manifest_that_an_index_needs_is_not_deleted(stores: Stores) -> None:
    child = await push_image(stores, REPOSITORY, b"layer")
    parent = await put_manifest(stores, REPOSITORY, index(child), tag="main")
    with pytest.raises(ManifestInUse):
        await stores.registry.delete_manifest(REPOSITORY, Digest.of(child), NOW)
    await stores.registry.delete_manifest(REPOSITORY, parent, NOW)
    await stores.registry.delete_manifest(REPOSITORY, Digest.of(child), NOW)


async def test_what_is_a_manifest_here_and_a_layer_there_is_in_use_as_what_it_is(
    stores: Stores,
) -> None:
    body = await push_image(stores, REPOSITORY, b"layer")
    # The manifest's very bytes as a layer of another image.
    other = await push_image(stores, REPOSITORY, body)
    with pytest.raises(BlobInUse):
        await stores.registry.unlink_blob(REPOSITORY, Digest.of(body), NOW)
    await stores.registry.delete_manifest(REPOSITORY, Digest.of(body), NOW)
    assert await blob_size(stores, REPOSITORY, Digest.of(body)) == len(body)
    await stores.registry.delete_manifest(REPOSITORY, Digest.of(other), NOW)
    assert await blob_size(stores, REPOSITORY, Digest.of(body)) is None


@pytest.mark.parametrize("tag", ["b1", "b1-app"])
async def test_what_a_build_saved_under_its_id_is_its_own(stores: Stores, tag: str) -> None:
    body = await push_image(stores, SAVES, b"layer", tag=tag, build_id="b1")
    other = await push_image(stores, SAVES, b"other")
    for build_id in (None, "b2", "b"):
        with pytest.raises(TagProtected):
            await put_manifest(stores, SAVES, other, tag, build_id)
    with pytest.raises(TagProtected):
        await stores.registry.delete_tag(SAVES, Tag(tag), NOW)
    with pytest.raises(TagProtected):
        await stores.registry.delete_manifest(SAVES, Digest.of(body), NOW)
    await put_manifest(stores, SAVES, other, tag, "b1")
    await finish(stores, "b1")
    found = await stores.registry.find_manifest(SAVES, Tag(tag), NOW)
    assert found is not None
    assert found.body == other
    with pytest.raises(TagProtected):
        await put_manifest(stores, SAVES, body, tag)
    with pytest.raises(TagProtected):
        await stores.registry.delete_tag(SAVES, Tag(tag), NOW)
    with pytest.raises(TagProtected):
        await stores.registry.delete_manifest(SAVES, Digest.of(other), NOW)


async def test_a_refused_tag_leaves_no_manifest_behind(stores: Stores) -> None:
    await push_image(stores, SAVES, b"layer", tag="b1", build_id="b1")
    await push_blob(stores, SAVES, b"other")
    body = image(b"other")
    with pytest.raises(TagProtected):
        await put_manifest(stores, SAVES, body, "b1")
    assert await stores.registry.find_manifest(SAVES, Digest.of(body), NOW) is None


async def test_nothing_is_saved_under_a_build_that_ended_or_was_deleted(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY, b"layer", tag="b1", build_id="b1")
    builds = SqlBuildStore(stores.database)
    late = image(b"layer", annotations={"late": "yes"})
    await finish(stores, "b1")
    for tag in ("b1", "b1-app", "main", None):
        with pytest.raises(BuildOver):
            await put_manifest(stores, REPOSITORY, late, tag, "b1")
    found = await stores.registry.find_manifest(REPOSITORY, Tag("b1"), NOW)
    assert found is not None
    assert found.body == body
    assert await builds.delete("b1", NOW)
    with pytest.raises(BuildOver):
        await stores.registry.put_manifest(
            REPOSITORY,
            StoredManifest(Digest.of(late), OCI_MANIFEST, late),
            parse_manifest(late, None),
            [Tag("b1-app")],
            "b1",
            NOW,
        )
    assert await stores.registry.find_manifest(REPOSITORY, Digest.of(late), NOW) is None


async def test_a_save_tag_moves_on_to_the_next_build(stores: Stores) -> None:
    await push_image(stores, REPOSITORY, b"layer", tag="main", build_id="b1")
    body = await push_image(stores, REPOSITORY, b"other", tag="main", build_id="b2")
    await finish(stores, "b1", "b2")
    found = await stores.registry.find_manifest(REPOSITORY, Tag("main"), NOW)
    assert found is not None
    assert found.body == body
    await stores.registry.delete_tag(REPOSITORY, Tag("main"), NOW)


async def test_a_tag_somebody_took_before_the_build_becomes_the_builds(stores: Stores) -> None:
    await push_image(stores, SAVES, b"layer", tag="b1")
    body = await push_image(stores, SAVES, b"other", tag="b1", build_id="b1")
    with pytest.raises(TagProtected):
        await put_manifest(stores, SAVES, body, "b1")


# --- lists ------------------------------------------------------------------------------------


async def test_tags_come_in_lexical_order_in_pages_that_miss_none(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY)
    names = sorted(["a", "B", "10", "9", "_x", "a.b", "a-b", "A"])
    for name in reversed(names):
        await put_manifest(stores, REPOSITORY, body, tag=name)
    whole = await stores.registry.list_tags(REPOSITORY, None, None, NOW)
    assert ([tag.value for tag in whole.tags], whole.has_more) == (names, False)
    seen: list[str] = []
    has_more = True
    while has_more:
        page = await stores.registry.list_tags(REPOSITORY, 3, seen[-1] if seen else None, NOW)
        assert 1 <= len(page.tags) <= 3
        seen += [tag.value for tag in page.tags]
        has_more = page.has_more
    assert seen == names


@pytest.mark.parametrize(
    ("limit", "after", "expected", "has_more"),
    [
        (0, None, [], True),
        (2, None, ["a", "b"], False),
        (3, None, ["a", "b"], False),
        (1, "a", ["b"], False),
        (1, "aa", ["b"], False),
        (None, "b", [], False),
        (None, "\N{SNOWMAN}", [], False),
        (None, "", ["a", "b"], False),
    ],
)
async def test_a_page_starts_behind_a_name_that_need_not_be_there(
    stores: Stores, limit: int | None, after: str | None, expected: list[str], has_more: bool
) -> None:
    body = await push_image(stores, REPOSITORY)
    for name in ("a", "b"):
        await put_manifest(stores, REPOSITORY, body, tag=name)
    page = await stores.registry.list_tags(REPOSITORY, limit, after, NOW)
    assert ([tag.value for tag in page.tags], page.has_more) == (expected, has_more)
    assert (await stores.registry.list_tags(SIBLING, limit, after, NOW)).tags == ()


async def test_referrers_are_those_of_the_repository_by_type(stores: Stores) -> None:
    subject_body = await push_image(stores, REPOSITORY, tag="main")
    subject = descriptor(OCI_MANIFEST, subject_body)
    signature = image(subject=subject, artifactType="a/signature", annotations={"by": "me"})
    sbom = image(subject=subject, artifactType="a/sbom")
    unrelated = image(artifactType="a/sbom", annotations={"x": "y"})
    for body in (signature, sbom, unrelated):
        await put_manifest(stores, REPOSITORY, body)
    digest = Digest.of(subject_body)
    page = await stores.registry.list_referrers(REPOSITORY, digest, None, None, NOW)
    assert {referrer.descriptor.digest for referrer in page.referrers} == {
        Digest.of(signature),
        Digest.of(sbom),
    }
    assert not page.has_more
    (found,) = (
        await stores.registry.list_referrers(REPOSITORY, digest, "a/signature", None, NOW)
    ).referrers
    assert found.artifact_type == "a/signature"
    assert found.descriptor.size_bytes == len(signature)
    assert found.descriptor.annotations == (("by", "me"),)
    assert (
        await stores.registry.list_referrers(REPOSITORY, digest, "a/other", None, NOW)
    ).referrers == ()
    assert (await stores.registry.list_referrers(SIBLING, digest, None, None, NOW)).referrers == ()


async def test_referrers_come_in_pages_of_bounded_size_that_miss_none(stores: Stores) -> None:
    subject_body = await push_image(stores, REPOSITORY)
    subject = descriptor(OCI_MANIFEST, subject_body)
    bodies = [
        image(subject=subject, annotations={"number": str(number), "filler": "x" * 400_000})
        for number in range(7)
    ]
    for body in bodies:
        await put_manifest(stores, REPOSITORY, body)
    seen: list[Digest] = []
    has_more = True
    while has_more:
        page = await stores.registry.list_referrers(
            REPOSITORY, Digest.of(subject_body), None, seen[-1] if seen else None, NOW
        )
        assert 1 <= len(page.referrers) <= 2
        seen += [referrer.descriptor.digest for referrer in page.referrers]
        has_more = page.has_more
    assert seen == sorted(map(Digest.of, bodies))


# --- at the same time -------------------------------------------------------------------------


async def test_a_blob_that_is_unlinked_while_a_manifest_comes_to_need_it_is_there(
    stores: Stores,
) -> None:
    # Invariant 2, whichever of the two comes first: the pusher was told that the blob is there.
    for round_ in range(20):
        layer = f"layer {round_}".encode()
        for content in (b"{}", layer):
            await push_blob(stores, REPOSITORY, content)
        body = image(layer)
        tasks = [
            put_manifest(stores, REPOSITORY, body),
            stores.registry.unlink_blob(REPOSITORY, Digest.of(layer), NOW),
        ]
        outcomes = await asyncio.gather(*tasks[:: 1 if round_ % 2 else -1], return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert all(isinstance(error, BlobInUse) for error in refused)
        assert await stores.registry.find_manifest(REPOSITORY, Digest.of(body), NOW)
        assert await blob_size(stores, REPOSITORY, Digest.of(layer)) == len(layer)


async def test_a_manifest_that_an_index_came_to_need_meanwhile_is_not_deleted(
    stores: Stores,
) -> None:
    for round_ in range(10):
        child = await push_image(stores, REPOSITORY, f"layer {round_}".encode())
        tasks = [
            put_manifest(stores, REPOSITORY, index(child)),
            stores.registry.delete_manifest(REPOSITORY, Digest.of(child), NOW),
        ]
        outcomes = await asyncio.gather(*tasks[:: 1 if round_ % 2 else -1], return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert all(isinstance(error, ManifestInUse) for error in refused)
        is_there = await stores.registry.find_manifest(REPOSITORY, Digest.of(child), NOW)
        assert bool(is_there) == bool(refused)


async def test_every_replica_answers_with_what_was_acknowledged_last(stores: Stores) -> None:
    # Invariant 6: another process on the same database.
    with stores.replica() as replica:
        for round_ in range(10):
            body = await push_image(stores, REPOSITORY, f"layer {round_}".encode(), tag="main")
            found = await replica.registry.find_manifest(REPOSITORY, Tag("main"), NOW)
            assert found is not None
            assert found.body == body
        await replica.registry.delete_tag(REPOSITORY, Tag("main"), NOW)
        assert await stores.registry.find_manifest(REPOSITORY, Tag("main"), NOW) is None


async def test_two_processes_write_at_once_and_neither_loses(stores: Stores) -> None:
    body = await push_image(stores, REPOSITORY)
    with stores.replica() as replica:
        await asyncio.gather(
            *(
                put_manifest(writer, REPOSITORY, body, tag=f"{name}-{number}")
                for name, writer in (("one", stores), ("two", replica))
                for number in range(25)
            )
        )
    assert len((await stores.registry.list_tags(REPOSITORY, None, None, NOW)).tags) == 50
