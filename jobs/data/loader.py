"""One rank's share of every global batch, read ahead by threads."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from jobs.data.batch import Batch, Prepare, join, pixels, tokens
from jobs.data.build import open_source
from jobs.data.caps import capped_weights
from jobs.data.errors import MIN_READS, BadSample
from jobs.data.grouping import LengthGroups, Order
from jobs.data.listing import ListingSource
from jobs.data.sample import Sample, Source
from jobs.data.stream import MixtureStream
from jobs.events import Skipped
from jobs.spec import DataSpec
from mir.errors import ConfigError, DataError

if TYPE_CHECKING:
    from jobs.features.cache import FeatureCache

READ_AHEAD = 4  # batches
_log = logging.getLogger(__name__)


@dataclass
class _Read:
    """What reading one batch gave; its counts reach the consumer together with the batch.

    skipped: samples whose turn came and that are bad, by source and reason.
    """

    batch: Batch | None = None
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_bad: BadSample | None = None
    error: Exception | None = None


class BatchLoader(Iterator[Batch]):
    """Endless batches of `global_batch / world_size` samples for one rank, in the stream's order.

    The batches of all ranks laid end to end are the global batches, whatever `world_size` and
    `workers` are; a loader started at `start_samples` goes on exactly where an uninterrupted one
    would be. A bad sample is counted each time that its turn comes, once an epoch, and replaced by
    the next good one of the same source, on every rank alike. That one is seen again at its own
    turn: a source with bad samples repeats the neighbours of these within an epoch.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        seed: int,
        tokenizer: Any,
        image_processor: Any,
        global_batch: int,
        rank: int,
        world_size: int,
        start_samples: int = 0,
        samples: int | None = None,
        workers: int = 1,
        features: FeatureCache | None = None,
    ) -> None:
        """Open the sources and start reading.

        start_samples: samples already seen, all ranks together; a multiple of `global_batch`.
        samples: of the whole run, needed where the spec has `max_epochs`. workers: threads that
        read, each a whole batch; decoding pictures runs beside Python's lock.
        features: puts vision features in the pixels' place, if it can hold all pictures.
        Raises ConfigError or DataError for sources that cannot be opened (jobs/data/build.py) and
        for a global batch that the ranks cannot share equally.
        """
        if global_batch % world_size:
            nearest = max(1, round(global_batch / world_size)) * world_size
            raise ConfigError(
                f"optim.global_batch: {global_batch} cannot be shared by {world_size} ranks: "
                f"the nearest that can is {nearest}"
            )
        self._spec = spec
        self._sources: dict[str, Source] = {
            name: open_source(source, f"data.sources.{name}")
            for name, source in spec.sources.items()
            if spec.weights[name] > 0
        }
        if rank == 0:
            _tell_left_out(self._sources)
        # A copy of its own: a fast tokenizer keeps settings between calls and is not thread-safe.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._tokenizing = threading.Lock()
        self._prepare: Prepare = partial(pixels, image_processor=image_processor)
        if features is not None and features.holds(sum(map(len, self._sources.values()))):
            self._prepare = features
        self._weights = self._within_caps(samples)
        self._order = self._ordered(seed, global_batch)
        self._stride = global_batch
        self._share = global_batch // world_size
        self._position = start_samples + rank * self._share
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._last_bad: BadSample | None = None
        self._failed: Exception | None = None
        self._waited = 0.0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batch-loader")
        self._ahead: deque[Future[_Read]] = deque()
        while len(self._ahead) < max(READ_AHEAD, workers):
            self._read_on()

    def __next__(self) -> Batch:
        """The next batch. Raises DataError where no sample of a source can be used."""
        if self._failed is not None:
            raise self._failed
        began = time.monotonic()
        read = self._ahead.popleft().result()
        self._waited += time.monotonic() - began
        self._skipped += read.skipped
        self._last_bad = read.last_bad
        self._failed = read.error
        if self._failed is not None:
            raise self._failed
        self._read_on()
        assert read.batch is not None
        return read.batch

    def weights(self) -> dict[str, float]:
        """Share of each source of the spec in what is trained on, caps by epochs included."""
        return {name: self._weights.get(name, 0.0) for name in self._spec.sources}

    def take_wait(self) -> float:
        """Seconds that the consumer waited for batches since the last call."""
        waited, self._waited = self._waited, 0.0
        return waited

    @property
    def bad(self) -> int:
        """How many bad samples `take_skipped` would give, this rank's only."""
        return self._skipped.total()

    @property
    def last_bad(self) -> str:
        """The last bad sample of the batch handed out last, in words; empty where none is."""
        return str(self._last_bad or "")

    def take_skipped(self) -> list[Skipped]:
        """Bad samples in the batches handed out since the last call, this rank's only."""
        taken, self._skipped = self._skipped, Counter()
        return [
            Skipped(source=source, reason=reason, count=count)
            for (source, reason), count in sorted(taken.items())
        ]

    def close(self) -> None:
        """Stop reading ahead and wait for the threads; safe to call twice."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _within_caps(self, samples: int | None) -> dict[str, float]:
        spec = self._spec
        weights = {name: spec.weights[name] for name in self._sources}
        if not spec.max_epochs:
            return weights
        assert samples is not None, "caps by epochs need the length of the run"
        return capped_weights(weights, self._sizes(), spec.max_epochs, samples)

    def _sizes(self) -> dict[str, int]:
        return {name: len(source) for name, source in self._sources.items()}

    def _ordered(self, seed: int, global_batch: int) -> Order:
        spec = self._spec
        stream = MixtureStream(self._sizes(), self._weights, seed)
        if spec.group_by_length == 1:
            return stream
        return LengthGroups(stream, self._lengths, batch=global_batch, window=spec.group_by_length)

    def _lengths(self, picks: Sequence[tuple[str, int]]) -> list[int]:
        """Tokens of each sample's text; a caption that cannot be used counts as empty."""
        texts = []
        for name, index in picks:
            try:
                texts.append(self._sources[name].caption(index))
            except BadSample:
                texts.append("")
        with self._tokenizing:
            return [len(ids) for ids in tokens(texts, self._tokenizer)]

    def _read_on(self) -> None:
        self._ahead.append(self._pool.submit(self._read_batch, self._position))
        self._position += self._stride

    def _read_batch(self, position: int) -> _Read:
        read = _Read()
        try:
            pictures, texts = [], []
            for place in range(position, position + self._share):
                sample = self._read_sample(place, read)
                pictures.append(self._prepare(sample.image))
                texts.append(sample.turns)
                del sample  # lest its picture stay while the next is opened
            with self._tokenizing:
                read.batch = join(pictures, texts, self._tokenizer, self._spec.max_caption_tokens)
        except Exception as error:  # noqa: BLE001 - raised again in the consumer
            read.error = error
        return read

    def _read_sample(self, position: int, read: _Read) -> Sample:
        name, first = self._order.pick(position)
        source = self._sources[name]
        # Where so many in a row are bad the job ends anyway, at once and not hours later.
        tries = len(source) if self._spec.max_bad_fraction == 1 else min(len(source), MIN_READS)
        for step in range(tries):
            try:
                return source[(first + step) % len(source)]
            except BadSample as bad:
                if step == 0:  # the others have turns of their own
                    read.skipped[name, bad.reason] += 1
                read.last_bad = bad
        which = f"its {tries} samples" if tries == len(source) else f"{tries} samples in a row"
        raise DataError(
            f"data.sources.{name}: none of {which} can be used "
            f"(the last: {read.last_bad}): check its pictures and captions"
        )


def _tell_left_out(sources: Mapping[str, Source]) -> None:
    for name, source in sources.items():
        if isinstance(source, ListingSource) and source.without_picture:
            text = "data.sources.%s: %d entries have no picture and are left out"
            _log.warning(text, name, source.without_picture)
