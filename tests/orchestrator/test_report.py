"""The report: one page that needs nothing, right in its words, safe with every name."""

from __future__ import annotations

import html
import json
import math
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
from PIL import Image
from sweep_views import SAMPLES, make_scored, make_trial, make_view

from jobs.events import Skipped
from jobs.spec import SourceSpec
from orchestrator.report.facts import caution, favourites, saved, tiles, verdict, witnesses
from orchestrator.report.figures import layers
from orchestrator.report.importance import MIN_TRIALS, common_samples, importance, importances
from orchestrator.report.page import page
from orchestrator.report.palette import DARK, LIGHT
from orchestrator.report.series import Panel, curves, panels, window
from orchestrator.report.write import write_report
from orchestrator.state import SweepView, TrialState

EVIL = "</script><img src=x onerror=alert(1)>"


class _Tags(HTMLParser):
    """Collects tags and attributes, and fails on a closing tag that nothing opened."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def own_part(text: str) -> str:
    """The page without the figures' library."""
    head, _, rest = text.partition("</main>")
    return head + rest[-6000:]


def figures_of(text: str) -> list[dict[str, object]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', text, flags=re.S)
    return [json.loads(part) for part in found]


def nan_view() -> SweepView:
    broken = make_trial(1, state=TrialState.FAILED, reason="diverged: loss is nan")
    scores = (*broken.scores[:3], make_scored(2048, math.nan, math.nan, math.nan))
    broken = replace(broken, scores=scores, counted=(True, True, True, False), feasible=False)
    whole = replace(make_trial(0), scores=(make_scored(0, math.inf, 7.8, 0.0),))
    return replace(make_view(0), trials={0: whole, 1: broken})


VIEWS = {
    "nothing": make_view(0),
    "one": make_view(1),
    "mixed": make_view(24, 24),
    "running": make_view(8, running=True),
    "many": make_view(200, 200),
    "nan": nan_view(),
}


@pytest.mark.parametrize("name", VIEWS)
def test_any_sweep_becomes_one_well_formed_page(name: str) -> None:
    text = page(VIEWS[name])
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert html.escape(verdict(VIEWS[name])) in text
    for figure in figures_of(text):
        go.Figure(data=uncoloured(figure["data"]), layout=uncoloured(figure["layout"]))


def uncoloured(value: object) -> object:
    """The palette's roles as colours, as the page's script puts them in."""
    if isinstance(value, str) and value.startswith("@"):
        return LIGHT[value[1:].split("/")[0]]
    if isinstance(value, list):
        return [uncoloured(item) for item in value]
    if isinstance(value, dict):
        return {key: uncoloured(item) for key, item in value.items()}
    return value


def test_the_page_fetches_nothing() -> None:
    text = page(VIEWS["mixed"])
    tags = _Tags()
    tags.feed(text)
    assert "default-src 'none'" in text
    for tag, attributes in tags.seen:
        assert tag not in ("link", "iframe", "img", "object", "embed")
        assert not {"src", "href", "srcset"} & set(attributes), tag
    assert "url(" not in own_part(text)
    assert text.count("plotly.js v") == 1


def test_what_users_wrote_is_escaped_everywhere() -> None:
    view = make_view(10)
    data = view.spec.base.data
    sources = {**data.sources, EVIL: SourceSpec(style="short", size=10)}
    base = view.spec.base.model_copy(update={"data": data.model_copy(update={"sources": sources})})
    trials = {
        n: replace(
            trial,
            params={**trial.params, f"mixture/{EVIL}": 0.1 + 0.01 * n, EVIL: f"{EVIL}{n}"},
            reason=EVIL,
            violation=EVIL,
            skips=(Skipped(source=EVIL, reason=EVIL, count=3),),
        )
        for n, trial in view.trials.items()
    }
    spec = view.spec.model_copy(update={"base": base})
    text = page(replace(view, spec=spec, trials=trials, note=EVIL))
    assert "<img" not in own_part(text)
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    titles = [str(f["layout"]) for f in figures_of(text) if "cells" in f]
    assert any("&lt;img" in title for title in titles)  # plotly reads HTML in labels
    assert not any("<img" in title for title in titles)


def test_every_colour_of_a_figure_is_in_both_palettes() -> None:
    assert set(LIGHT) == set(DARK)
    roles = set(re.findall(r'"@(\w+)', page(VIEWS["mixed"]).split("</main>")[0]))
    assert roles
    assert roles <= set(LIGHT)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
@pytest.mark.parametrize("role", ["text", "muted", "accent", "bad"])
def test_words_can_be_read_on_their_page(palette: dict[str, str], role: str) -> None:
    """WCAG 2.1: a contrast of 4.5 for body text."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(palette[role]), luminance(palette["page"])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("name", VIEWS)
def test_pictures_are_written_for_what_there_is(name: str, tmp_path: Path) -> None:
    path = write_report(VIEWS[name], tmp_path / "report")
    pictures = {picture.stem for picture in path.parent.glob("*.png")}
    expected = {
        "nothing": set(),
        "one": {"mir", "layers"},
        "mixed": {"mir", "layers", "mixture", "settings", "importance"},
        "running": {"mir", "layers", "mixture", "settings"},
        "many": {"mir", "layers", "mixture", "settings", "importance"},
        "nan": {"mir"},
    }
    assert pictures == expected[name]
    for picture in path.parent.glob("*.png"):
        with Image.open(picture) as image:
            assert image.width == 1440
    assert {file.suffix for file in path.parent.iterdir()} <= {".html", ".png"}


def test_an_older_picture_does_not_stay(tmp_path: Path) -> None:
    write_report(VIEWS["mixed"], tmp_path)
    write_report(VIEWS["one"], tmp_path)
    assert not (tmp_path / "importance.png").exists()


def test_verdict_names_the_best_trial_and_its_settings() -> None:
    trial = make_trial(3, rate=2e-3, quality=1.0, moca=True)
    view = replace(make_view(0), trials={3: trial})
    last = trial.scores[-1].mir["mir"]
    assert verdict(view).startswith(f"Trial 3 is best: MIR 3.68 → {last:.2f} ± 0.04 after 4,096")
    assert "learning_rate 2e-3, moca on" in verdict(view)
    assert "most weight on detailed" in verdict(view)


def test_verdict_is_honest_without_a_best_trial() -> None:
    assert verdict(make_view(0)) == "No trial has been started yet."
    away = replace(make_trial(0, rate=9e-2), state=TrialState.COMPLETE)
    view = replace(make_view(0), trials={0: away})
    assert "no best one" in verdict(view)
    assert "2 of them" not in str(tiles(view))


def test_saved_is_the_share_of_samples_not_spent() -> None:
    full = make_trial(0)
    stopped = make_trial(1, samples=SAMPLES // 4, state=TrialState.PRUNED)
    view = replace(make_view(0), trials={0: full, 1: stopped})
    assert saved(view) == pytest.approx(0.375)
    assert saved(make_view(0)) == 0.0


def ranked_view(losses: list[float]) -> SweepView:
    """Trials whose final MIR rises with their number, with the given losses."""
    trials = {}
    for number, loss in enumerate(losses):
        scores = (make_scored(0, 3.7, 8.0, 0.0), make_scored(SAMPLES, 2 + 0.1 * number, loss, 0.5))
        trials[number] = replace(make_trial(number), scores=scores, counted=(True, True))
    return replace(make_view(0), trials=trials)


def test_trust_agrees_contradicts_or_says_neither() -> None:
    rising = [3.0 + 0.1 * n for n in range(8)]
    for losses, word in (
        (rising, "MIR agrees with the validation loss"),
        (rising[::-1], "MIR contradicts the validation loss"),
        ([3.1, 3.6, 3.2, 3.5, 3.3, 3.4, 3.0, 3.7], "neither clearly agree"),
        (rising[:3], "Too few trials count (3)"),
        ([3.0] * 8, "hardly varies"),
    ):
        told = witnesses(ranked_view(losses))[0].sentence
        assert word in told
    assert (
        "Spearman +1.00 over 8 trials, p\u00a0<\u00a00.001"
        in witnesses(ranked_view(rising))[0].sentence
    )


def test_other_measures_name_their_favourite() -> None:
    view = ranked_view([3.5, 3.4, 3.1, 3.2, 3.3, 3.6])
    assert any("validation loss alone, trial 2 would have won" in t for t in favourites(view))


def test_curves_keep_what_counts_and_leave_out_nan() -> None:
    drawn = {curve.trial: curve for curve in curves(nan_view())}
    assert drawn[1].mir[-1] is None
    assert drawn[1].counted == (True, True, True, False)
    assert drawn[1].group == "failed"
    assert drawn[0].mir == (None,)


def test_the_best_curve_is_drawn_last() -> None:
    assert curves(VIEWS["mixed"])[-1].group == "best"


def run_off(top: float) -> SweepView:
    """Three trials from 1.0 to 0.7, 0.8, 0.9 at the end, and a stopped one that rose to `top`."""
    ends = {0: 0.7, 1: 0.8, 2: 0.9, 3: top}
    trials = {}
    for number, end in ends.items():
        scores = (make_scored(0, 1.0, 8.0, 0.0), make_scored(SAMPLES, end, 3.0, 0.5))
        trials[number] = replace(make_trial(number), scores=scores, counted=(True, True))
    trials[3] = replace(trials[3], state=TrialState.PRUNED)
    return replace(make_view(0), trials=trials)


def test_a_trial_that_ran_off_does_not_flatten_the_others() -> None:
    every = curves(run_off(5.0))
    shown = window(every)
    assert shown is not None
    assert shown.beyond == (3,)
    assert shown.low < 0.7 and 1.0 < shown.high < 1.3
    assert "Trial 3 ran off above" in page(run_off(5.0))


def test_a_trial_that_is_a_little_worse_is_drawn_whole() -> None:
    assert window(curves(run_off(1.3))) is None
    assert "ran off" not in page(run_off(1.3))


def test_panels_leave_out_settings_with_one_value() -> None:
    names = [panel.name for panel in panels(VIEWS["mixed"], mixture=False)]
    assert names == ["learning_rate", "moca"]  # init_std is 0.02 in every trial that has it
    assert len(panels(VIEWS["mixed"], mixture=True)) == 5


def make_panel(x: list[float | str], mir: list[float]) -> Panel:
    return Panel(
        name="x", trials=tuple(range(len(x))), x=tuple(x), mir=tuple(mir), share=False, log=False
    )


def test_importance_finds_what_was_planted() -> None:
    rng = random.Random(0)
    x = [rng.random() for _ in range(40)]
    valley = importance("x", make_panel(x, [(v - 0.5) ** 2 for v in x]))
    assert valley.share > 0.7 and valley.clear
    kind = ["on" if v > 0.5 else "off" for v in x]
    choice = importance("x", make_panel(kind, [float(k == "on") for k in kind]))
    assert choice.share == pytest.approx(1.0)


def test_importance_of_noise_rarely_passes_its_own_level() -> None:
    rng = random.Random(1)
    clear = 0
    for _ in range(200):
        x = [rng.random() for _ in range(16)]
        clear += importance("x", make_panel(x, [rng.random() for _ in x])).clear
    assert clear <= 20  # 10 expected; more than 20 has a probability below 0.002


def test_importance_does_not_depend_on_units() -> None:
    rng = random.Random(2)
    x = [rng.random() for _ in range(20)]
    y = [v + rng.random() for v in x]
    first = importance("x", make_panel(x, y))
    stretched = importance("x", make_panel([10**v for v in x], [math.exp(v) for v in y]))
    assert stretched.share == pytest.approx(first.share)


def test_importance_needs_enough_trials() -> None:
    few = replace(make_view(0), trials={n: make_trial(n) for n in range(MIN_TRIALS - 1)})
    assert importances(few) == []
    assert f"there are {MIN_TRIALS - 1}" in page(few)


def test_importance_goes_back_to_where_enough_trials_still_ran() -> None:
    """Of ten trials six were stopped half-way: at the end four count, half-way all ten."""
    view = replace(make_view(0), trials={n: make_trial(n) for n in range(10)})
    end = max(scored.samples for scored in view.trials[0].scores)
    assert common_samples(view) == end
    stopped = {
        n: replace(trial, scores=trial.scores[:-1], counted=trial.counted[:-1])
        for n, trial in view.trials.items()
        if n >= 4
    }
    view = replace(view, trials={**view.trials, **stopped})
    assert common_samples(view) == view.trials[0].scores[-2].samples < end
    assert importances(view)


def test_importance_of_equal_scores_is_nothing() -> None:
    assert importance("x", make_panel([1.0, 2.0, 3.0, 4.0], [2.5] * 4)).share == 0.0


def test_a_sweep_in_which_mir_only_rises_is_called_that() -> None:
    assert caution(VIEWS["mixed"]) == ""
    assert caution(make_view(0)) == ""
    risen = {}
    for number in range(3):
        scores = (make_scored(0, 0.67, 1.3, 0.0), make_scored(SAMPLES, 0.71, 1.0, 0.1))
        risen[number] = replace(make_trial(number), scores=scores, counted=(True, True))
    view = replace(make_view(0), trials=risen)
    assert "MIR did not fall in any trial" in page(view)


@pytest.mark.parametrize(("after", "kind"), [(2.0, "log"), (3.6, "tozero")])
def test_layers_get_a_log_axis_only_where_it_has_ticks(after: float, kind: str) -> None:
    scores = (make_scored(0, 3.7, 8.0, 0.0), make_scored(SAMPLES, after, 3.0, 0.5))
    trial = replace(make_trial(0), scores=scores, counted=(True, True))
    axis = layers(trial)["layout"]["yaxis"]
    assert kind in (axis.get("type"), axis.get("rangemode"))
