"""`python -m tests.soak`: run a workload against servers of its own; end with 1 on any error."""

import argparse
import math
import random
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.model.test_model import on_postgres, on_sqlite, run_model
from tests.objects import S3Server
from tests.postgres import Postgres
from tests.soak.run import WORKLOADS, Plan
from tests.soak.soak import PAIRS, soak

# No shorter than a push takes on a machine that has more to do.
_GRACE_SECONDS = 10

_MINUTES = 5


def main() -> int:
    arguments = _parse()
    # Whoever ends the run early leaves no server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.workload == "model":
        return _model(arguments.pair, arguments.events)
    plan = Plan(
        WORKLOADS[arguments.workload],
        seed=arguments.seed,
        clients=arguments.clients,
        grace=arguments.grace,
        retentions=arguments.retentions,
        events=arguments.events or math.inf,
        seconds=arguments.minutes * 60 if arguments.minutes else math.inf,
        kill_every=arguments.kill_every,
        kills=arguments.kills or math.inf,
    )
    folder = Path(tempfile.mkdtemp(prefix="layover-soak-", dir="/tmp"))
    if soak(plan, folder, arguments.pair, arguments.replicas):
        print(f"failed; see {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _model(pair: str, histories: int) -> int:
    """Compare the registry with the model in memory, in so many histories of 50 steps."""
    with ExitStack() as stack:
        if pair == "embedded":
            open_ = stack.enter_context(on_sqlite())
        else:
            postgres, s3 = Postgres(), S3Server()
            stack.callback(postgres.remove)
            stack.callback(s3.remove)
            open_ = stack.enter_context(on_postgres(postgres, s3))
        # What it finds is raised, with the shortest history that shows it.
        run_model(open_, examples=histories, steps=50)
    print(f"{histories} histories, nothing found")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--workload", choices=[*WORKLOADS, "model"], default="mixed")
    parser.add_argument("--pair", choices=PAIRS, default="embedded")
    parser.add_argument("--replicas", type=int, default=3, help="of the scaled pair")
    parser.add_argument("--events", type=int, help="end after so many; of the model, histories")
    parser.add_argument(
        "--minutes", type=float, help=f"end after so long; {_MINUTES} where nothing else ends it"
    )
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--grace", type=int, default=_GRACE_SECONDS, metavar="SECONDS")
    parser.add_argument(
        "--kill-every", type=float, metavar="SECONDS", help="kill a server so often, about"
    )
    parser.add_argument(
        "--retentions",
        type=_retentions,
        default=(5.0, 20.0, 60.0),
        metavar="SECONDS,...",
        help="a project for each, beside one where what is pushed stays",
    )
    parser.add_argument("--kills", type=int, help="end after so many")
    arguments = parser.parse_args()
    if arguments.workload == "model":
        arguments.events = arguments.events or 1000
    if not (arguments.events or arguments.minutes or arguments.kills):
        arguments.minutes = _MINUTES
    if arguments.kills and not arguments.kill_every:
        arguments.kill_every = 1.0
    return arguments


def _retentions(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


if __name__ == "__main__":
    sys.exit(main())
