"""A tracking server that is killed in the middle of a sweep: what training notices of it."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "orchestrator"))

from tracking_server import Paced, Server, Sweep, sweep_of, untold

PAUSE_S = 0.25
BEFORE, AFTER = 3, 4
"""Trials that end before the server is killed, and about how many after it is back."""


def measure(seconds: float) -> None:
    """Print what a sweep told and how long its loop took over an event, with and without it."""
    trials = BEFORE + AFTER + int(seconds / (13 * PAUSE_S))
    with TemporaryDirectory() as place:
        server = Server(Path(place))
        server.start()
        try:
            jobs = Paced(PAUSE_S)
            sweep = Sweep(sweep_of(trials, server.uri), Path(place) / "study", jobs)
            sweep.until(BEFORE)
            server.kill()
            begin, ended = len(jobs.gaps), sweep.ended
            server.back(seconds)
            end, meanwhile = len(jobs.gaps), sweep.ended - ended
            view = sweep.over()
            wrong = untold(view, server.uri)
        finally:
            server.kill()
    print(f"away for {server.away:.0f} s: {meanwhile} trials ended meanwhile, {trials} in all")
    for name, gaps in (("up", jobs.gaps[:begin] + jobs.gaps[end:]), ("away", jobs.gaps[begin:end])):
        print(f"server {name}: the loop took {1e3 * statistics.median(gaps):.0f} ms over an event, "
              f"{1e3 * max(gaps):.0f} ms at most ({len(gaps)} events)")  # fmt: skip
    print("told in the end: everything, once" if not wrong else f"wrong: {wrong}")
