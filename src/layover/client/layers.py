"""How far an image's layers are, on their way into Docker or to another registry."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """What is said of a layer, or of the whole: then `layer` is empty."""

    layer: str
    status: str
    done_bytes: int = 0
    total_bytes: int = 0
    is_done: bool = False
    """Whether nothing more is to be expected of the layer."""


Report = Callable[[LayerProgress], None]
