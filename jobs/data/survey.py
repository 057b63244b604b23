"""What a source holds: every sample is read once, some 40 bytes of it are kept.

Digests tell pictures and captions apart; two that differ have the same 64 bits about once in
10^19 / n^2 surveys of n samples.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from jobs.data.errors import BadSample
from jobs.data.sample import Source
from jobs.data.stream import permuted

EXAMPLES = 3
_CHUNK = 16  # samples a thread reads at a time
_AHEAD = 4  # chunks a thread may be ahead of the one that is waited for
# Lengths of several texts, in whatever unit.
Measure = Callable[[Sequence[str]], list[int]]


@dataclass
class Bad:
    """Samples that cannot be used for one reason. examples: the keys of the first few."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Survey:
    """What was found in one source.

    indices: of the usable samples; the other columns have one entry for each of them, sizes in
    pixels, lengths in the unit of the measure.
    """

    size: int
    read: int = 0
    bad: dict[str, Bad] = field(default_factory=dict)
    indices: array[int] = field(default_factory=lambda: array("Q"))
    widths: array[int] = field(default_factory=lambda: array("I"))
    heights: array[int] = field(default_factory=lambda: array("I"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    pictures: array[int] = field(default_factory=lambda: array("Q"))
    captions: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def bad_count(self) -> int:
        """Samples that cannot be used."""
        return sum(bad.count for bad in self.bad.values())


@dataclass(frozen=True, slots=True)
class _Look:
    index: int
    bad: BadSample | None = None
    width: int = 0
    height: int = 0
    picture: int = 0
    text: str = ""


def survey(
    source: Source,
    measure: Measure,
    *,
    limit: int | None = None,
    threads: int = 1,
    on_read: Callable[[int], None] = lambda _: None,
) -> Survey:
    """Read all samples of a source, or `limit` of them spread over it.

    on_read: hears after every few samples how many more were read.
    """
    found = Survey(size=len(source))
    for looks in _looks(source, _chosen(len(source), limit), threads):
        good = [look for look in looks if look.bad is None]
        lengths = measure([look.text for look in good])
        for look in looks:
            if look.bad is not None:
                bad = found.bad.setdefault(look.bad.reason, Bad())
                bad.count += 1
                if len(bad.examples) < EXAMPLES:
                    bad.examples.append(look.bad.key)
        for look, length in zip(good, lengths, strict=True):
            found.indices.append(look.index)
            found.widths.append(look.width)
            found.heights.append(look.height)
            found.lengths.append(length)
            found.pictures.append(look.picture)
            found.captions.append(digest(look.text.encode()))
        found.read += len(looks)
        on_read(len(looks))
    return found


def digest(*parts: bytes) -> int:
    """64 bits of a hash."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        hashed.update(part)
    return int.from_bytes(hashed.digest(), "big")


def _chosen(size: int, limit: int | None) -> Iterable[int]:
    """All samples, or `limit` of them in the order in which they lie in the source."""
    if limit is None or limit >= size:
        return range(size)
    return sorted(permuted(place, size, 0) for place in range(limit))


def _looks(source: Source, indices: Iterable[int], threads: int) -> Iterator[list[_Look]]:
    """Chunks of samples in order; no more than a few are held at once."""
    waiting: deque[Future[list[_Look]]] = deque()
    order = iter(indices)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="survey")
    try:
        while True:
            while len(waiting) < threads * _AHEAD and (chunk := list(islice(order, _CHUNK))):
                waiting.append(pool.submit(lambda c: [_look(source, i) for i in c], chunk))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look(source: Source, index: int) -> _Look:
    try:
        sample = source[index]
    except BadSample as bad:
        return _Look(index, bad=bad)
    width, height = sample.image.size
    picture = digest(f"{width} {height} ".encode(), sample.image.tobytes())
    return _Look(index, width=width, height=height, picture=picture, text=sample.text)
