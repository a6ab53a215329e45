"""Platforms: OS/ARCH[/VARIANT] (image-spec v1.1.1, "Image Index"), and which one means which."""

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm"}

# containerd's normal form leaves out the variant that the architecture has anyway.
_WITHOUT_VARIANT = (["arm64", "v8"], ["amd64", "v1"])


def is_for(known: str | None, wanted: str) -> bool:
    """Whether an image for the platform `known` is one of those that `wanted` asks for.

    `wanted` may leave out the operating system, which is Linux then, and the variant.
    """
    parts = _parts(wanted)
    return known is not None and _parts(known)[: len(parts)] == parts


def _parts(platform: str) -> list[str]:
    text = platform if "/" in platform else f"linux/{platform}"
    parts = [_ARCHITECTURES.get(part, part) for part in text.lower().split("/")]
    return parts[:2] if parts[1:] in _WITHOUT_VARIANT else parts
