"""What the tests of the management services share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.identity.tenancy import Tenancy, tenancy_in


@pytest.fixture
async def tenancy(tmp_path: Path) -> AsyncIterator[Tenancy]:
    async with tenancy_in(tmp_path) as tenancy:
        yield tenancy
