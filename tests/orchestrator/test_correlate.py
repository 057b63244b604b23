"""`mirsweep correlate`: which trials, their jobs and what is kept of them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import finished_study
import pytest
from finished_study import (
    LOST,
    RECIPES,
    WORLD,
    FakeJobs,
    complete,
    save,
    score_of,
    take,
)
from sweep_views import SAMPLES

from jobs.events import Failed
from mir.errors import ClusterError, ConfigError, DataError
from orchestrator.correlate.choose import Candidate, candidates, choose, spread
from orchestrator.correlate.readings import readings
from orchestrator.correlate.results import Results
from orchestrator.signals import Interrupt
from sweeps.recipe import load_downstream

study, view = finished_study.study, finished_study.view


def test_only_trials_that_ran_to_the_end_and_kept_their_last_checkpoint(study, view) -> None:
    numbers = complete(view)
    save(study, numbers[0], SAMPLES // 2)
    able, said = candidates(view, study)
    assert sorted(one.trial.number for one in able) == numbers[1:]
    assert "left out, not run to the end" in said[0]
    assert f"trials {numbers[0]} (has one at 2,048, ended at 4,096 samples)" in said[1]


def test_a_study_without_checkpoints_is_refused(view, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no trial that ran to the end and kept"):
        choose(candidates(view, tmp_path)[0], None, None, "demo")


def test_the_best_and_a_spread(study, view) -> None:
    able, _ = candidates(view, study)
    assert choose(able, None, None, "demo") == sorted(able, key=lambda one: one.trial.number)
    assert {one.trial.number for one in choose(able, 2, None, "demo")} == {
        one.trial.number for one in able[:2]
    }
    three = choose(able, None, 3, "demo")
    mirs = sorted(one.trial.mir for one in able)
    assert len(three) == 3
    assert {mirs[0], mirs[-1]} < {one.trial.mir for one in three}
    assert len(choose(able, len(able), 2, "demo")) == len(able)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 12])
def test_a_spread_has_both_ends_and_even_steps(count) -> None:
    ordered = [Candidate(trial=n, checkpoint=Path()) for n in range(9)]
    found = [one.trial for one in spread(ordered, count)]
    assert len(found) == min(count, 9) == len(set(found))
    steps = [b - a for a, b in pairwise(found)]
    assert not steps or ((found[0], found[-1]) == (0, 8) and max(steps) - min(steps) <= 1)


def test_every_trial_is_finetuned_and_evaluated_once_several_at_a_time(study, view) -> None:
    jobs = FakeJobs()
    results, said = take(study, view, jobs)
    able, _ = candidates(view, study)
    assert all(jobs.ran[one.trial.number, stage] == 1 for one in able
               for stage in ("fine-tune", "evaluate"))  # fmt: skip
    assert jobs.most == 2
    assert jobs.shared == {study}  # where the features of frozen encoders are
    for one in able:
        kept = results.get(one)
        assert kept is not None
        assert kept.evaluated.values["exact-match@0"] == score_of(one.trial.number)
        assert not (results.work_folder(one.trial.number) / "checkpoints").exists()
    assert f"({len(able)} of {len(able)})" in said[-1]
    assert load_downstream(results.folder / "recipe.yaml") == load_downstream(WORLD)


def test_what_is_finished_is_not_done_again(study, view) -> None:
    class Halfway(Interrupt):
        """Ctrl-C once three fine-tunes have begun."""

        @property
        def name(self):  # type: ignore[override]
            return "SIGINT" if sum(first.ran.values()) > 5 else None

        @name.setter
        def name(self, value):
            pass

    first, second = FakeJobs(), FakeJobs()
    results, _ = take(study, view, first, interrupt=Halfway())
    able, _ = candidates(view, study)
    done = {one.trial.number for one in able if results.get(one) is not None}
    assert 0 < len(done) < len(able)
    take(study, view, second)
    assert all(results.get(one) is not None for one in able)
    assert not {number for number, _ in second.ran} & done


def test_another_checkpoint_or_recipe_has_results_of_its_own(study, view) -> None:
    results, _ = take(study, view, FakeJobs())
    able, _ = candidates(view, study)
    moved = Candidate(trial=able[0].trial, checkpoint=Path("samples-000000009999"))
    assert results.get(moved) is None
    plan = load_downstream(RECIPES / "downstream" / "few-shot.yaml")
    assert Results(study, plan).folder != results.folder


def test_results_of_an_earlier_version_are_found_again(study, view) -> None:
    """A field that recipes or jobs gain changes their digests, and nothing else."""
    results, _ = take(study, view, FakeJobs())
    results.folder.rename(results.folder.with_name("0123456789ab"))
    for path in results.folder.with_name("0123456789ab").glob("*.json"):
        told = json.loads(path.read_text())
        told["checkpoint"] = f"another-digest/{told['checkpoint'].rpartition('/')[2]}"
        path.write_text(json.dumps(told))
    again = FakeJobs()
    found, _ = take(study, view, again)
    assert found.folder.name == "0123456789ab" and not again.ran


def test_a_lost_worker_is_restarted_and_too_little_memory_halves_the_micro_batch(
    study, view
) -> None:
    a, b = complete(view)[1:3]
    memory = Failed(kind="out-of-memory", reason="out of memory")
    jobs = FakeJobs(failures={a: [LOST, LOST], b: [memory]})
    results, said = take(study, view, jobs)
    assert (jobs.ran[a, "fine-tune"], jobs.ran[b, "fine-tune"]) == (3, 2)
    assert all(results.get(one) is not None for one in candidates(view, study)[0])
    assert 8 in jobs.micro
    assert any("restart 2 of 2" in line for line in said)


def test_a_trial_that_cannot_be_helped_is_said_and_left_out(study, view) -> None:
    number = complete(view)[1]
    results, said = take(study, view, FakeJobs(failures={number: [LOST] * 3}))
    missing = [one.trial.number for one in candidates(view, study)[0] if results.get(one) is None]
    assert missing == [number]
    assert any(f"fine-tune of trial {number}: worker-lost" in line for line in said)


def test_three_alike_in_a_row_end_it_with_one_message(study, view) -> None:
    bad = Failed(kind="bad-data", reason="q.jsonl: line 3 is broken")
    failures = {number: [bad] for number in complete(view)}
    with pytest.raises(DataError, match=r"3 trials in a row failed with bad-data.*line 3"):
        take(study, view, FakeJobs(failures=failures))


def test_a_full_disk_ends_it(study, view) -> None:
    full = Failed(kind="disk-full", reason="no space left on device")
    failures = {number: [full] for number in complete(view)}
    with pytest.raises(ClusterError, match="free some space"):
        take(study, view, FakeJobs(failures=failures))


def test_readings_are_at_the_shares_of_training_that_all_trials_have(view) -> None:
    trials = [view.trials[number] for number in complete(view)]
    found = readings(trials)
    assert sorted({one.fraction for one in found}) == [n / 8 for n in range(9)]
    last = {one.name: one for one in found if one.fraction == 1}
    assert {"MIR", "training loss", "validation loss", "perplexity", "gap"} <= set(last)
    assert last["MIR"].values == tuple(trial.mir for trial in trials)
    assert last["gap"].lower_is_better is False
    losses = [trial.scores[-1].guard.validation_loss for trial in trials]
    order = sorted(range(len(trials)), key=losses.__getitem__)
    assert order == sorted(range(len(trials)), key=lambda i: last["perplexity"].values[i])
