"""Which pictures and captions stand several times in a survey, or in two of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jobs.data.survey import EXAMPLES, Survey


@dataclass(frozen=True)
class Repeats:
    """samples: how many stand a second time or more. examples: (times, first sample, second
    sample) of what stands most often."""

    samples: int
    examples: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Overlap:
    """samples: how many of one survey's also stand in another. examples: (sample of the first,
    sample of the second)."""

    samples: int
    examples: tuple[tuple[int, int], ...] = ()


def repeated(digests: array[int], indices: array[int]) -> Repeats:
    """Repeats in one column of a survey; examples are indices of samples."""
    column, rows = _column(digests), _column(indices)
    _, counts = np.unique(column, return_counts=True)
    order = np.argsort(column, kind="stable")
    starts = np.cumsum(counts) - counts
    most = np.argsort(-counts, kind="stable")[:EXAMPLES]
    examples = tuple(
        (int(counts[g]), int(rows[order[starts[g]]]), int(rows[order[starts[g] + 1]]))
        for g in most
        if counts[g] > 1
    )
    return Repeats(int(len(column) - len(counts)), examples)


def overlap(one: Survey, other: Survey) -> Overlap:
    """Pictures of `one` that `other` has too."""
    return _shared(one.pictures, one.indices, other.pictures, other.indices)


def elsewhere(one: Survey, others: Iterable[Survey]) -> int:
    """How many pictures of `one` stand in any of `others`."""
    columns = [_column(other.pictures) for other in others]
    if not columns:
        return 0
    return int(np.isin(_column(one.pictures), np.concatenate(columns)).sum())


def _shared(
    ours: array[int], our_rows: array[int], theirs: array[int], their_rows: array[int]
) -> Overlap:
    mine, other = _column(ours), _column(theirs)
    both = np.flatnonzero(np.isin(mine, other))
    order = np.argsort(other, kind="stable")
    places = order[np.searchsorted(other, mine[both[:EXAMPLES]], sorter=order)]
    examples = tuple(
        (our_rows[int(a)], their_rows[int(b)]) for a, b in zip(both[:EXAMPLES], places, strict=True)
    )
    return Overlap(len(both), examples)


def _column(values: array[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, dtype=np.uint64)
