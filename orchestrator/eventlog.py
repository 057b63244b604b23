"""The sweep's own truth: one append-only file, one checksummed JSON record a line.

A line is `{"crc":"<8 hex digits>",<rest of the record>` where the checksum is the CRC-32 of
`{<rest of the record>`. Records are numbered from 0 without a gap, so a lost, doubled or altered
line is noticed. Everything else (Optuna's study, the MLflow runs) is a projection of this file.
"""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from jobs.files import sync
from mir.errors import ClusterError

LOG_NAME = "events.jsonl"
VERSION = 1
_PREFIX = '{"crc":"'
_BODY_AT = len(_PREFIX) + 8 + 2  # eight digits, a quote and a comma

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One thing that happened. n: position in the log. time: seconds since the epoch.

    at: where its line begins in the file, in bytes.
    """

    n: int
    time: float
    kind: str
    data: dict[str, Any]
    at: int = field(default=0, compare=False)


def encode(record: Record) -> bytes:
    """The record as one line, newline included."""
    fields = {
        "v": VERSION,
        "n": record.n,
        "time": round(record.time, 3),
        "kind": record.kind,
        "data": record.data,
    }
    body = json.dumps(fields, separators=(",", ":"), allow_nan=True)
    crc = zlib.crc32(body.encode())
    return f'{_PREFIX}{crc:08x}",{body[1:]}\n'.encode()


def decode(line: bytes, at: int = 0, path: Path | str = LOG_NAME) -> Record:
    """Restore a record; raises ValueError saying what is wrong with the line.

    path: of the log. Raises ClusterError where a later mirsweep wrote the line: it is whole.
    """
    if not line.startswith(_PREFIX.encode()) or line[_BODY_AT - 2 : _BODY_AT] != b'",':
        raise ValueError("it does not begin with a checksum")
    body = b"{" + line[_BODY_AT:].rstrip(b"\n")
    found = line[len(_PREFIX) : len(_PREFIX) + 8]
    if found != f"{zlib.crc32(body):08x}".encode():
        raise ValueError("its checksum does not match its content")
    fields = json.loads(body)
    if fields["v"] != VERSION:
        raise ClusterError(
            f"{path}: a later mirsweep wrote it (log version {fields['v']}, this one reads version "
            f"{VERSION}). Upgrade mirsweep here"
        )
    return Record(
        n=fields["n"], time=fields["time"], kind=fields["kind"], data=fields["data"], at=at
    )


def read_records(path: Path) -> Iterator[Record]:
    """All whole records in order; a torn last line is left out (its writer died or still writes).

    Raises ClusterError that names the first damaged record, or where a later mirsweep wrote it.
    """
    for record, _ in read_from(path):
        yield record


def records_at(path: Path, offsets: Iterable[int]) -> Iterator[Record]:
    """The records that begin at these places, as `Record.at` has them."""
    with path.open("rb") as file:
        for at in offsets:
            file.seek(at)
            yield decode(file.readline(), at, path)


def read_from(path: Path, offset: int = 0, expected: int = 0) -> Iterator[tuple[Record, int]]:
    """Whole records with the file offset after each; a write that was cut short has no newline.

    offset, expected: where a record begins, and its number. Raises as `read_records`.
    """
    end = offset
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            begin, end = end, end + len(line)
            try:
                record = decode(line, begin, path)
                if record.n != expected:
                    raise ValueError(f"it carries number {record.n}")
            except ValueError as error:
                raise ClusterError(
                    f"{path}: record {expected} (line {expected + 1}) is damaged: {error}. "
                    "`mirsweep repair` mends the log and says what is lost"
                ) from None
            expected += 1
            yield record, end


class EventLog:
    """The single writer's end. Records of transitions are on disk when `append` returns."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.time,
        replay: Callable[[Record], None] | None = None,
    ) -> None:
        """Open or create the log in `folder` and hand its records to `replay`.

        A torn last record is dropped with a warning. Raises as `read_records`.
        """
        self.path = folder / LOG_NAME
        self._clock = clock
        self._size = self._next = 0
        made = not self.path.exists()
        if not made:
            for record, end in read_from(self.path):
                self._next, self._size = record.n + 1, end
                if replay is not None:
                    replay(record)
        self._file = self.path.open("ab", buffering=0)
        if made:
            sync(folder)
        torn = self.path.stat().st_size - self._size
        if torn:
            logger.warning(
                "%s: dropped a torn last record (%d bytes): its writer died while writing",
                self.path,
                torn,
            )
            self._file.truncate(self._size)
        self._synced = time.monotonic()

    def append(self, kind: str, data: dict[str, Any], *, urgent: bool = True) -> Record:
        """Write one record. Urgent ones are synced at once, others at least once a second.

        Raises ClusterError where the disk does not take it; the log then ends before the record.
        """
        record = Record(n=self._next, time=self._clock(), kind=kind, data=data)
        line = encode(record)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            if urgent or time.monotonic() - self._synced > 1.0:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            os.truncate(self.path, self._size)
            raise ClusterError(
                f"{self.path}: cannot be written ({error.strerror}). "
                "Free some space, then run the same command again: nothing is lost"
            ) from error
        begin, self._size = self._size, self._size + len(line)
        self._next += 1
        # What is returned is what a reader of the file would get, so that a view folded while
        # writing equals a view folded later.
        return decode(line, begin)

    def close(self) -> None:
        """Sync and close; safe to call twice."""
        if self._file.closed:
            return
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
