"""One rank's share of every global batch, read ahead by a thread."""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jobs.data.batch import Batch, collate
from jobs.data.build import open_source
from jobs.data.errors import BadSample
from jobs.data.sample import Sample, Source
from jobs.data.stream import MixtureStream
from jobs.events import Skipped
from jobs.spec import DataSpec
from mir.errors import ConfigError, DataError

READ_AHEAD = 4  # batches
# Below this many reads the share of bad samples is taken of this many, lest one bad among the
# first ten end a job.
MIN_READS = 1000


@dataclass
class _Read:
    """What reading one batch gave; its counts reach the consumer together with the batch."""

    batch: Batch | None = None
    reads: int = 0
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_bad: BadSample | None = None
    error: BaseException | None = None


class BatchLoader(Iterator[Batch]):
    """Endless batches of `global_batch / world_size` samples for one rank, in the stream's order.

    The batches of all ranks laid end to end are the global batches, whatever `world_size` is; a
    loader started at `start_samples` goes on exactly where an uninterrupted one would be. A bad
    sample is replaced by the next good one of the same source, on every rank alike, and counted.
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
    ) -> None:
        """Open the sources and start reading.

        start_samples: samples already seen, all ranks together; a multiple of `global_batch`.
        Raises ConfigError or DataError for sources that cannot be opened (jobs/data/build.py) and
        for a global batch that the ranks cannot share equally.
        """
        if global_batch % world_size:
            nearest = max(1, round(global_batch / world_size)) * world_size
            raise ConfigError(
                f"optim.global_batch: {global_batch} cannot be shared by {world_size} ranks: "
                f"the nearest that can is {nearest}"
            )
        weights = spec.weights
        self._sources: dict[str, Source] = {
            name: open_source(source, f"data.sources.{name}")
            for name, source in spec.sources.items()
            if weights[name] > 0
        }
        sizes = {name: len(source) for name, source in self._sources.items()}
        self._stream = MixtureStream(sizes, {name: weights[name] for name in sizes}, seed)
        self._max_bad = spec.max_bad_fraction
        self._max_tokens = spec.max_caption_tokens
        # A copy of its own: a fast tokenizer keeps settings between calls and is not thread-safe.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._image_processor = image_processor
        self._stride = global_batch
        self._share = global_batch // world_size
        self._position = start_samples + rank * self._share
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._reads = 0
        self._bad = 0
        self._failed: BaseException | None = None
        self._waited = 0.0
        self._since = time.monotonic()
        self._closing = threading.Event()
        self._queue: queue.Queue[_Read] = queue.Queue(READ_AHEAD)
        self._thread = threading.Thread(target=self._produce, name="batch-loader", daemon=True)
        self._thread.start()

    def __next__(self) -> Batch:
        """The next batch. Raises DataError when too many samples are bad."""
        if self._failed is not None:
            raise self._failed
        began = time.monotonic()
        read = self._queue.get()
        self._waited += time.monotonic() - began
        self._reads += read.reads
        self._bad += read.skipped.total()
        self._skipped += read.skipped
        if read.error is not None:
            self._failed = read.error
            raise read.error
        self._check_bad(read.last_bad)
        assert read.batch is not None
        return read.batch

    def wait_fraction(self) -> float:
        """Share of the time since the last call that the consumer spent waiting, 0 to 1."""
        now = time.monotonic()
        fraction = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        return min(1.0, fraction)

    def take_skipped(self) -> list[Skipped]:
        """Bad samples in the batches handed out since the last call, this rank's only."""
        taken, self._skipped = self._skipped, Counter()
        return [
            Skipped(source=source, reason=reason, count=count)
            for (source, reason), count in sorted(taken.items())
        ]

    def close(self) -> None:
        """Stop reading ahead and wait for the thread; safe to call twice."""
        self._closing.set()
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(0.05)

    def _check_bad(self, last: BadSample | None) -> None:
        if last is None or self._bad <= self._max_bad * max(self._reads, MIN_READS):
            return
        self._failed = DataError(
            f"data.max_bad_fraction: {self._bad} of {self._reads} samples could not be used, more "
            f"than {self._max_bad:g} allows (the last: {last}): mend the data or raise the limit"
        )
        raise self._failed

    def _produce(self) -> None:
        while not self._closing.is_set():
            read = _Read()
            try:
                self._read_batch(read)
            except BaseException as error:  # noqa: BLE001 - raised again in the consumer
                read.error = error
            while not self._closing.is_set():
                try:
                    self._queue.put(read, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if read.error is not None:
                return

    def _read_batch(self, read: _Read) -> None:
        samples = [self._read_sample(self._position + i, read) for i in range(self._share)]
        read.batch = collate(samples, self._tokenizer, self._image_processor, self._max_tokens)
        self._position += self._stride

    def _read_sample(self, position: int, read: _Read) -> Sample:
        name, first = self._stream.pick(position)
        source = self._sources[name]
        for step in range(len(source)):
            read.reads += 1
            try:
                return source[(first + step) % len(source)]
            except BadSample as bad:
                read.skipped[name, bad.reason] += 1
                read.last_bad = bad
        raise DataError(
            f"data.sources.{name}: none of its {len(source)} samples can be used "
            f"(the last: {read.last_bad}): check its pictures and captions"
        )
