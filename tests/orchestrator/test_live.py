"""What the terminal shows while a sweep runs and when it has ended."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from sweep_views import OPENED, START_LOSS, make_scored, make_trial, make_view

from jobs.events import Failed, Finished, Skipped, Started, Step
from orchestrator.state import SweepView, TrialState
from orchestrator.views.best import write_best
from orchestrator.views.job import job_line
from orchestrator.views.leaderboard import leaderboard
from orchestrator.views.live import LiveView, render
from orchestrator.views.plain import PlainView, news
from orchestrator.views.standing import best_trial, elapsed, ranked, seconds_left
from orchestrator.views.text import duration, number, percent, plus_minus, settings
from sweeps.recipe import load_job


def text(shown: RenderableType, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(shown)
    return console.export_text()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "-"), (math.nan, "nan"), (-math.inf, "-inf"), (0.0, "0"), (0.00123, "1.23e-3"),
        (1e-4, "1e-4"), (2.5, "2.5"), (0.5012, "0.501"), (12345.6, "12346"), (-3.14159, "-3.14"),
        (1e9, "1e9"), (100.0, "100"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, told: str) -> None:
    assert number(value) == told


def test_durations_shares_and_errors_read_well() -> None:
    told = [duration(s) for s in (-1, 41.4, 200, 7500)]
    assert told == ["0 s", "41 s", "3 min 20 s", "2 h 05 min"]
    assert [percent(s) for s in (0, 0.001, 0.434, 1)] == ["0 %", "<1 %", "43 %", "100 %"]
    assert plus_minus(2.414, 0.031) == "2.41 ± 0.03"
    assert plus_minus(2.414, None) == "2.41"
    assert plus_minus(math.nan, 0.1) == "nan"


def test_settings_are_one_line_with_the_mixture_last() -> None:
    params = {"mixture/short": 0.2, "learning_rate": 3e-3, "moca": "on", "mixture/long": 0.8}
    assert settings(params) == "learning_rate 3e-3, moca on, long 80 % short 20 %"


def test_every_trial_has_a_line_with_its_state_and_reason() -> None:
    shown = text(render(make_view(14, running=True), OPENED + 300)).splitlines()
    lines = [line for line in shown if line[:5].strip().isdigit()]
    assert [int(line[:5]) for line in lines] == list(range(14))
    assert "stopped" in lines[2] and "against a median of" in lines[2]
    assert "38 %" in lines[2]
    assert "✗" in lines[4]
    assert "failed" in lines[6] and "loss is nan" in lines[6]
    assert "running" in lines[12] and "50 %" in lines[12]
    assert "queued" in lines[13]


def test_header_tells_progress_best_and_time_left() -> None:
    view = make_view(14, running=True)
    shown = text(render(view, OPENED + 300))
    assert "12/16 trials finished · 1 running" in shown
    assert "5 min 00 s so far · about" in shown
    assert f"best so far: trial {best_trial(view).number}, MIR 3.68 →" in shown


def test_header_tells_of_trials_that_are_paused_though_by_no_rule() -> None:
    view = make_view(14, running=True)
    cut = {12: replace(view.trials[12], state=TrialState.PAUSED, reason="the budget is spent")}
    view = replace(view, trials={**view.trials, **cut})
    shown = text(render(view, OPENED + 300))
    assert "12/16 trials finished · 4 stopped early · 1 paused · 1 failed · " in shown


def test_a_small_terminal_keeps_the_open_trials() -> None:
    shown = text(render(make_view(70, running=True), OPENED + 300, height=16), 80)
    assert len(shown.splitlines()) <= 16
    assert " running" in shown
    assert "more that ended earlier" in shown


def test_markup_in_names_is_shown_and_not_obeyed() -> None:
    view = make_view(1)
    trial = replace(view.trials[0], params={"[red]x[/]": "[/bold]"})
    view = replace(view, trials={0: trial})
    assert "[red]x[/] [/bold]" in text(render(view, OPENED))
    assert "[red]x[/] [/bold]" in text(leaderboard(view))


def test_an_empty_sweep_can_be_shown() -> None:
    view = replace(make_view(0), ended=None)
    assert "0/16 trials finished" in text(render(view, OPENED))
    assert seconds_left(view, OPENED + 10) is None
    assert best_trial(view) is None


def test_live_view_draws_what_it_was_told() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40)
    with LiveView(console) as live:
        live(make_view(3))
        live._live.refresh()  # the clock's thread would draw it a moment later
    assert "3/16 trials finished" in console.file.getvalue()  # type: ignore[attr-defined]


def test_best_is_the_lowest_mir_that_counts() -> None:
    view = make_view(14)
    best = best_trial(view)
    full = [t for t in view.trials.values() if t.state is TrialState.COMPLETE]
    assert best.mir == min(trial.mir for trial in full)
    assert any(trial.mir < best.mir for trial in view.trials.values())  # collapsed, does not count


@pytest.mark.parametrize("objective", ["validation-loss", "gap"])
def test_best_follows_the_studys_objective(objective: str) -> None:
    view = make_view(14)
    study = view.spec.study.model_copy(update={"objective": objective})
    view = replace(view, spec=view.spec.model_copy(update={"study": study}))
    full = [t for t in view.trials.values() if t.state is TrialState.COMPLETE]
    guards = [trial.scores[-1].guard for trial in full]
    got = best_trial(view).scores[-1].guard
    if objective == "gap":
        assert got.gap == max(guard.gap for guard in guards)
    else:
        assert got.validation_loss == min(guard.validation_loss for guard in guards)


def test_infeasible_and_nan_trials_never_win() -> None:
    away = replace(make_trial(0), feasible=False, violation="loss")
    broken = replace(make_trial(1), scores=(make_scored(4096, math.nan, START_LOSS, 0.0),))
    worst = make_trial(2, quality=0.0)
    view = replace(make_view(0), trials={0: away, 1: broken, 2: worst})
    assert best_trial(view) is worst
    assert ranked(view)[0] is worst


def test_time_left_counts_what_is_to_be_seen() -> None:
    done = make_trial(0)
    view = replace(make_view(0, budget=3), trials={0: done}, ended=None)
    # One trial took 100 s; two more of the same length are ahead.
    assert seconds_left(view, OPENED + 100) == pytest.approx(200)
    half = replace(make_trial(1, samples=2048, state=TrialState.RUNNING), ended=None)
    view = replace(view, trials={0: done, 1: half})
    assert seconds_left(view, OPENED + 150) == pytest.approx(150)


def test_time_left_ends_with_the_budget_of_hours() -> None:
    view = replace(make_view(1, budget=1000), ended=None)
    budget = view.spec.budget.model_copy(update={"hours": 0.1})
    view = replace(view, spec=view.spec.model_copy(update={"budget": budget}))
    assert seconds_left(view, OPENED + 300) == pytest.approx(60)


def test_elapsed_leaves_out_the_time_between_two_sittings() -> None:
    view = replace(make_view(1), ended=None, seconds=500.0, session=OPENED + 9000)
    assert elapsed(view, OPENED + 9010) == pytest.approx(510)


def test_news_tells_each_thing_once() -> None:
    start = replace(make_view(0), ended=None)
    queued = replace(start, trials={0: replace(make_trial(0, samples=0), scores=(), steps=(),
                                               state=TrialState.RUNNING)})  # fmt: skip
    half = make_trial(0, samples=1024, state=TrialState.RUNNING)
    stopped = make_trial(0, samples=1536, state=TrialState.PRUNED, reason="MIR 3.4")
    states = [start, queued, replace(start, trials={0: half}), replace(start, trials={0: stopped})]
    told: list[list[str]] = [list(news(before, after)) for before, after in pairwise(states)]
    assert told[0] == [f"trial 0 running: {settings(half.params)}"]
    assert [line.split(" samples")[0].split(" at ")[1] for line in told[1]] == ["0", "512", "1,024"]
    assert len(told[2]) == 2
    assert told[2][1] == (
        "trial 0 stopped after 1,536 of 4,096 samples: MIR 3.4 (1 of 16 trials finished)"
    )
    assert list(news(states[-1], states[-1])) == []


def test_plain_view_prints_a_line_each() -> None:
    lines: list[str] = []
    with PlainView(lines.append) as view:
        view(make_view(0))
        view(make_view(3))
        before = len(lines)
        view(make_view(3))
    assert len(lines) == before > 3
    assert all(line[2] == ":" and "\n" not in line for line in lines)


def test_going_on_does_not_tell_old_news_again() -> None:
    lines: list[str] = []
    PlainView(lines.append)(make_view(8, running=True))
    assert "going on: 6 of 16 trials finished" in lines[0]
    assert [line.split()[2] for line in lines[1:]] == ["6"] * 6 + ["7"]


def test_best_recipe_can_be_trained_again(tmp_path: Path) -> None:
    view: SweepView = make_view(14)
    path = write_best(view, tmp_path)
    assert path == tmp_path / "best.yaml"
    assert load_job(path) == best_trial(view).job
    assert f"trial {best_trial(view).number}" in path.read_text()


def test_without_a_best_trial_no_recipe_is_written(tmp_path: Path) -> None:
    assert write_best(make_view(0), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_jobs_events_read_as_lines() -> None:
    started = Started(ranks=2, device="cpu", trainable={"projector": 1234}, resumed_samples=512)
    step = Step(samples=1024, loss=2.5, learning_rate=1e-3, grad_norm=1.0, samples_per_second=80)
    told = [
        job_line(started), job_line(step), job_line(make_scored(1024, 2.5, 3.0, 0.2)),
        job_line(Skipped(source="web", reason="not an image", count=3)),
        job_line(Failed(kind="diverged", reason="loss is nan")),
        job_line(Finished(samples=4096, seconds=61)),
    ]  # fmt: skip
    assert told == [
        "started on 2 x cpu, trains projector 1,234, resumed at 512",
        "1,024 samples, loss 2.5, learning rate 1e-3, 80 samples/s",
        "1,024 samples, MIR 2.50 ± 0.04, validation loss 3, gap 0.2 (1 s to score)",
        "skipped 3 samples of web: not an image",
        "failed (diverged): loss is nan",
        "finished 4,096 samples in 1 min 01 s",
    ]
