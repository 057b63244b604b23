"""Files that others see whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DAY_S = 24 * 3600


@contextmanager
def written_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A name beside `path` to write to; it becomes `path` if the block succeeds, else vanishes.

    Every call has a name of its own, hidden and without the ending of `path`: any number of
    processes may write one path, and what a killed one leaves matches no pattern. durable: the
    bytes are on the disk before they replace `path`, so a machine that loses power has either.
    The file that a link leads to is replaced, with the rights that it has; what is no regular file
    (/dev/stdout, a pipe) is written to as it is.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield aside
        if path.exists():
            shutil.copymode(path, aside)
        if durable:
            sync(aside)
        aside.replace(path)
    finally:
        with suppress(OSError):  # moved, or never made
            aside.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove from `folder` what `written_whole` has left there if nothing was added for a day."""
    for left in folder.glob(f".*.{'[0-9a-f]' * 32}"):
        with suppress(OSError):  # another has removed it
            if time.time() - left.stat().st_mtime > _DAY_S:
                left.unlink()


def sync(path: Path) -> None:
    """Wait until what was written to a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
