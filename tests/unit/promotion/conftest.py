"""Async tests run on asyncio alone, the loop that the server has."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
