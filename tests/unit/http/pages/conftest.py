"""The pages of a server of a test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.http.pages.site import Site, site


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as pages:
        yield pages
