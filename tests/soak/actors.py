"""What a client does to the registry, and what has to come of it."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from protobuf import Oneof

from layover.client.errors import NotFound, TokenRefused
from layover.rpc.depot.cli.v1 import build_pb
from tests.soak import content
from tests.soak.client import Answer, RegistryClient
from tests.soak.content import Blob, Manifest
from tests.soak.journal import Journal, Violation
from tests.soak.ledger import Ledger, Life, Node, Unit

_MANIFEST_TYPES = f"{content.OCI_INDEX}, {content.OCI_MANIFEST}"


@dataclass(frozen=True)
class Place:
    """A project whose pushes live for so many seconds, and its repositories."""

    project_id: str
    retention: float
    repositories: tuple[str, ...]


@dataclass(frozen=True)
class Sizes:
    """How large things are: the layers that everybody pushes, and the sizes of one's own."""

    pool: tuple[Blob, ...]
    own: tuple[int, ...]


def _check(answer: Answer, expected: Sequence[int], what: str) -> Answer:
    if answer.status not in expected:
        raise Violation(
            f"{what}: {answer.status} instead of {' or '.join(map(str, expected))},"
            f" asked at {answer.began:.3f}, answered at {answer.ended:.3f}:"
            f" {answer.body[:300].decode() if answer.body.startswith(b'{') else ''}"
        )
    return answer


def _says(answer: Answer, life: Life, what: str) -> bool:
    """Whether it was found. Raises Violation where it has to be and is not, or the other way."""
    shown = life.shown(answer.began, answer.ended)
    expected = {True: [200], False: [404], None: [200, 404]}[shown]
    window = f"{what} (shows until {life.shows_until:.3f}, gone from {life.gone_from:.3f})"
    return _check(answer, expected, window).status == 200


class Actor:
    """One client; its choices come from its own seed."""

    def __init__(
        self,
        name: str,
        client: RegistryClient,
        ledger: Ledger,
        journal: Journal,
        sizes: "Sizes",
        grace: float,
    ) -> None:
        self.name, self.random = name, random.Random(name)
        self._client, self._ledger, self._journal = client, ledger, journal
        self._sizes, self._grace = sizes, grace
        self._made = 0

    # -- Making things up -------------------------------------------------------------------------

    def _blob(self, size_bytes: int) -> Blob:
        self._made += 1
        return Blob(f"{self.name}/{self._made}", size_bytes)

    def _layers(self) -> list[Blob]:
        """Some that others push too, the first of the pool the more often, and one of its own."""
        count = self.random.randint(1, 4)
        pool = self._sizes.pool
        last = len(pool) - 1
        shared = {min(last, int(self.random.paretovariate(0.6)) - 1) for _ in range(count)}
        layers = [pool[number] for number in sorted(shared)]
        if self.random.random() < 0.5:
            layers.append(self._blob(self.random.choice(self._sizes.own)))
        return layers

    def _image(self, subject: Manifest | None = None) -> Manifest:
        layers = [self._blob(100)] if subject else self._layers()
        return content.image(self._blob(self.random.randint(50, 500)), layers, subject)

    def new_unit(self, place: Place) -> Unit:
        """An image or an index that nobody pushed yet."""
        self._made += 1
        children: list[Manifest] = []
        top = self._image()
        if self.random.random() < 0.25:
            children = [top, *(self._image() for _ in range(self.random.randint(1, 2)))]
            top = content.index(children)
        node = Node(top)
        return Unit(
            repository=self.random.choice(place.repositories),
            tag=f"t{self.name.rpartition('/')[2]}-{self._made}",
            top=node,
            children=[Node(child, kept_by=[node]) for child in children],
            retention=place.retention,
        )

    # -- Pushing ----------------------------------------------------------------------------------

    async def push(self, unit: Unit, *, token: str | None = None) -> None:
        """Push a unit as clients do: what the registry says is there is not sent again.

        A unit that was pushed before lives anew.
        """
        started = time.time()
        # Known from the start: whatever became of the push, some of it may be there.
        if unit not in self._ledger.units:
            self._ledger.units.append(unit)
        for child in unit.children:
            path = f"/v2/{unit.repository}/manifests/{child.manifest.digest}"
            answer = await self._client.ask(
                "HEAD", path, headers={"accept": _MANIFEST_TYPES}, token=token
            )
            if not _says(answer, child.life, f"HEAD of child {child.manifest.digest}"):
                asked = time.time()
                await self._push_blobs(unit, child.manifest, token)
                if not self._is_in_time(unit, asked):
                    self._leave(child)
                    return
                await self._put(unit, child, child.manifest.digest, token)
        await self._push_blobs(unit, unit.top.manifest, token)
        if not self._is_in_time(unit, started):
            self._leave(unit.top)
            return
        await self._put(unit, unit.top, unit.tag, token)

    def _is_in_time(self, unit: Unit, asked: float) -> bool:
        """Whether what the server said and took since then still counts, and a moment longer.

        A push that is not goes no further: its failure would be right, and its success too.
        """
        if time.time() - asked < 0.6 * min(self._grace, unit.retention):
            return True
        self._journal.note("pushes as slow as the grace time")
        return False

    def _leave(self, node: Node) -> None:
        """Go no further with a manifest whose blobs were brought: they show while they are leased.

        The second more is for the server, whose clock it was.
        """
        node.own.doubt(time.time() + self._grace + 1)

    async def _put(self, unit: Unit, node: Node, reference: str, token: str | None) -> None:
        answer = await self._client.ask(
            "PUT",
            f"/v2/{unit.repository}/manifests/{reference}",
            node.manifest.body,
            {"content-type": node.manifest.media_type},
            token=token,
        )
        _check(answer, [201], f"PUT of manifest {reference} in {unit.repository}")
        seconds = math.inf if unit.build_id else unit.retention
        if node is unit.top:
            unit.renew_referrers(answer.began, answer.ended)
        # Before the answer is read nothing is known, so the life begins with the request.
        node.own.renew(answer.began, answer.ended, seconds)
        if answer.headers.get("docker-content-digest") != node.manifest.digest:
            raise Violation(f"PUT of {node.manifest.digest} gave {dict(answer.headers)}")

    async def _push_blobs(self, unit: Unit, manifest: Manifest, token: str | None) -> None:
        for blob in manifest.blobs:
            path = f"/v2/{unit.repository}/blobs/{blob.digest}"
            there = await self._client.ask("HEAD", path, token=token)
            if _check(there, [200, 404], f"HEAD of {blob.digest}").status == 200:
                self._journal.note("blobs that were there")
                if there.headers.get("content-length") != str(blob.size_bytes):
                    raise Violation(f"HEAD of {blob.digest} gave {dict(there.headers)}")
                continue
            await self.upload(unit.repository, blob, token=token)

    async def upload(self, repository: str, blob: Blob, *, token: str | None = None) -> None:
        """Send a blob, in one of the ways that clients have."""
        # A session that a killed replica broke off is begun anew, as clients do.
        way = self.random.choice((self._monolithic, self._put_whole, self._streamed, self._chunked))
        await self._client.again(lambda: way(repository, blob, token), f"upload of {blob.digest}")

    async def _start(self, repository: str, token: str | None) -> str:
        started = await self._client.once("POST", f"/v2/{repository}/blobs/uploads/", token=token)
        return self._client.fine(started, 202, "start of an upload").location

    async def _monolithic(self, repository: str, blob: Blob, token: str | None) -> None:
        path = f"/v2/{repository}/blobs/uploads/?digest={blob.digest}"
        answer = await self._client.once("POST", path, blob.content(), token=token)
        self._client.fine(answer, 201, f"POST of {blob.digest}")

    async def _put_whole(self, repository: str, blob: Blob, token: str | None) -> None:
        session = await self._start(repository, token)
        await self._finish(session, blob, blob.content(), token)

    async def _streamed(self, repository: str, blob: Blob, token: str | None) -> None:
        session = await self._start(repository, token)
        answer = await self._client.once(
            "PATCH", session, _pieces(blob.content(), 16 << 10), token=token
        )
        session = self._client.fine(answer, 202, "PATCH without a length").location
        await self._finish(session, blob, b"", token)

    async def _chunked(self, repository: str, blob: Blob, token: str | None) -> None:
        session = await self._start(repository, token)
        body = blob.content()
        cuts = sorted(self.random.sample(range(len(body) + 1), min(2, len(body))))
        last = cuts.pop() if len(cuts) == 2 and self.random.random() < 0.5 else len(body)
        start = 0
        for stop in (*cuts, last):
            if stop == start:
                continue
            span = {"content-range": f"{start}-{stop - 1}"}
            answer = await self._client.once("PATCH", session, body[start:stop], span, token=token)
            session = self._client.fine(answer, 202, f"PATCH of {start}-{stop - 1}").location
            start = stop
        await self._finish(session, blob, body[start:], token)

    async def _finish(self, session: str, blob: Blob, rest: bytes, token: str | None) -> None:
        joint = "&" if "?" in session else "?"
        answer = await self._client.once(
            "PUT", f"{session}{joint}digest={blob.digest}", rest, token=token
        )
        self._client.fine(answer, 201, f"PUT of {blob.digest}")

    async def abandon(self, repository: str) -> None:
        """Begin an upload and leave it, or cancel it."""
        body = self._blob(self.random.choice((10, 50_000))).content()
        started = await self._client.ask("POST", f"/v2/{repository}/blobs/uploads/")
        session = _check(started, [202], "start of an upload").location
        # Repeated where its answer was lost, it would be a second chunk.
        sent = await self._client.ask(
            "PATCH", session, body, {"content-range": f"0-{len(body) - 1}"}
        )
        _check(sent, [202, 416], "PATCH of an upload that is left")
        if self.random.random() < 0.3:
            ended = await self._client.ask("DELETE", session)
            _check(ended, [204, 404], "DELETE of an upload")
            asked = await self._client.ask("GET", session)
            _check(asked, [404], "GET of a canceled upload")

    async def mount(self, unit: Unit, target: str) -> None:
        """Mount a blob of a unit into another repository, and push an image of it there."""
        node = self.random.choice([node for node in unit.nodes if node.manifest.blobs])
        blob = self.random.choice(node.manifest.blobs)
        answer = await self._client.ask(
            "POST",
            f"/v2/{target}/blobs/uploads/?mount={blob.digest}&from={quote(unit.repository)}",
        )
        shown = node.life.shown(answer.began, answer.ended)
        # Gone with its manifest, a shared layer may be there by another one.
        expected = [201] if shown else [201, 202]
        if shown is False and blob in unit.own_blobs:
            expected = [202]
        if _check(answer, expected, f"mount of {blob.digest} from {unit.repository}").status == 202:
            await self._client.ask("DELETE", answer.location)

    # -- Reading ----------------------------------------------------------------------------------

    async def pull(self, unit: Unit) -> None:
        """Pull what is under the unit's tag, whole, and compare every byte with its digest."""
        if not await self._read_manifest(unit, unit.top, unit.tag):
            return
        for node in (unit.top, *unit.children):
            if node is unit.top or await self._read_manifest(unit, node, node.manifest.digest):
                for blob in node.manifest.blobs:
                    await self._read_blob(unit, node, blob)
        if unit.referrers:
            await self.read_referrers(unit)

    async def _read_manifest(self, unit: Unit, node: Node, reference: str) -> bool:
        answer = await self._client.ask(
            self.random.choice(("GET", "GET", "HEAD")),
            f"/v2/{unit.repository}/manifests/{reference}",
            headers={"accept": _MANIFEST_TYPES},
        )
        what = f"manifest {reference} in {unit.repository}"
        if not _says(answer, node.life, what):
            return False
        if answer.headers["docker-content-digest"] != node.manifest.digest or (
            answer.body and answer.body != node.manifest.body
        ):
            raise Violation(f"{what} is not what was pushed: {dict(answer.headers)}")
        return True

    async def _read_blob(self, unit: Unit, node: Node, blob: Blob) -> None:
        path = f"/v2/{unit.repository}/blobs/{blob.digest}"
        answer = await self._client.ask("GET", path, keep_body=False)
        what = f"blob {blob.digest} of {node.manifest.digest} in {unit.repository}"
        life = node.life
        if blob not in unit.own_blobs:
            # Others may show it too.
            life = Life(life.shows_until, math.inf)
        if _says(answer, life, what) and answer.digest != blob.digest:
            raise Violation(f"{what} has the digest {answer.digest}")

    async def read_referrers(self, unit: Unit) -> None:
        """List what refers to the unit."""
        subject = unit.top.manifest.digest
        answer = await self._client.ask("GET", f"/v2/{unit.repository}/referrers/{subject}")
        _check(answer, [200], f"referrers of {subject}")
        for node in unit.referrers:
            shown = node.life.shown(answer.began, answer.ended)
            listed = node.manifest.digest.encode() in answer.body
            if shown is not None and listed is not shown:
                raise Violation(
                    f"referrer {node.manifest.digest} of {subject} in {unit.repository} is"
                    f" {'listed' if listed else 'not listed'} at {answer.began:.3f}:"
                    f" shows until {node.life.shows_until:.3f}, gone from {node.life.gone_from:.3f}"
                )

    async def check_gone(self, unit: Unit) -> None:
        """Ask every route for what is gone."""
        repository = f"/v2/{unit.repository}"
        paths = [f"{repository}/manifests/{unit.tag}"]
        paths += [f"{repository}/manifests/{node.manifest.digest}" for node in unit.nodes]
        paths += [f"{repository}/blobs/{blob.digest}" for blob in unit.own_blobs]
        for path in paths:
            method = self.random.choice(("GET", "HEAD"))
            answer = await self._client.ask(method, path, headers={"accept": "*/*"})
            _check(answer, [404], f"{method} {path}, gone since {unit.gone_from:.3f}")
        await self.read_referrers(unit)
        tags = await self._client.ask("GET", f"{repository}/tags/list")
        if f'"{unit.tag}"'.encode() in _check(tags, [200, 404], "tags").body:
            raise Violation(f"tag {unit.tag} is listed in {unit.repository}, and is gone")
        if blobs := unit.own_blobs:
            query = f"mount={self.random.choice(blobs).digest}&from={quote(unit.repository)}"
            target = f"{unit.repository}/mounted"
            answer = await self._client.ask("POST", f"/v2/{target}/blobs/uploads/?{query}")
            _check(answer, [202], f"mount of what is gone, {query}")
            await self._client.ask("DELETE", answer.location)

    # -- Referring and deleting -------------------------------------------------------------------

    async def refer(self, unit: Unit) -> None:
        """Push a signature of the unit, which lives as long as the unit does."""
        before = unit.top.life
        node = Node(self._image(subject=unit.top.manifest), kept_by=[unit.top])
        asked = time.time()
        await self._push_blobs(unit, node.manifest, None)
        if not self._is_in_time(unit, asked):
            return
        answer = await self._client.ask(
            "PUT",
            f"/v2/{unit.repository}/manifests/{node.manifest.digest}",
            node.manifest.body,
            {"content-type": node.manifest.media_type},
        )
        _check(answer, [201], f"PUT of referrer {node.manifest.digest} in {unit.repository}")
        if before.shown(answer.began, answer.ended) is False:
            # Before its subject, or behind it: it lives on its own.
            node.own.renew(answer.began, answer.ended, unit.retention)
        elif before.shown(answer.began, answer.ended) is None:
            node.own.doubt(answer.ended + unit.retention)
        unit.referrers.append(node)

    async def delete(self, unit: Unit) -> None:
        """Delete the unit's image or index; what only it kept goes with it."""
        await self.delete_node(unit, unit.top)

    async def delete_node(self, unit: Unit, node: Node) -> None:
        """Delete one manifest of the unit, which no index needs."""
        path = f"/v2/{unit.repository}/manifests/{node.manifest.digest}"
        answer = await self._client.ask("DELETE", path)
        shown = node.life.shown(answer.began, answer.ended)
        # The second of two tries finds what the first did.
        expected = {True: [202], False: [404], None: [202, 404]}[shown]
        if self._client.replicas_die:
            expected = [202, 404]
        _check(answer, expected, f"DELETE {path}")
        node.own.end(answer.began, answer.ended)

    async def delete_child(self, unit: Unit) -> None:
        """Try to delete what the unit's index needs."""
        child = self.random.choice(unit.children)
        path = f"/v2/{unit.repository}/manifests/{child.manifest.digest}"
        life = unit.top.life
        if life.shows_until > time.time() + 60:
            answer = await self._client.ask("DELETE", path)
            _check(answer, [409], f"DELETE {path}, which its index needs")

    # -- Builds -----------------------------------------------------------------------------------

    async def save_build(self, place: Place) -> Unit:
        """Save what a build made under its ID, and end it: from then on its time runs."""
        # A first try that got through leaves a build that ends by itself.
        options = [build_pb.BuildOptions(save=True)]
        asked = build_pb.CreateBuildRequest(project_id=place.project_id, options=options)
        created = await self._client.call(lambda api: api.create_build(asked))
        unit = self.new_unit(place)
        unit.repository, unit.tag = place.project_id, created.build_id
        unit.build_id = created.build_id
        async with unit.lock:
            await self.push(unit, token=created.build_token)
            await self._end_build(unit, created)
        return unit

    async def _end_build(self, unit: Unit, created: build_pb.CreateBuildResponse) -> None:
        began = time.time()
        request = build_pb.FinishBuildRequest(build_id=created.build_id)
        success: Oneof[Literal["success"], build_pb.FinishBuildRequest.Success]
        success = Oneof("success", build_pb.FinishBuildRequest.Success())
        request.result = success
        token = created.build_token
        try:
            await self._client.call(lambda api: api.with_token(token).finish_build(request))
        except TokenRefused:
            # A killed server's answer was lost: the build has ended, and its token with it.
            if not self._client.replicas_die:
                raise
        except NotFound:
            # And where it took longer than the build lives to come back, its time is over, too.
            if not self._client.replicas_die or time.time() < began + unit.retention:
                raise
        ended = time.time()
        for node in unit.nodes:
            if node.own.shows_until == math.inf:
                node.own = Life()
                node.own.renew(began, ended, unit.retention)

    async def delete_build(self, unit: Unit) -> None:
        """Delete a build: all of it goes at once."""
        assert unit.build_id is not None
        build_id, began = unit.build_id, time.time()
        try:
            await self._client.call(lambda api: api.delete_build(build_id))
        except NotFound:
            if unit.top.life.shown(began, time.time()) and not self._client.replicas_die:
                raise Violation(f"build {unit.build_id} is not there to be deleted") from None
        ended = time.time()
        # A referrer that was pushed when the build was gone lives on its own.
        for node in (unit.top, *unit.children):
            node.own.end(began, ended)


async def _pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(0)
