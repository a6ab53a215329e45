"""OCI's own conformance suite against a server as a user starts it."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.processes import ENGINES, MissingEngineError, environment, run
from tests.e2e.server import LayoverServer

pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)

NO_BUILDER = '[{"name": "none", "address": "tcp://127.0.0.1:1"}]'

SUITE = ENGINES / "bin" / "conformance"

# Every switch of the suite, on; docs/conformance.md has the same.
APIS = (
    *("PING", "PULL", "PUSH", "REFERRER"),
    *("BLOBS_ATOMIC", "BLOBS_DELETE", "BLOBS_DIGEST_HEADER", "BLOBS_MOUNT_ANONYMOUS"),
    *("BLOBS_UPLOAD_CANCEL", "MANIFESTS_ATOMIC", "MANIFESTS_DELETE", "MANIFESTS_DIGEST_HEADER"),
    *("MANIFESTS_TAG_PARAM", "TAGS_ATOMIC", "TAGS_DELETE", "TAGS_LIST"),
)
DATA = (
    *("IMAGE", "INDEX", "INDEX_LIST", "SPARSE", "ARTIFACT", "SUBJECT", "SUBJECT_MISSING"),
    *("ARTIFACT_LIST", "SUBJECT_LIST", "DATA_FIELD", "NONDISTRIBUTABLE", "CUSTOM_FIELDS"),
    *("NO_LAYERS", "EMPTY_BLOB", "SHA512"),
)


def test_the_registry_conforms_to_the_distribution_specification(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server(settings={"SPARSE_IMAGES": "true", "BUILDERS": NO_BUILDER})
    done, found = conformance(server, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(found) > 40, found
    assert {name: result for name, result in found.items() if result != "Pass"} == {}


def test_a_server_as_it_comes_takes_all_but_images_without_their_blobs(
    server: LayoverServer, tmp_path: Path
) -> None:
    done, found = conformance(server, tmp_path, off="OCI_DATA_SPARSE")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: result for name, result in found.items() if result != "Pass"} == {
        "Sparse Manifests": "Disabled"
    }


def conformance(
    server: LayoverServer, folder: Path, off: str | None = None
) -> "tuple[subprocess.CompletedProcess[str], dict[str, str]]":
    """Run the suite with all but `off`; return how it ended and what became of each API."""
    if not SUITE.is_file():
        raise MissingEngineError("no conformance suite; run scripts/install-engines conformance")
    switches = {f"OCI_API_{name}": "true" for name in APIS}
    switches |= {f"OCI_DATA_{name}": "true" for name in DATA}
    if off is not None:
        switches[off] = "false"
    done = run(
        [SUITE],
        cwd=folder,
        check=False,
        timeout=300,
        env=environment(
            folder,
            OCI_REGISTRY=server.host,
            OCI_TLS="disabled",
            OCI_REPO1=f"{server.project_id}/conformance/one",
            OCI_REPO2=f"{server.project_id}/conformance/two",
            OCI_USERNAME="x-token",
            OCI_PASSWORD=server.token,
            **switches,
        ),
    )
    return done, _results(folder / "results" / "results.yaml")


def _results(path: Path) -> dict[str, str]:
    """What became of each API and each kind of data: the two last sections of the file."""
    _, _, sections = path.read_text().partition("\napis:\n")
    lines = [line.strip().partition(": ") for line in sections.splitlines() if ": " in line]
    return {name: result for name, _, result in lines}
