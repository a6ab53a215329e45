"""OCI's own conformance suite against a server as a user starts it."""

from pathlib import Path

from tests.e2e.processes import ENGINES, MissingEngineError, environment, run
from tests.e2e.server import LayoverServer

SUITE = ENGINES / "bin" / "conformance"

# What the suite finds and we do not have.
NOT_PASSED = {
    # A blob is mounted from the repository that the client names, and from no other: which
    # others hold it is nobody's business.
    "Blob anonymous mount": "Skip",
    # Proposed for the next version of the specification.
    "Manifest put with tag params": "Disabled",
    "Tag Param": "Disabled",
    "Tag Param sha512": "Disabled",
    # docs/decisions/0005-indexes-are-whole.md
    "Sparse Manifests": "Disabled",
}


def test_the_registry_conforms_to_the_distribution_specification(
    server: LayoverServer, tmp_path: Path
) -> None:
    if not SUITE.is_file():
        raise MissingEngineError("no conformance suite; run scripts/install-engines conformance")
    done = run(
        [SUITE],
        cwd=tmp_path,
        check=False,
        timeout=300,
        env=environment(
            tmp_path,
            OCI_REGISTRY=server.host,
            OCI_TLS="disabled",
            OCI_REPO1=f"{server.project_id}/conformance/one",
            OCI_REPO2=f"{server.project_id}/conformance/two",
            OCI_USERNAME="x-token",
            OCI_PASSWORD=server.token,
            OCI_API_BLOBS_DIGEST_HEADER="true",
            OCI_API_BLOBS_UPLOAD_CANCEL="true",
            OCI_API_MANIFESTS_DIGEST_HEADER="true",
        ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = _results(tmp_path / "results" / "results.yaml")
    assert len(found) > 40, found
    assert {name: result for name, result in found.items() if result != "Pass"} == NOT_PASSED


def _results(path: Path) -> dict[str, str]:
    """What became of each API and each kind of data: the two last sections of the file."""
    _, _, sections = path.read_text().partition("\napis:\n")
    lines = [line.strip().partition(": ") for line in sections.splitlines() if ": " in line]
    return {name: result for name, _, result in lines}
