from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores import Stores, opened


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(tmp_path) as stores:
        yield stores
