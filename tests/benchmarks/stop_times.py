"""From the decision to free resources with the quickstart's real job: DeepSpeed, one rank, CPU.

One trial runs to its end, the next ones are so bad that they are pruned (nothing is saved), and
the last is paused by hand again and again (it saves a checkpoint).
"""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.control import Request, post
from orchestrator.controller import Controller
from orchestrator.eventlog import read_records
from orchestrator.state import SweepView, TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.recipe import load_recipe
from sweeps.spec import BudgetSpec, GuardSpec, StopSpec, SweepSpec

RECIPE = Path(__file__).parents[2] / "sweeps" / "recipes" / "quickstart.yaml"
GOOD, USELESS = 1e-2, 1e-7


def sweep(times: int) -> SweepSpec:
    """Two that run to their end, and so many useless ones between them."""
    spec = load_recipe(RECIPE)
    optim = spec.base.optim.model_copy(update={"samples": 1024})
    score = spec.base.score.model_copy(update={"every_samples": 256})
    rates = [GOOD, *[USELESS * (n + 1) for n in range(times)], GOOD / 2]
    study = spec.study.model_copy(
        update={
            "objective": "validation-loss",
            "guard": GuardSpec(constraints={"loss-below-start": None}),
            "start": tuple({"learning_rate": rate} for rate in rates),
        }
    )
    update = {
        "base": spec.base.model_copy(update={"optim": optim, "score": score}),
        "space": {"optim": {"learning_rate": {"low": 1e-8, "high": 1.0, "log": True}}},
        "study": study,
        "budget": BudgetSpec(trials=len(rates)),
        "stop": StopSpec(min_trials=1, min_samples=256, confidence=0.0, infeasible_patience=0),
        "resources": spec.resources.model_copy(update={"max_concurrent": 1}),
    }
    return spec.model_copy(update=update)


class Watch:
    """When each placement group was gone, in order; looks every few milliseconds."""

    def __init__(self) -> None:
        self.gone: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        from ray.util.placement_group import placement_group_table

        while not self._over.wait(0.01):
            for name, group in placement_group_table().items():
                if group["state"] == "REMOVED":
                    self.gone.setdefault(name, time.time())

    def close(self) -> None:
        """End it."""
        self._over.set()
        self._thread.join()


class Hand:
    """Pauses the last trial whenever it has trained a while, and lets it go on when it is saved."""

    def __init__(self, folder: Path, last: int, times: int) -> None:
        self._folder, self._last, self._left = folder, last, times
        self._paused = False
        self._from = 0

    def __call__(self, view: SweepView) -> None:
        trial = view.trials.get(self._last)
        if trial is None:
            return
        running = trial.state is TrialState.RUNNING and trial.samples > self._from
        if running and not self._paused and self._left:
            self._left -= 1
            self._paused, self._from = True, trial.samples
            post(self._folder, Request(verb="pause"))
        elif self._paused and trial.state is TrialState.PAUSED:
            self._paused = False
            post(self._folder, Request(verb="resume"))


def measure(times: int) -> None:
    """Print seconds from the decision's record in the log until its placement group is gone."""
    from orchestrator.executors.ray_executor import RayExecutor, ray

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=2, **quiet)
    with TemporaryDirectory() as place:
        folder, watch = Path(place) / "study", Watch()
        executor = RayExecutor(spare_s=0.0)
        hand = Hand(folder, times + 1, times)
        Controller(sweep(times), folder, executor, MemoryTracker(), on_change=hand).run()
        watch.close()
        records = list(read_records(folder / "events.jsonl"))
    scores = [r.data["event"]["seconds"] for r in records if "seconds" in r.data.get("event", {})
              and r.data["event"]["event"] == "scored"]  # fmt: skip
    print(f"a score takes {statistics.median(scores):.2f} s")
    taken: dict[str, list[float]] = {"pruned": [], "paused": []}
    for record in records:
        if record.kind in ("judged", "held"):
            kind = "pruned" if record.kind == "judged" else "paused"
            free = min(at for at in watch.gone.values() if at >= record.time)
            left = next(r for r in records[record.n :] if r.kind in ("ended", "requeued"))
            taken[kind].append(free - record.time)
            print(f"{kind}: left after {left.time - record.time:.2f} s, free {taken[kind][-1]:.2f}")
    for kind, seconds in taken.items():
        print(f"{kind}: decision to free: median {statistics.median(seconds):.2f} s, "
              f"most {max(seconds):.2f} ({len(seconds)})")  # fmt: skip
    ray.shutdown()
