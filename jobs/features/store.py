"""Features as files, one a picture, which many processes read and write at once.

A file is a checksum and the raw numbers. It is written under a name that starts with a dot and then
renamed, so nobody reads half of it; a file that a crash or a disk damaged does not match its length
or checksum and counts as absent.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from jobs.files import written_whole

_log = logging.getLogger(__name__)
_CHECKSUM = 4  # bytes
# Files that were begun this long ago, in seconds, belong to a process that is gone.
_STALE_S = 3600.0
# Other processes write too, so what lies there is counted again after this share of the limit.
_COUNT_EVERY = 64


class FeatureStore:
    """Tensors of one shape and type by name, below `folder / scope`.

    limit: bytes that all scopes of `folder` may take together. Above it nothing more is stored:
        training passes through all pictures again and again, so dropping old ones for new ones
        would keep none that is needed next. Processes that write at the same time may exceed it
        by 1/64 each.
    """

    def __init__(
        self, folder: Path, scope: str, shape: tuple[int, ...], dtype: torch.dtype, limit: int
    ) -> None:
        self._folder, self._home = folder, folder / scope
        self._shape, self._dtype, self._limit = shape, dtype, limit
        self._lock = threading.Lock()
        self._used: int | None = None
        self._written = 0
        self._closed = False

    def get(self, name: str) -> Tensor | None:
        """The stored tensor on the CPU, None where there is none or it is damaged."""
        try:
            held = bytearray(self._path(name).read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"cannot be read ({error}): features are computed anew")
            return None
        body = memoryview(held)[_CHECKSUM:]
        whole = len(held) == self.entry_bytes
        if not whole or zlib.crc32(body) != int.from_bytes(held[:_CHECKSUM], "little"):
            _log.warning("%s: damaged, computed anew", self._path(name))
            return None
        return torch.frombuffer(body, dtype=self._dtype).reshape(self._shape)

    def put(self, name: str, value: Tensor) -> bool:
        """Store a tensor, whole or not at all; False where the limit or the disk forbids it."""
        assert value.shape == self._shape and value.dtype == self._dtype, "one shape and type"
        if not self._admitted():
            return False
        body = value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as part:
                part.write_bytes(zlib.crc32(body).to_bytes(_CHECKSUM, "little") + body)
        except OSError as error:
            self._closed = True
            self._warn(f"cannot be written ({error}): nothing more is stored")
            return False
        return True

    def room_for(self, entries: int) -> bool:
        """Whether so many entries alone stay below the limit."""
        return entries * self.entry_bytes <= self._limit

    @property
    def entry_bytes(self) -> int:
        """Size of one entry on disk."""
        return _CHECKSUM + self._dtype.itemsize * torch.Size(self._shape).numel()

    def _path(self, name: str) -> Path:
        return self._home / name[:2] / name

    def _admitted(self) -> bool:
        """Take room for one entry out of what the limit leaves."""
        with self._lock:
            if self._closed:
                return False
            if self._used is None or self._written > self._limit // _COUNT_EVERY:
                self._used, self._written = _bytes_below(self._folder), 0
            if self._used + self.entry_bytes > self._limit:
                self._closed = True
                self._warn(
                    f"holds {self._used:,} of at most {self._limit:,} bytes: nothing more is "
                    "stored; raise model.feature_cache_gib, or remove the folder"
                )
                return False
            self._used += self.entry_bytes
            self._written += self.entry_bytes
            return True

    def _warn(self, text: str) -> None:
        _log.warning("%s: %s", self._folder, text)


def _bytes_below(folder: Path) -> int:
    """Size of all files, without what processes that are gone left unfinished."""
    total, now = 0, time.time()
    for entry in _files(folder):
        try:
            found = entry.stat()
            if entry.name.startswith(".") and now - found.st_mtime > _STALE_S:
                Path(entry.path).unlink()
            else:
                total += found.st_size
        except FileNotFoundError:  # renamed or removed by another process meanwhile
            continue
    return total


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield entry
