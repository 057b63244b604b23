"""Writes checkpoints beside the training, so that a step waits for memory and not for a disk."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from jobs.checkpoint.folder import Checkpoint, save
from jobs.checkpoint.frozen import FrozenPart
from jobs.checkpoint.policy import Progress
from jobs.spec import JobSpec


class Writer:
    """One thread that writes one checkpoint at a time, so at most one copy waits in memory.

    An error of a write (a full disk) is raised by the next call of any method but `close`.
    """

    def __init__(self, folder: Path, spec: JobSpec, frozen: Mapping[str, FrozenPart]) -> None:
        self._folder, self._spec, self._frozen = folder, spec, frozen
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Checkpoint] | None = None

    def write(self, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
        """Begin to write. `tensors` must not be changed from now on; `wait` comes before."""
        assert self._writing is None, "one checkpoint at a time"
        self._writing = self._thread.submit(
            save, self._folder, self._spec, progress, tensors, self._frozen
        )

    def finished(self) -> Checkpoint | None:
        """The checkpoint that has become safe on the disk since the last call, if any."""
        return self.wait() if self._writing is not None and self._writing.done() else None

    def wait(self) -> Checkpoint | None:
        """The same, but a checkpoint that is being written is waited for."""
        writing, self._writing = self._writing, None
        return None if writing is None else writing.result()

    def close(self) -> None:
        """End the thread after what it is writing; without a word, since the job has ended."""
        self._thread.shutdown(wait=True)
