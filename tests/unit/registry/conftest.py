"""What the registry's services run on: the stores of the contract suites, which are real ones."""

from tests.contract.conftest import database_url, stores

__all__ = ["database_url", "stores"]
