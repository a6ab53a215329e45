"""Which builder a build goes to: one pure choice, made inside the transaction that leases it.

In this order:

1. Builders that have the platform natively, else those that emulate it, else any healthy one: a
   Dockerfile that only copies, or one that cross-compiles, builds anywhere, and BuildKit itself
   says what it cannot run.
2. Among those the one that works for this build already.
3. The one that the project used last for the platform, whose cache is warm, unless it carries
   more than MAX_EXTRA_LOAD builds beyond the least loaded one. A cold cache costs a build
   minutes, sharing a machine with three others costs it less; at four the queue wins.
4. The least loaded. Of equals, the one that the project's ID hashes to: projects spread over
   an idle fleet and each comes back to its own.
"""

import hashlib
from collections.abc import Mapping

from layover.builds.builders import LeaseState, Platforms

MAX_EXTRA_LOAD = 3


def choose_builder(
    healthy: Mapping[str, Platforms], platform: str, project_id: str, state: LeaseState
) -> str:
    """The name of the builder to use; `healthy` holds at least one."""
    candidates = _best_suited(healthy, platform)
    if state.current in candidates:
        return state.current
    loads = {name: state.loads.get(name, 0) for name in candidates}
    least = min(loads.values())
    if state.last_used in loads and loads[state.last_used] - least <= MAX_EXTRA_LOAD:
        return state.last_used
    return min(candidates, key=lambda name: (loads[name], _rank(name, project_id, platform)))


def _best_suited(healthy: Mapping[str, Platforms], platform: str) -> list[str]:
    natively = [name for name, can in healthy.items() if platform in can.native]
    emulated = [name for name, can in healthy.items() if platform in can.emulated]
    return natively or emulated or list(healthy)


def _rank(name: str, project_id: str, platform: str) -> bytes:
    # Rendezvous hashing: a builder that comes or goes moves only the projects that it takes.
    return hashlib.sha256(f"{name}\n{project_id}\n{platform}".encode()).digest()
