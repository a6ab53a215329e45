"""The soak, short: five minutes of the mixed workload in all, and servers that are killed.

`make soak` runs it for as long as one likes; what it reports of a failure is in its log.
"""

import random
from pathlib import Path

import pytest

from tests.soak.run import WORKLOADS, Plan
from tests.soak.soak import PAIRS, soak


def seed() -> int:
    """Another one each time; a failure's output names it."""
    return random.randrange(1 << 32)


@pytest.mark.parametrize("kind", PAIRS)
def test_of_a_mixed_workload_nothing_fails_nothing_is_lost_and_all_goes_at_its_time(
    kind: str, own_folder: Path
) -> None:
    plan = Plan(
        WORKLOADS["mixed"], seed=seed(), clients=8, grace=15, retentions=(8, 20), seconds=105
    )
    assert soak(plan, own_folder, kind) == []


def test_a_server_that_is_killed_again_and_again_loses_nothing(own_folder: Path) -> None:
    plan = Plan(
        WORKLOADS["mixed"],
        seed=seed(),
        clients=8,
        # A push may take a few lives of the server, and counts on what the first one told it.
        grace=40,
        retentions=(30,),
        kills=12,
        kill_every=1,
    )
    assert soak(plan, own_folder, "embedded") == []
