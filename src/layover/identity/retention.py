"""How long things may be kept: the limits of a project's policy."""

from datetime import timedelta

from layover.identity.models import ManagementError, ProjectPolicy
from layover.units import told_duration

# A time that a person can wait for, and that every database and calendar can hold.
LONGEST_RETENTION = timedelta(days=3650)
SHORTEST_RETENTION = timedelta(seconds=1)


class InvalidRetention(ManagementError):
    """A retention that is none, or longer than the project allows."""


def check_retention(retention: timedelta, policy: ProjectPolicy) -> None:
    """Raise InvalidRetention unless content of the project may be kept for `retention`."""
    check_length(retention, "a retention")
    if retention > policy.max_retention:
        raise InvalidRetention(
            f"a retention of {told_duration(retention)} is over this project's maximum of"
            f" {told_duration(policy.max_retention)}: ask for less, or raise the project's maximum"
        )


def check_policy(policy: ProjectPolicy) -> None:
    """Raise InvalidRetention unless the policy's times fit together."""
    check_length(policy.retention, "a project's retention")
    check_length(policy.max_retention, "a project's maximum retention")
    if policy.retention > policy.max_retention:
        raise InvalidRetention(
            f"a retention of {told_duration(policy.retention)} is over the maximum of"
            f" {told_duration(policy.max_retention)}: lower the one or raise the other"
        )
    if policy.quota_bytes is not None and policy.quota_bytes < 0:
        raise InvalidRetention("a quota cannot be less than 0 bytes")


def check_length(retention: timedelta, what: str) -> None:
    if retention < SHORTEST_RETENTION:
        raise InvalidRetention(f"{what} has to be {told_duration(SHORTEST_RETENTION)} or longer")
    if retention > LONGEST_RETENTION:
        raise InvalidRetention(f"{what} can be {told_duration(LONGEST_RETENTION)} at most")
