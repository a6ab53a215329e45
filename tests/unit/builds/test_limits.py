from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from layover.builds.limits import (
    ENTRY_OVERHEAD_BYTES,
    MAX_DOCKERFILE_BYTES,
    MAX_LOG_BYTES,
    admit_log,
    clean_dockerfile,
)
from layover.builds.models import Dockerfile, LogEntry
from tests.unit.builds.memory import START


def entry(size: int) -> LogEntry:
    return LogEntry("sha256:step", START, 1, b"x" * size)


@given(
    sizes=st.lists(st.integers(0, 3 * 1024 * 1024), max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=5),
)
def test_a_log_never_outgrows_its_limit_however_it_is_reported(
    sizes: list[int], cuts: list[int]
) -> None:
    entries = [entry(size) for size in sizes]
    bounds = sorted({0, len(entries), *(cut for cut in cuts if cut < len(entries))})
    kept: list[LogEntry] = []
    used = 0
    for start, stop in pairwise(bounds):
        more, used = admit_log(entries[start:stop], used)
        kept += more
    truncated = [line for line in kept if line.message.startswith(b"log truncated")]
    texts = [line for line in kept if not line.message.startswith(b"log truncated")]
    size = sum(len(line.message) + ENTRY_OVERHEAD_BYTES for line in texts)
    assert size <= MAX_LOG_BYTES
    # What is kept is the beginning, and the one line at the end says when there was more.
    assert texts == entries[: len(texts)]
    assert len(truncated) == (len(texts) < len(entries))
    assert kept[-1:] == truncated or not truncated


def test_a_log_that_just_fits_is_whole_and_what_follows_is_announced_once() -> None:
    size = MAX_LOG_BYTES - ENTRY_OVERHEAD_BYTES
    kept, used = admit_log([entry(size)], 0)
    assert (len(kept), used) == (1, MAX_LOG_BYTES)
    kept, used = admit_log([entry(0), entry(0)], used)
    assert [line.message for line in kept] == [b"log truncated: it is longer than 16 MiB\n"]
    assert admit_log([entry(0)], used) == ([], used)


@given(st.text())
def test_a_dockerfile_within_the_limit_is_kept_as_it_is(text: str) -> None:
    file = Dockerfile("", "Dockerfile", text)
    assert clean_dockerfile(file).contents == text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def test_a_dockerfile_above_the_limit_is_cut_between_characters_and_says_so() -> None:
    cleaned = clean_dockerfile(Dockerfile("", "Dockerfile", "ü" * MAX_DOCKERFILE_BYTES))
    assert cleaned.contents.startswith("ü" * (MAX_DOCKERFILE_BYTES // 2))
    assert cleaned.contents.endswith("# truncated: this Dockerfile is longer than 1 MiB\n")
