"""Who is answered what: table.txt has every route, method and page, times every kind of caller.

`ok` is done. The rest is how it is refused, by HTTP's numbers: 401 nobody is known, 403 the caller
may not, 404 as if it never were, and what else is wrong with a request that was let in: 400 its
form, 412 the state of things, 405 and 501 that there is no such thing.

The columns are callers: with no token; with one that is wrong, expired or revoked; with a pull
token of the project, of the build, of another build of the same project; with the build's token,
the project's, the organization's; its owner, member and viewer; an ID token that a trust policy
grants `project`, or `pull`. Last strangers: another organization's users, its tokens of each kind,
an ID token that it trusts, and an administrator of the server who is no member of any. Last a
browser in which the organization's owner is signed in, without the token of a form: what any site
can have it send. A 404 is to the letter the answer to what never was; the test compares.
"""

from dataclasses import dataclass
from pathlib import Path

COLUMNS = (
    *("none", "invalid", "pull", "own", "other", "build", "project", "org"),
    *("owner", "member", "viewer", "ci", "ci-pull", "f-user", "f-token", "f-ci", "admin", "cookie"),
)

# Whom a column stands for, where it is not the caller of that name.
STANDS_FOR: dict[str, tuple[str, ...]] = {
    "invalid": ("bad", "expired", "revoked"),
    "own": ("pull-build",),
    "other": ("pull-other",),
    "f-user": ("f-owner", "f-member", "f-viewer"),
    "f-token": ("f-org", "f-project", "f-pull", "f-pull-build", "f-build"),
}

_TABLE = Path(__file__).with_suffix(".txt")


@dataclass(frozen=True)
class Row:
    """A request, and how each column is answered."""

    name: str
    expected: dict[str, str]

    @property
    def route(self) -> str:
        """The route or method that it asks."""
        return self.name.partition("~")[0].strip()


def rows() -> list[Row]:
    """The table, read."""
    found = []
    for line in _TABLE.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, *cells = line.rsplit(maxsplit=len(COLUMNS))
            found.append(Row(name.strip(), dict(zip(COLUMNS, cells, strict=True))))
    return found
