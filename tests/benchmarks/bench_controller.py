"""What a sweep costs its controller.

    python tests/benchmarks/bench_controller.py flat [--trials 10000] [--workers 1000]
        time a trial and memory, thousand by thousand, on simulated workers
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from simulated_cluster import Cluster, Suggester, Tracker, sweep


def memory_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Milestones:
    """A row for every so many trials asked for: ms a trial since the last row, MiB now."""

    def __init__(self, study, every: int) -> None:
        self._study, self._every = study, every
        self._asked = 0
        self._at = time.perf_counter()
        self._cpu = time.process_time()

    def __getattr__(self, name: str):
        return getattr(self._study, name)

    def ask(self):
        trial = self._study.ask()
        self._asked += 1
        if self._asked % self._every == 0:
            now, cpu = time.perf_counter(), time.process_time()
            wall = 1e3 * (now - self._at) / self._every
            busy = 1e3 * (cpu - self._cpu) / self._every
            print(f"{self._asked:>7} {wall:9.2f} {busy:9.2f} {memory_mib():8.1f}", flush=True)
            self._at, self._cpu = now, cpu
        return trial


def flat(options) -> None:
    """Thousand by thousand."""
    from orchestrator.controller import Controller
    from sweeps.study import Study

    spec = sweep(options.trials, sampler=options.sampler or "random", rule=options.rule)

    def open_study(spec, folder):
        made = Study(spec, folder) if options.sampler else Suggester(spec)
        return Milestones(made, options.every)

    print(f"{options.trials} trials on {options.workers} simulated workers, rule {options.rule}, "
          f"{'study ' + options.sampler if options.sampler else 'study twin in memory'}")  # fmt: skip
    print("  asked   ms/trial  CPU ms/tr.     MiB")
    with TemporaryDirectory(dir=options.folder) as folder:
        controller = Controller(
            spec, Path(folder) / "study", Cluster(options.workers), Tracker(), open_study=open_study
        )
        view = controller.run()
        size = (Path(folder) / "study" / "events.jsonl").stat().st_size
    states = [trial.state for trial in view.trials.values()]
    print({str(state): states.count(state) for state in set(states)}, f"log {size / 2**20:.0f} MiB")


def main() -> None:
    """Run the named benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["flat"])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--every", type=int, default=1_000)
    parser.add_argument("--rule", default="median")
    parser.add_argument("--sampler", help="a real study in SQLite; the twin in memory if not given")
    parser.add_argument("--folder", help="where the study is written; a fast disk shows more")
    options = parser.parse_args()
    {"flat": flat}[options.what](options)


if __name__ == "__main__":
    main()
