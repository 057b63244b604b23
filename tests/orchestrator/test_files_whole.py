"""What people and later commands read is never half a file."""

from __future__ import annotations

import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
from finished_study import WORLD
from sweep_views import make_view

from jobs.events import Evaluated
from orchestrator.contact_sheet import write_sheet
from orchestrator.control import Request, post
from orchestrator.correlate.choose import Candidate
from orchestrator.correlate.results import Results
from orchestrator.data_facts import DataFacts, JobFacts
from orchestrator.replay.table import save_table, table_of
from orchestrator.report.pngs import write_pngs
from orchestrator.report.write import write_report
from orchestrator.views.best import write_best
from orchestrator.views.standing import ranked
from sweeps.recipe import load_downstream

JOB = JobFacts(where="", reads={}, max_bad_fraction=0.1)
FACTS = DataFacts(
    unit="words", max_caption_tokens=64, max_bad_fraction=0.1, sources=(), jobs=(JOB,)
)


@contextmanager
def disk_full_after(size: int):
    """Within: this process writes no byte of a file after so many, as where a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def keep_result(folder: Path):
    results = Results(folder, load_downstream(WORLD))
    results.folder.mkdir(parents=True)
    candidate = Candidate(trial=ranked(make_view())[0], checkpoint=folder / "samples-8")
    results.put(candidate, Evaluated(samples=8, values={}, errors={}), keep=True)


WRITERS = {
    "best.yaml": lambda folder: write_best(make_view(), folder),
    "page": lambda folder: write_report(make_view(), folder),
    "pictures": lambda folder: write_pngs(make_view(), folder),
    "curves": lambda folder: save_table(table_of(make_view()), folder / "curves.json"),
    "data": lambda folder: write_sheet(folder / "data.html", "demo", FACTS, {}),
    "request": lambda folder: post(folder, Request(verb="stop")),
    "recipe": lambda folder: Results(folder, load_downstream(WORLD)).open(),
    "result": keep_result,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_full_disk_leaves_no_half_of_a_file(write, tmp_path):
    fine, full = tmp_path / "fine", tmp_path / "full"
    fine.mkdir()
    full.mkdir()
    write(fine)
    assert files(fine)
    with pytest.raises(OSError, match="File too large"), disk_full_after(10):
        write(full)
    assert files(full) == []


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
