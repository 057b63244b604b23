"""What a sweep costs its controller.

python tests/benchmarks/bench_controller.py flat [--trials 10000] [--workers 1000]
    [--sampler X [--storage URL]] [--mlflow]
    time a trial and memory, thousand by thousand, on simulated workers
python tests/benchmarks/bench_controller.py peer [--trials 40]
    overhead a trial beside Ray Tune + OptunaSearch + ASHA: no-op jobs of five reports, two at
    a time, on one Ray; start-up of a job and the time from a decision to free resources
python tests/benchmarks/bench_controller.py outage [--seconds 60]
    what a sweep notices of a real tracking server that is killed and comes back
python tests/benchmarks/bench_controller.py stop [--trials 4]
    from the decision to free resources with the quickstart's real job, pruned and paused
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import simulated_cluster
from simulated_cluster import Cluster, Suggester, Tracker, sweep


def memory_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Milestones:
    """A row for every so many trials that have ended: ms a trial since the last row, MiB now.

    And microseconds an event of their jobs, since trials differ: those that are stopped say less.
    """

    def __init__(self, study, every: int, cluster: Cluster) -> None:
        self._study, self._every, self._cluster = study, every, cluster
        self._ended = self._events = 0
        self._at = time.perf_counter()
        self._cpu = time.process_time()

    def __getattr__(self, name: str):
        told = getattr(self._study, name)
        if name not in ("tell_complete", "tell_pruned", "tell_failed"):
            return told

        def tell(*args, **kwargs):
            told(*args, **kwargs)
            self._count()

        return tell

    def _count(self) -> None:
        self._ended += 1
        if self._ended % self._every == 0:
            now, cpu = time.perf_counter(), time.process_time()
            wall = 1e3 * (now - self._at) / self._every
            busy = 1e3 * (cpu - self._cpu) / self._every
            event = 1e6 * (cpu - self._cpu) / (self._cluster.told - self._events)
            row = f"{self._ended:>7} {wall:9.2f} {busy:9.2f} {event:9.0f} {memory_mib():8.1f}"
            print(row, flush=True)
            self._at, self._cpu, self._events = now, cpu, self._cluster.told


def flat(options) -> None:
    """Thousand by thousand."""
    from orchestrator.controller import Controller
    from orchestrator.trackers.mlflow_tracker import MlflowTracker
    from sweeps.study import Study

    spec = sweep(options.trials, sampler=options.sampler or "random", rule=options.rule)
    stored = spec.study.model_copy(update={"storage": options.storage})
    spec = spec.model_copy(update={"study": stored})

    def open_study(spec, folder):
        made = Study(spec, folder) if options.sampler else Suggester(spec)
        return Milestones(made, options.every, cluster)

    where = (options.storage or "SQLite").partition(":")[0]
    study = f"study {options.sampler} in {where}" if options.sampler else "study twin in memory"
    study += ", MLflow in SQLite" if options.mlflow else ""
    workers = f"{options.workers} simulated workers"
    print(f"{options.trials} trials on {workers}, rule {options.rule}, {study}")
    print("  ended   ms/trial  CPU ms/tr. us/event     MiB")
    cluster = Cluster(options.workers)
    if options.folder:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as folder:
        tracker = MlflowTracker() if options.mlflow else Tracker()
        controller = Controller(
            spec, Path(folder) / "study", cluster, tracker, open_study=open_study
        )
        view = controller.run()
        size = (Path(folder) / "study" / "events.jsonl").stat().st_size
    states = [trial.state for trial in view.trials.values()]
    print({str(state): states.count(state) for state in set(states)}, f"log {size / 2**20:.0f} MiB")


def no_op(spec, place) -> Iterator:
    """Five scores and nothing else; leaves when it is asked to."""
    from jobs.events import Finished, Started, Step, Stopped

    yield Started(ranks=1, device="cpu", trainable={})
    cluster = simulated_cluster.Cluster(1)
    for samples in range(0, 65, 16):
        yield Step(samples=samples, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)
        yield cluster._score(int(place.folder.name), samples, spec.optim.learning_rate)
        if place.stop_requested() and samples < 64:
            yield Stopped(samples=samples, reason=place.stop_requested())
            return
    yield Finished(samples=64, seconds=0.0)


def patient(spec, place) -> Iterator:
    """Runs until it is asked to leave."""
    from jobs.events import Started, Step, Stopped

    yield Started(ranks=1, device="cpu", trainable={})
    while not place.stop_requested():
        yield Step(samples=1, loss=1, learning_rate=1, grad_norm=1, samples_per_second=1)
        time.sleep(0.005)
    yield Stopped(samples=1, reason=place.stop_requested())


def ours_seconds(trials: int, folder: Path) -> float:
    """The sweep with Optuna's study on disk, the log and MLflow, as `mirsweep run` does it."""
    from orchestrator.controller import Controller
    from orchestrator.executors.ray_executor import RayExecutor
    from orchestrator.trackers.mlflow_tracker import MlflowTracker

    spec = sweep(trials, sampler="tpe", rule="successive-halving")
    resources = spec.resources.model_copy(update={"max_concurrent": 2})
    spec = spec.model_copy(update={"resources": resources})
    begin = time.perf_counter()
    executor = RayExecutor(runner=no_op)
    Controller(spec, folder / "study", executor, MlflowTracker(), patience_s=0.25).run()
    return time.perf_counter() - begin


def start_and_stop(folder: Path, times: int = 8) -> tuple[list[float], list[float]]:
    """Seconds to a job's first event, and from `stop` until its place is free, fresh processes."""
    from jobs.events import Started
    from orchestrator.executors.ray_executor import RayExecutor, ray
    from orchestrator.ports import Launch

    starts, stops = [], []
    executor = RayExecutor(runner=patient, spare_s=0.0)
    spec = sweep(1)
    for n in range(times):
        launch = Launch(
            trial=n, attempt=1, spec=spec.base, resources=spec.resources, folder=folder / f"{n:04d}"
        )
        total = ray.cluster_resources()["CPU"]
        begin = time.perf_counter()
        executor.start(launch)
        while not any(isinstance(said.event, Started) for said in executor.wait(10.0)):
            pass
        starts.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        executor.stop(n, "enough")
        while ray.available_resources().get("CPU", 0.0) < total:
            executor.wait(0.005)
        stops.append(time.perf_counter() - begin)
    executor.close()
    return starts, stops


def peer(options) -> None:
    """Side by side, in one run, on one Ray; the order changes with the rounds."""
    from tune_peer import tune_seconds

    from orchestrator.executors.ray_executor import ray

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=2, **quiet)
    ray.cloudpickle.register_pickle_by_value(simulated_cluster)
    ours, theirs = [], []
    for turn in range(options.rounds):
        with TemporaryDirectory(dir=options.folder) as folder:
            runs = [
                lambda at=Path(folder): ours.append(ours_seconds(options.trials, at)),
                lambda: theirs.append(tune_seconds(options.trials, 2)),
            ]
            for one in runs if turn % 2 == 0 else reversed(runs):
                one()
        print(f"ours {ours[-1]:.1f} s, Tune {theirs[-1]:.1f} s", flush=True)
    mine, peers = statistics.median(ours), statistics.median(theirs)
    print(f"{options.trials} trials: {mine / options.trials:.3f} s a trial against "
          f"{peers / options.trials:.3f} s: {peers / mine:.1f} times less")  # fmt: skip
    with TemporaryDirectory(dir=options.folder) as folder:
        starts, stops = start_and_stop(Path(folder))
    print(f"start of a fresh job: median {statistics.median(starts):.2f} s, most {max(starts):.2f}")
    print(f"decision to free: median {statistics.median(stops):.2f} s, most {max(stops):.2f}")


def outage(options) -> None:
    """A sweep beside a server that is away for a while."""
    from outage import measure

    measure(options.seconds)


def stop(options) -> None:
    """A real job that is told to leave."""
    from stop_times import measure

    measure(options.trials)


def main() -> None:
    """Run the named benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["flat", "peer", "outage", "stop"])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--every", type=int, default=1_000)
    parser.add_argument("--rule", default="median")
    parser.add_argument("--sampler", help="a real study; the twin in memory if not given")
    parser.add_argument("--storage", help="of the real study, e.g. 'memory:' or a server's URL")
    parser.add_argument("--mlflow", action="store_true", help="track in MLflow, in SQLite")
    parser.add_argument("--folder", help="where the study is written; a fast disk shows more")
    options = parser.parse_args()
    options.trials = options.trials or {"flat": 10_000, "stop": 4}.get(options.what, 40)
    {"flat": flat, "peer": peer, "outage": outage, "stop": stop}[options.what](options)


if __name__ == "__main__":
    main()
