"""Images for the tests: contexts for BuildKit, and OCI layouts made without any engine."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.engines import static_busybox

MIB = 1 << 20


def busybox_context(folder: Path, greeting: str, layers: Sequence[int] = ()) -> Path:
    """Make a build context whose image, run, prints the greeting.

    It has a layer more of each of these sizes, in bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(static_busybox(), folder / "busybox")
    (folder / "greeting").write_text(f"{greeting}\n")
    (folder / "Dockerfile").write_text(
        "FROM scratch\n"
        "COPY busybox /bin/busybox\n"
        "COPY greeting /greeting\n"
        'CMD ["/bin/busybox", "cat", "/greeting"]\n'
        + "".join(f"COPY layer{number} /\n" for number in range(len(layers)))
    )
    for number, size_bytes in enumerate(layers):
        random_file(folder / f"layer{number}", size_bytes)
    return folder


def random_file(path: Path, size_bytes: int) -> Path:
    """Write bytes that no layer compression makes smaller."""
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            file.write(os.urandom(min(MIB, size_bytes - start)))
    return path


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class OciLayout:
    """An image in an OCI image layout, which skopeo pushes as it is; its layers are random bytes.

    No client looks into a layer to push or copy it, so they need not be archives; said to be
    compressed, they are not compressed on the way.
    """

    def __init__(self, folder: Path, layer_sizes: Sequence[int]) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        layers = [self._random_blob(size) for size in layer_sizes]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._json_blob("application/vnd.oci.image.config.v1+json", config),
            "layers": layers,
        }
        descriptor = self._json_blob(str(manifest["mediaType"]), manifest)
        self.digest = str(descriptor["digest"])
        self.blob_digests = [str(layer["digest"]) for layer in layers]
        index = {"schemaVersion": 2, "manifests": [descriptor]}
        (folder / "index.json").write_text(json.dumps(index))
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def _json_blob(self, media_type: str, value: object) -> dict[str, str | int]:
        content = json.dumps(value).encode()
        digest = sha256(content)
        (self.blobs / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def _random_blob(self, size_bytes: int) -> dict[str, str | int]:
        content = random_file(self.blobs / "new", size_bytes)
        with content.open("rb") as file:
            hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
        content.rename(self.blobs / hexadecimal)
        return {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": f"sha256:{hexadecimal}",
            "size": size_bytes,
        }
