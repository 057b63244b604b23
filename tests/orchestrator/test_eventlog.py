"""The log: what is written is read, a torn end is dropped, any other damage is named."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mir.errors import ClusterError
from orchestrator.eventlog import EventLog, Record, decode, encode, read_records
from orchestrator.mend import repair_log


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path, clock=lambda: 12.5) as log:
        for n in range(5):
            log.append("note", {"text": f"number {n}", "umlaut": "ä"}, urgent=n % 2 == 0)
    return tmp_path / "events.jsonl"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.text(min_size=1), st.integers(0, 9))
def test_a_record_survives_the_line(data, kind, n):
    record = Record(n=n, time=1.5, kind=kind, data=data)
    line = encode(record)
    assert line.count(b"\n") == 1
    assert decode(line) == record


def test_infinite_and_undefined_numbers_survive(tmp_path):
    record = Record(n=0, time=0.0, kind="x", data={"a": math.inf, "b": math.nan})
    data = decode(encode(record)).data
    assert data["a"] == math.inf
    assert math.isnan(data["b"])


def test_records_are_numbered_and_go_on_where_they_were(log):
    replayed = []
    with EventLog(log.parent, replay=replayed.append) as again:
        assert again.append("note", {}).n == 5
    assert [record.n for record in replayed] == [0, 1, 2, 3, 4]
    assert [record.n for record in read_records(log)] == [0, 1, 2, 3, 4, 5]
    assert replayed[1].data == {"text": "number 1", "umlaut": "ä"}
    assert replayed[1].time == 12.5


@pytest.mark.parametrize("lost", [1, 2, 20])
def test_a_torn_last_record_is_dropped_with_a_warning(log, caplog, lost):
    log.write_bytes(log.read_bytes()[:-lost])
    assert [record.n for record in read_records(log)] == [0, 1, 2, 3]
    with EventLog(log.parent) as again:
        assert "dropped a torn last record" in caplog.text
        assert again.append("note", {}).n == 4
    assert [record.n for record in read_records(log)] == [0, 1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_log_cut_anywhere_opens_with_all_whole_records(data):
    with TemporaryDirectory() as name:
        folder = Path(name)
        with EventLog(folder, clock=lambda: 1.0) as log:
            for n in range(3):
                log.append("note", {"text": "x" * n}, urgent=False)
        whole = log.path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        log.path.write_bytes(whole[:cut])
        with EventLog(folder) as again:
            assert again.append("note", {}).n == whole[:cut].count(b"\n")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_changed_byte_before_the_last_record_is_named(data):
    with TemporaryDirectory() as name:
        with EventLog(Path(name), clock=lambda: 1.0) as log:
            for n in range(3):
                log.append("note", {"text": "x" * n}, urgent=False)
        content = bytearray(log.path.read_bytes())
        last = content.rindex(b"\n", 0, -1) + 1
        at = data.draw(st.integers(0, last - 1))
        content[at] ^= data.draw(st.sampled_from([1, 2, 16, 64]))
        log.path.write_bytes(content)
        with pytest.raises(ClusterError, match=r"record \d \(line \d\) is damaged"):
            list(read_records(log.path))


def test_a_lost_and_a_doubled_line_are_named(log):
    lines = log.read_bytes().splitlines(keepends=True)
    for damaged, number in ((lines[:1] + lines[2:], 1), ([lines[0], *lines], 1)):
        log.write_bytes(b"".join(damaged))
        with pytest.raises(ClusterError, match=f"record {number} .*it carries number"):
            EventLog(log.parent)


def test_a_later_mirsweeps_log_is_not_called_damaged(tmp_path, monkeypatch):
    with monkeypatch.context() as later, EventLog(tmp_path) as log:
        log.append("note", {})
        later.setattr("orchestrator.eventlog.VERSION", 2)
        log.append("note", {})
    before = log.path.read_bytes()
    for read in (lambda: list(read_records(log.path)), lambda: repair_log(tmp_path)):
        with pytest.raises(ClusterError) as error:
            read()
        assert str(error.value) == (
            f"{log.path}: a later mirsweep wrote it (log version 2, this one reads version 1). "
            "Upgrade mirsweep here"
        )
    assert log.path.read_bytes() == before


def test_a_new_log_is_still_in_its_folder_after_a_power_cut(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd)))
    folder = tmp_path.stat().st_ino
    with EventLog(tmp_path):
        assert folder in synced
    synced.clear()
    with EventLog(tmp_path):
        assert folder not in synced


def test_a_full_disk_leaves_whole_records_and_says_so(tmp_path, monkeypatch):
    log = EventLog(tmp_path)
    log.append("note", {"text": "before"})

    class Full:
        """Takes half a record."""

        def __init__(self, file):
            self._file = file

        def write(self, data):
            if len(data) < 40:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(bytes(data)[: len(data) // 2])

        def __getattr__(self, name):
            return getattr(self._file, name)

    file = log._file
    monkeypatch.setattr(log, "_file", Full(file))
    with pytest.raises(ClusterError, match="No space left on device"):
        log.append("note", {"text": "never"})
    monkeypatch.setattr(log, "_file", file)
    log.append("note", {"text": "after"})
    log.close()
    log.close()
    assert [r.data["text"] for r in read_records(log.path)] == ["before", "after"]
