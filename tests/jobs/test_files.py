"""A file is there whole or as it was, whatever happens to those who write it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from jobs.files import remove_abandoned, written_whole


@pytest.mark.parametrize("durable", [False, True])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, durable):
    path = tmp_path / "score.json"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), written_whole(path, durable=durable) as part:
        part.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["score.json"]
    with written_whole(path, durable=durable) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["score.json"]


def test_writers_of_one_path_do_not_meet(tmp_path):
    path = tmp_path / "score.json"
    with written_whole(path) as first:
        first.write_text("a long first half")
        with written_whole(path) as second:
            second.write_text("whole")
        assert path.read_text() == "whole"
    assert path.read_text() == "a long first half"


def test_what_a_killed_writer_leaves_is_not_taken_for_the_file(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from jobs.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "score.json"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    (left,) = tmp_path.iterdir()
    assert list(tmp_path.glob("*.json")) == []
    (tmp_path / ".score.json.mine").touch()
    for hours, stays in ((23, {left.name, ".score.json.mine"}), (25, {".score.json.mine"})):
        for entry in tmp_path.iterdir():
            os.utime(entry, times=(then := time.time() - hours * 3600, then))
        remove_abandoned(tmp_path)
        assert {entry.name for entry in tmp_path.iterdir()} == stays


def test_a_file_is_there_for_all_whom_the_folder_lets_in(tmp_path):
    path = tmp_path / "shared"
    with written_whole(path) as part:
        part.write_text("")
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_file_behind_a_link_is_replaced_and_keeps_its_rights(tmp_path):
    real, link = tmp_path / "store" / "best.yaml", tmp_path / "best.yaml"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with written_whole(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert (real.read_text(), stat.S_IMODE(real.stat().st_mode)) == ("new", 0o640)
    assert [entry.name for entry in real.parent.iterdir()] == ["best.yaml"]


def test_what_is_no_regular_file_is_written_to(tmp_path):
    """As `--output /dev/stdout | less`, which is a link to a pipe."""
    pipe, link = tmp_path / "pipe", tmp_path / "stdout"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link):
        with written_whole(path) as part:
            part.write_text("told")
        assert pipe.is_fifo() and link.is_symlink()
        assert os.read(reader, 9) == b"told"
    os.close(reader)
