"""`mirsweep correlate`: which trials, their jobs, what is kept, what is said."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from sweep_views import SAMPLES, make_view
from typer.testing import CliRunner

import sweeps
from jobs.events import Evaluated, Event, Failed, Finished, Started, Step, Stopped
from jobs.place import Place
from jobs.spec.downstream import AnyJob, EvaluateSpec, FinetuneSpec
from mir.errors import ClusterError, ConfigError, DataError
from orchestrator.cli import app
from orchestrator.commands import correlate as command
from orchestrator.correlate.choose import Candidate, candidates, choose, spread
from orchestrator.correlate.loop import Downstream
from orchestrator.correlate.outcome import Outcome, outcome
from orchestrator.correlate.readings import readings
from orchestrator.correlate.results import Results
from orchestrator.eventlog import LOG_NAME
from orchestrator.executors.inline import InlineExecutor
from orchestrator.failures import INTERRUPTED
from orchestrator.report.correlation import beyond, scatter, table, within_lines, write_page
from orchestrator.report.correlation_png import write_picture
from orchestrator.signals import Interrupt
from orchestrator.state import SweepView, TrialState
from sweeps.recipe import load_downstream
from sweeps.spec import ResourceSpec

RECIPES = Path(sweeps.__file__).parent / "recipes"
WORLD = RECIPES / "downstream" / "world.yaml"
LOST = Failed(kind="worker-lost", reason="its process died")


def score_of(trial: int) -> float:
    """What the pretended evaluation finds: later trials are better."""
    return 0.2 + 0.03 * trial


@dataclass
class FakeJobs:
    """A runner: failures[trial] is what each fine-tune ends with, before the one that finishes."""

    failures: dict[int, list[Failed]] = field(default_factory=dict)
    ran: Counter[tuple[int, str]] = field(default_factory=Counter)
    micro: list[int | None] = field(default_factory=list)
    running: int = 0
    most: int = 0

    def __call__(self, spec: AnyJob, place: Place) -> Iterator[Event]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield Started(ranks=1, device="cpu", trainable={})
            work = self._finetune if isinstance(spec, FinetuneSpec) else self._evaluate
            yield from work(spec, place)
        finally:
            self.running -= 1

    def _finetune(self, spec: AnyJob, place: Place) -> Iterator[Event]:
        assert isinstance(spec, FinetuneSpec)
        number = int(place.folder.name)
        self.ran[number, "fine-tune"] += 1
        self.micro.append(spec.deepspeed.micro_batch)
        assert Path(spec.start).name == f"samples-{SAMPLES:012d}"
        yield Step(samples=8, loss=1.0, learning_rate=1.0, grad_norm=1.0, samples_per_second=1.0)
        if self.failures.get(number):
            yield self.failures[number].pop(0)
            return
        reason = place.stop_requested()
        if reason is not None:
            yield Stopped(samples=8, reason=reason)
            return
        (place.folder / "checkpoints" / "samples-000000002048").mkdir(parents=True)
        yield Finished(samples=2048, seconds=1.0)

    def _evaluate(self, spec: AnyJob, place: Place) -> Iterator[Event]:
        assert isinstance(spec, EvaluateSpec)
        number = int(place.folder.parent.name)
        self.ran[number, "evaluate"] += 1
        values = {"exact-match@0": score_of(number), "answer-loss@0": 2 - score_of(number)}
        yield Evaluated(samples=2048, values=values, errors={"exact-match@0": 0.02})
        yield Finished(samples=2048, seconds=1.0)


@pytest.fixture
def view() -> SweepView:
    return make_view(14)


@pytest.fixture
def study(tmp_path: Path, view: SweepView, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`runs/demo` with a checkpoint of the last step for every trial but the first complete one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    (folder / LOG_NAME).write_text("")
    monkeypatch.setattr("orchestrator.fold.load_view", lambda folder: view)
    for number in complete(view)[1:]:
        save(folder, number, SAMPLES)
    return folder


def complete(view: SweepView) -> list[int]:
    return [n for n, t in sorted(view.trials.items()) if t.state is TrialState.COMPLETE]


def save(folder: Path, number: int, samples: int) -> None:
    (folder / "trials" / f"{number:04d}" / "checkpoints" / f"samples-{samples:012d}").mkdir(
        parents=True
    )


def take(
    study: Path, view: SweepView, jobs: FakeJobs, interrupt: Interrupt | None = None
) -> tuple[Results, list[str]]:
    """Run everything that has no result; what was said."""
    plan = load_downstream(WORLD)
    results = Results(study, plan)
    results.open()
    said: list[str] = []
    executor = InlineExecutor(jobs, slots=2, nodes=((8.0, 0.0),))
    todo = [one for one in candidates(view, study)[0] if results.get(one) is None]
    Downstream(plan, ResourceSpec(), executor, results, say=said.append).run(
        todo, interrupt or Interrupt()
    )
    executor.close()
    return results, said


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


@pytest.fixture
def found(study, view):
    results, _ = take(study, view, FakeJobs())
    able = candidates(view, study)[0]
    kept = {one.trial.number: results.get(one) for one in able}
    trials = [one.trial for one in able]

    def make(measure: str = "exact-match@0", infeasible: int = 0) -> Outcome:
        away = [replace(trial, feasible=False) for trial in trials[:infeasible]]
        return outcome("demo", measure, "x", [*away, *trials[infeasible:]], kept)

    return make


def test_a_loss_and_the_score_that_it_mirrors_give_the_same_correlations(found) -> None:
    by_score, by_loss = found(), found("answer-loss@0")
    assert [c.spearman for c in by_score.found] == [c.spearman for c in by_loss.found]
    assert by_score.sentence.replace("exact-match@0", "answer-loss@0") == by_loss.sentence


def test_trials_that_count_are_judged_apart_where_others_do_not(found) -> None:
    one = found(infeasible=1)
    counted = [point for point in one.points if point.counted]
    assert 5 <= len(counted) < len(one.points)
    assert one.counted[0].n == len(counted)
    assert f"Among the {len(counted)} trials whose scores count: " in one.sentence


def test_a_score_that_cannot_tell_the_trials_apart_is_said_to_be_none(found) -> None:
    one = found()  # scores 0.03 apart, each known to 0.02
    assert one.caution == "" and "Beware" not in one.sentence
    alike = tuple(replace(p, score=0.4 + 0.001 * (p.trial % 3)) for p in one.points)
    poor = replace(one, points=alike)
    assert "exact-match@0 hardly tells these trials apart" in poor.sentence
    assert "each is known to 0.020" in poor.sentence


def test_the_outcome_is_plain_values_a_page_and_a_picture(found, tmp_path) -> None:
    one = found()
    assert json.loads(json.dumps(one.to_json()))["sentence"] == one.sentence
    assert table(one).row_count == len(one.found)
    text = write_page(one, tmp_path).read_text()
    body = text.partition("</main>")[0]
    assert body.count('<div class="figure">') == 2 and "http" not in body.partition("<body>")[2]
    with Image.open(write_picture(one, tmp_path)) as picture:
        assert picture.width > 1000


def test_a_choice_that_moves_mir_but_not_the_score_is_seen_within_each_choice(study, view) -> None:
    """Simpson's paradox: MIR ranks well with and without MoCa, and not over both."""
    results, _ = take(study, view, FakeJobs())
    able = candidates(view, study)[0]
    kept = {one.trial.number: results.get(one) for one in able}
    ranked = sorted((one.trial for one in able), key=lambda one: -score_of(one.number))
    twice = [one for trial in ranked for one in (trial, replace(trial, number=100 + trial.number))]
    kept |= {100 + number: result for number, result in kept.items()}

    def moved(trial, place):
        moca = place % 2
        last = trial.scores[-1]
        mir = {**last.mir, "mir": 1.0 + 0.1 * place + 10.0 * moca}
        scores = (*trial.scores[:-1], last.model_copy(update={"mir": mir}))
        return replace(trial, params={**trial.params, "moca": ["off", "on"][moca]}, scores=scores)

    trials = [moved(trial, place) for place, trial in enumerate(twice)]
    one = outcome("demo", "exact-match@0", "x", trials, kept)
    by_choice = {group.choice: group.found[0] for group in one.within if group.setting == "moca"}
    assert sorted(by_choice) == ["off", "on"]
    for found in by_choice.values():
        assert found.name == "MIR" and found.fraction == 1.0
        assert found.spearman.value == pytest.approx(1.0)
    over_all = next(c for c in one.found if c.name == "MIR" and c.fraction == 1.0)
    assert over_all.spearman.value < 0.9
    assert [line[:15] for line in within_lines(one)] == ["within moca off", "within moca on,"]
    assert "Within one choice" in write_page(one, study).read_text()


def test_a_runaway_trial_does_not_flatten_the_picture(found, tmp_path) -> None:
    one = found()
    assert beyond(one) is None
    assert "Beyond" not in write_page(one, tmp_path).read_text()
    mirs = sorted(point.mir for point in one.points)
    far = replace(max(one.points, key=lambda point: point.mir), mir=mirs[-1] + 9 * mirs[-1])
    ran = replace(one, points=tuple(far if p.trial == far.trial else p for p in one.points))
    (low, high), gone = beyond(ran)
    assert gone == [far]
    assert low < mirs[0] and mirs[-2] < high < far.mir
    assert (
        f"Beyond: trial {far.trial} at MIR {far.mir:.2f}." in write_page(ran, tmp_path).read_text()
    )
    assert scatter(ran)["layout"]["xaxis"]["range"] == [low, high]


def run_command(monkeypatch, jobs: FakeJobs, *words: str):
    made = InlineExecutor(jobs, nodes=((8.0, 0.0),))
    monkeypatch.setattr(command, "_executor", lambda name, address: made)
    return CliRunner().invoke(app, ["correlate", "demo", *words])


def test_the_command_says_table_sentence_and_where_the_page_is(study, monkeypatch) -> None:
    jobs = FakeJobs()
    result = run_command(monkeypatch, jobs)
    assert result.exit_code == 0, result.output
    assert "Spearman" in result.output and "MIR" in result.output
    (folder,) = (study / "correlate").iterdir()
    assert (folder / "index.html").exists() and (folder / "correlate.png").exists()
    again = run_command(monkeypatch, FakeJobs(), "--json")
    told = json.loads(again.stdout)
    assert told["sentence"] in " ".join(result.output.split())
    assert json.loads((folder / "outcome.json").read_text())["points"] == told["points"]


def test_the_command_ends_with_what_is_missing(study, view, monkeypatch) -> None:
    jobs = FakeJobs(failures={complete(view)[1]: [LOST] * 3})
    result = run_command(monkeypatch, jobs)
    assert result.exit_code == 1
    assert "1 of" in result.output and "have no downstream score" in result.output


def test_an_interrupted_command_says_how_to_go_on(study, monkeypatch) -> None:
    class Stopping(FakeJobs):
        def _evaluate(self, spec: AnyJob, place: Place) -> Iterator[Event]:
            if not sum(self.ran[n, s] for n, s in self.ran if s == "evaluate"):
                os.kill(os.getpid(), signal.SIGINT)
            yield from super()._evaluate(spec, place)

    result = run_command(monkeypatch, Stopping())
    assert result.exit_code == INTERRUPTED, result.output
    assert "interrupted: " in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--measure", "beauty"], "'beauty' was not measured. Known: answer-loss@0"),
        (["--recipe", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_words_are_one_line(study, monkeypatch, words, message) -> None:
    result = run_command(monkeypatch, FakeJobs(), *words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_study_of_other_models_needs_a_recipe(study, view, monkeypatch) -> None:
    model = view.spec.base.model.model_copy(update={"language": "some/model"})
    base = view.spec.base.model_copy(update={"model": model})
    monkeypatch.setattr(
        "orchestrator.fold.load_view",
        lambda folder: SweepView(
            spec=view.spec.model_copy(update={"base": base}), trials=view.trials
        ),
    )
    result = run_command(monkeypatch, FakeJobs())
    assert result.exit_code == 2 and "--recipe" in result.output


@pytest.mark.parametrize(
    "recipe", [p.name for p in sorted(RECIPES.glob("*.yaml")) if "real" not in p.name]
)
def test_every_recipe_of_the_embedded_world_passes_plan(recipe, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.commands.preflight._TRIES", 1)
    result = CliRunner().invoke(app, ["plan", str(RECIPES / recipe)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("recipe", [p.name for p in sorted((RECIPES / "downstream").iterdir())])
def test_every_downstream_recipe_can_be_read(recipe) -> None:
    assert load_downstream(RECIPES / "downstream" / recipe).evaluate.question_count > 0
