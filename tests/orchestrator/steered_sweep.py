"""A sweep that people steer while it runs."""

from small_world import FakeJobs, FakeStudy, make_sweep

from orchestrator.control import post
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import StopSpec


class Asked(FakeJobs):
    """Jobs during which a person asks for something: asks[trial] as it begins."""

    def __init__(self, folder, asks, **fields):
        super().__init__(**fields)
        self.folder, self.asks = folder, asks

    def __call__(self, spec, place):
        for request in self.asks.pop(int(place.folder.name), ()):
            post(self.folder, request)
        return super().__call__(spec, place)


def run(folder, asks, *, trials=4, study=None, **fields):
    spec = make_sweep(trials, stop=StopSpec(rule="none", infeasible_patience=0))
    jobs = Asked(folder, asks, **fields)
    study = study or FakeStudy(spec)
    return sitting(folder, jobs, study), jobs, study


def sitting(folder, jobs, study):
    """One controller on a sweep without rules."""
    spec = study.spec.model_copy(update={"stop": StopSpec(rule="none", infeasible_patience=0)})
    return Controller(
        spec, folder, InlineExecutor(jobs), MemoryTracker(), open_study=lambda *_: study
    ).run()


def states(view):
    return [trial.state.value for _, trial in sorted(view.trials.items())]
