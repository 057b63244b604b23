"""What a source raises for one sample that cannot be used, and how many of them are too many."""

from __future__ import annotations

from collections.abc import Mapping

from mir.errors import DataError

# Below this many reads the share of bad samples is taken of this many, lest one bad among the
# first ten end a job.
MIN_READS = 1000


class BadSample(Exception):  # noqa: N818 - a signal to the loader, not an error for the user
    """One picture or caption is unusable.

    reason: one of few fixed phrases, so that counts by reason stay readable.
    key: names the sample, e.g. 'captions.jsonl:17'.
    """

    def __init__(self, reason: str, key: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.reason = reason
        self.key = key


def too_many_bad(bad: float, reads: float, limit: float) -> bool:
    """Whether `bad` of so many `reads` are a larger share than `limit` (`max_bad_fraction`)."""
    return bad > limit * max(reads, MIN_READS)


def too_many_error(bad: Mapping[str, int], reads: int, limit: float, last: str) -> DataError:
    """What ends a training for its bad samples, counted by what was wrong.

    last: one of them; empty where none was read since the limit was lowered.
    """
    told = tally(dict(sorted(bad.items())))  # ties too are told as on any number of ranks
    told += f"; the last: {last}" if last else ""
    return DataError(
        f"data.max_bad_fraction: {sum(bad.values())} of {reads} samples could not be used, more "
        f"than {limit:g} allows ({told}): mend the data (`mirsweep data "
        "check` lists what is wrong) or raise the limit"
    )


def tally(skipped: Mapping[str, int], most: int = 4) -> str:
    """Counts by what was wrong in words, the largest first: 'image missing 3, caption empty 1'."""
    ordered = sorted(skipped.items(), key=lambda item: -item[1])[:most]
    return ", ".join(f"{what} {count}" for what, count in ordered)
