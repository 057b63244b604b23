"""The loop on jobs that take microseconds: what it starts, stops, tells and refuses."""

from __future__ import annotations

import os
import signal

import pytest
from small_world import SAMPLES, FakeJobs, FakeStudy, lost, make_sweep

from jobs.events import Failed, Started, Step, Stopped
from mir.errors import ClusterError, ConfigError, DataError, MirsweepError
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.lease import lease
from orchestrator.state import TrialState
from orchestrator.trackers.memory import MemoryTracker
from sweeps.decision import Verdict
from sweeps.spec import ResourceSpec, StopSpec
from sweeps.study import RefusedError


class Bench:
    """A controller with all its twins at hand."""

    def __init__(self, folder, spec=None, *, slots=1, failures=None, nodes=((4.0, 0.0),)):
        self.spec = spec or make_sweep()
        self.folder = folder / "study"
        self.jobs = FakeJobs(failures or {})
        self.study = FakeStudy(self.spec)
        self.tracker = MemoryTracker()
        self.slots, self.nodes = slots, nodes
        self.now = 1000.0
        self.views = []

    def clock(self):
        self.now += 0.01
        return self.now

    def controller(self, spec=None):
        return Controller(
            spec or self.spec,
            self.folder,
            InlineExecutor(self.jobs, slots=self.slots, nodes=self.nodes),
            self.tracker,
            self.views.append,
            open_study=lambda spec, folder: self.study,
            clock=self.clock,
        )

    def run(self, spec=None):
        return self.controller(spec).run()


def test_a_sweep_ends_with_every_trial_in_one_final_state(tmp_path):
    bench = Bench(tmp_path)
    view = bench.run()
    assert sorted(view.trials) == list(range(6))
    assert all(trial.state.final for trial in view.trials.values())
    assert view.ended is not None
    assert bench.views[-1] == view == load_view(bench.folder)
    names = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED"}
    assert bench.study.states() == {n: names[t.state] for n, t in view.trials.items()}
    assert {n: t.state for n, t in bench.tracker.trials.items()} == {
        n: t.state for n, t in view.trials.items()
    }


def test_the_objective_told_is_the_final_mir(tmp_path):
    bench = Bench(tmp_path, make_sweep(2, stop=StopSpec(rule="none")))
    view = bench.run()
    for number, trial in view.trials.items():
        assert trial.scores[-1].samples == SAMPLES
        assert bench.study.told[number] == ("COMPLETE", trial.mir)
        assert trial.objective == trial.mir
        assert len(bench.study.reports[number]) == 5


def test_one_view_that_took_for_ever_does_not_silence_the_rest_of_the_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.screen.SHOW_S", 0.0)
    monkeypatch.setattr("orchestrator.screen.SHOW_SHARE", 1e-12)  # as if each had taken days
    monkeypatch.setattr("orchestrator.screen.SHOW_MAX_S", 0.0)
    bench = Bench(tmp_path, make_sweep(2))
    bench.run()
    assert len(bench.views) > 10


def test_bad_trials_are_stopped_early_and_say_why(tmp_path):
    bench = Bench(tmp_path, make_sweep(12))
    view = bench.run()
    pruned = [t for t in view.trials.values() if t.state is TrialState.PRUNED]
    assert pruned
    assert bench.jobs.dismissed == {trial.number for trial in pruned}  # these save nothing
    for trial in pruned:
        assert trial.samples < SAMPLES
        assert trial.verdict is Verdict.PRUNE
        assert "against" in trial.reason == trial.verdict_reason
        assert bench.tracker.trials[trial.number].reason == trial.reason


@pytest.mark.parametrize("limit", [None, 2])
def test_jobs_run_at_once_up_to_the_slots_and_the_limit(tmp_path, limit):
    resources = ResourceSpec(workers=1, max_concurrent=limit)
    bench = Bench(tmp_path, make_sweep(resources=resources), slots=3)
    bench.run()
    assert bench.jobs.most == min(3, limit or 3)


def test_capacity_limits_the_jobs_that_run_at_once(tmp_path):
    resources = ResourceSpec(workers=2, cpus_per_worker=1)
    bench = Bench(tmp_path, make_sweep(resources=resources), slots=9, nodes=((3.0, 0), (3.0, 0)))
    bench.run()
    assert bench.jobs.most == 3


def test_a_job_that_can_never_fit_is_refused_before_anything_is_made(tmp_path):
    bench = Bench(
        tmp_path,
        make_sweep(resources=ResourceSpec(gpus_per_worker=8)),
        nodes=((8.0, 4.0), (8.0, 2.0)),
    )
    with pytest.raises(ConfigError, match="needs 8 GPUs on one node, largest node has 4"):
        bench.run()
    assert not bench.folder.exists()


def test_an_unreachable_tracker_leaves_nothing_behind(tmp_path):
    bench = Bench(tmp_path)

    def refuse(spec, folder):
        raise ClusterError("http://nowhere: the tracking server does not answer")

    bench.tracker.open_sweep = refuse
    with pytest.raises(ClusterError, match="does not answer"):
        bench.run()
    assert not bench.folder.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be made"):
        Bench(tmp_path).run()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "study").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        Bench(tmp_path).run()


def test_a_lost_worker_is_restarted_from_its_checkpoint(tmp_path):
    bench = Bench(tmp_path, make_sweep(2, stop=StopSpec(rule="none")), failures={1: [lost()]})
    trial = bench.run().trials[1]
    assert trial.state is TrialState.COMPLETE
    assert (trial.attempt, trial.restarts) == (2, 1)
    assert bench.jobs.trained[1] < 2 * SAMPLES
    samples = [scored.samples for scored in trial.scores]
    assert samples == sorted(set(samples))
    assert bench.tracker.trials[1].starts == 2


def test_restarts_are_limited(tmp_path):
    spec = make_sweep(1, resources=ResourceSpec(max_restarts=2))
    bench = Bench(tmp_path, spec, failures={0: [lost(), lost(), lost()]})
    trial = bench.run().trials[0]
    assert trial.state is TrialState.FAILED
    assert bench.jobs.ran[0] == 3
    assert "gave up after 2 restarts" in trial.reason
    assert bench.study.told[0] == ("FAIL", None)


def test_a_trial_whose_training_loss_explodes_between_scores_is_stopped(tmp_path):
    stop = StopSpec(rules=("divergence",), min_samples=8, infeasible_patience=0)
    bench = Bench(tmp_path, make_sweep(1, stop=stop))

    def exploding(spec, place):
        for event in FakeJobs()(spec, place):
            yield event
            if isinstance(event, Started):
                for i in range(1, 30):
                    step = Step(samples=i, loss=1.0 if i < 20 else 9.0, learning_rate=1,
                                grad_norm=1, samples_per_second=1)  # fmt: skip
                    yield step
                    if place.stop_requested():
                        yield Stopped(samples=i, reason=place.stop_requested())
                        return

    bench.jobs = exploding
    trial = bench.run().trials[0]
    assert trial.state is TrialState.PRUNED
    assert trial.reason.startswith("diverged: training loss 3.00 over 8 steps, above 1.00")
    assert trial.samples < SAMPLES


def test_a_diverged_trial_fails_at_once(tmp_path):
    failure = Failed(kind="diverged", reason="loss is NaN at step 3")
    bench = Bench(tmp_path, make_sweep(2), failures={0: [failure]})
    view = bench.run()
    assert view.trials[0].state is TrialState.FAILED
    assert view.trials[0].reason == "diverged: loss is NaN at step 3"
    assert bench.jobs.ran[0] == 1


def test_out_of_memory_halves_the_micro_batch_and_later_trials_remember(tmp_path):
    failure = Failed(kind="out-of-memory", reason="CUDA out of memory")
    seen = []
    bench = Bench(tmp_path, make_sweep(2, stop=StopSpec(rule="none")), failures={0: [failure]})
    inner = bench.jobs

    def watch(spec, place):
        seen.append((int(place.folder.name), spec.deepspeed.micro_batch))
        return inner(spec, place)

    bench.jobs = watch
    view = bench.run()
    assert seen == [(0, None), (0, 4), (1, 4)]
    assert view.trials[0].state is TrialState.COMPLETE
    assert view.trials[0].restarts == 0
    assert view.trials[0].job.deepspeed.micro_batch == 4


def test_a_preempted_trial_runs_again_and_that_does_not_count(tmp_path):
    failure = Failed(kind="preempted", reason="the node is taken back")
    spec = make_sweep(1, resources=ResourceSpec(max_restarts=0))
    trial = Bench(tmp_path, spec, failures={0: [failure] * 3}).run().trials[0]
    assert trial.state is TrialState.COMPLETE
    assert (trial.attempt, trial.restarts) == (4, 0)


@pytest.mark.parametrize(
    ("kind", "error"), [("bad-configuration", ConfigError), ("bad-data", DataError)]
)
def test_three_alike_failures_in_a_row_stop_the_sweep(tmp_path, kind, error):
    failure = Failed(kind=kind, reason="data/a.json: no such file")
    bench = Bench(tmp_path, make_sweep(9), failures={n: [failure] for n in range(9)})
    with pytest.raises(error, match=r"3 trials in a row .* data/a.json: no such file"):
        bench.run()
    view = load_view(bench.folder)
    assert len(view.trials) == 3
    assert view.ended is None
    assert "in a row" in view.note


def test_failures_that_are_not_in_a_row_do_not_stop_the_sweep(tmp_path):
    failure = Failed(kind="bad-data", reason="x")
    bench = Bench(tmp_path, make_sweep(7), failures={n: [failure] for n in (0, 1, 3, 4, 6)})
    assert len(bench.run().trials) == 7


def test_a_full_disk_pauses_the_sweep_and_the_same_command_goes_on(tmp_path):
    failure = Failed(kind="disk-full", reason="no space left on device")
    bench = Bench(tmp_path, failures={1: [failure]}, slots=2)
    with pytest.raises(ClusterError, match="free some space"):
        bench.run()
    assert load_view(bench.folder).trials[1].state is TrialState.PAUSED
    assert all(t.state.final for t in bench.run().trials.values())


def test_a_point_that_is_no_valid_job_is_a_failed_trial(tmp_path):
    bench = Bench(tmp_path, make_sweep(3))
    ask = bench.study.ask

    def sometimes(number, given):
        trial = ask(number, given)
        if number == 1:
            bench.study.tell_failed(1, "no")
            raise RefusedError(1, trial.raw, "optim.global_batch: 7 does not divide")
        return trial

    bench.study.ask = sometimes
    view = bench.run()
    assert view.trials[1].state is TrialState.FAILED
    assert "7 does not divide" in view.trials[1].reason
    assert sum(t.state is TrialState.FAILED for t in view.trials.values()) == 1


def test_the_time_budget_ends_the_sweep_and_what_runs(tmp_path):
    bench = Bench(tmp_path, make_sweep(50, hours=1 / 3600))
    view = bench.run()
    assert view.ended is not None
    assert 0 < len(view.trials) < 50
    last = view.trials[max(view.trials)]
    assert last.state is TrialState.PAUSED
    assert "budget" in last.reason
    assert bench.run().trials == view.trials


def test_an_interrupt_saves_the_jobs_and_the_same_command_goes_on(tmp_path):
    bench = Bench(tmp_path, make_sweep(4, stop=StopSpec(rule="none")), slots=2)
    inner, handlers = bench.jobs, signal.getsignal(signal.SIGINT)

    def interrupting(spec, place):
        for event in inner(spec, place):
            yield event
            if place.folder.name == "0001" and getattr(event, "samples", 0) == 24:
                signal.raise_signal(signal.SIGINT)

    bench.jobs = interrupting
    view = bench.run()
    assert view.ended is None
    assert "SIGINT" in view.note
    assert {t.state for t in view.trials.values()} == {TrialState.PAUSED}
    assert signal.getsignal(signal.SIGINT) is handlers
    bench.jobs = inner
    again = bench.run()
    assert {t.state for t in again.trials.values()} == {TrialState.COMPLETE}
    # Nothing was trained twice: the checkpoints of the soft stop were resumed.
    assert set(inner.trained.values()) == {SAMPLES}


def test_a_second_controller_is_refused_and_told_who_holds_the_study(tmp_path):
    bench = Bench(tmp_path)
    bench.folder.mkdir()
    with lease(bench.folder), pytest.raises(ClusterError, match=f"process {os.getpid()}"):
        bench.run()
    assert bench.run().ended is not None


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    bench = Bench(tmp_path)
    bench.run()
    with pytest.raises(ConfigError, match=r"study\.seed: 0 became 1"):
        bench.run(make_sweep(seed=1))


def test_a_larger_budget_extends_a_finished_sweep(tmp_path):
    bench = Bench(tmp_path)
    before = bench.run()
    after = bench.run(make_sweep(8))
    assert len(after.trials) == 8
    assert {n: after.trials[n] for n in before.trials} == before.trials


def test_events_of_superseded_attempts_and_ended_trials_are_not_heard(tmp_path):
    bench = Bench(tmp_path, make_sweep(2), failures={0: [lost()]})
    controller = bench.controller()
    executor = controller._executor
    inner, said = executor.wait, []

    def doubled(timeout):
        events = inner(timeout)
        said.extend(events)
        return [*events, *events[:1], *said[:1]]

    executor.wait = doubled
    view = controller.run()
    assert {t.state for t in view.trials.values()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert bench.study.tellings == {0: 1, 1: 1}


def test_infeasible_scores_are_not_reported_and_never_a_plain_success(tmp_path):
    bench = Bench(tmp_path, make_sweep(1, stop=StopSpec(rule="none", infeasible_patience=0)))
    inner = bench.jobs

    def collapsed(spec, place):
        for event in inner(spec, place):
            if event.event == "scored" and event.samples:
                guard = event.guard.model_copy(update={"validation_loss": 9.0})
                event = event.model_copy(update={"guard": guard})
            yield event

    bench.jobs = collapsed
    trial = bench.run().trials[0]
    assert trial.state is TrialState.COMPLETE
    assert trial.feasible is False
    assert "not below its start" in trial.reason
    assert trial.violations["loss-below-start"] > 0
    assert list(bench.study.reports[0]) == [0]


def test_an_installation_that_is_broken_on_every_node_stops_the_sweep(tmp_path):
    class Broken(InlineExecutor):
        starts = 0

        def start(self, launch):
            self.starts += 1
            kind = "error" if launch.last else "worker-lost"  # as the Ray executor says it
            bench.jobs.failures[launch.trial] = [Failed(kind=kind, reason="could not begin")]
            super().start(launch)

    bench = Bench(tmp_path, make_sweep(resources=ResourceSpec(max_restarts=2)))
    executor = Broken(bench.jobs)
    with pytest.raises(MirsweepError, match="3 trials in a row failed with error"):
        Controller(
            bench.spec, bench.folder, executor, bench.tracker, open_study=lambda *_: bench.study
        ).run()
    assert executor.starts == 3 * 3
