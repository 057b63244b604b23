"""What a proxy study was worth: its ranking of the shared trials, wherever a study is looked at."""

import json
import shutil
from dataclasses import replace
from html import unescape
from math import log10

import pytest
from small_world import SAMPLES, FakeJobs, make_sweep
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.controller import Controller
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.report.page import page
from orchestrator.trackers.memory import MemoryTracker
from sweeps.spec import StopSpec

RATES = [10**-2.0, 10**-1.7, 10**-2.5, 10**-1.2]  # and the recipe's own


def run(folder, name, monkeypatch, best, **study):
    """A study over the rates, those nearer to `best` with the lower MIR."""

    def mir_at(spec, samples):
        return 2.0 + abs(log10(spec.optim.learning_rate) - best) * samples / SAMPLES

    monkeypatch.setattr("small_world.mir_at", mir_at)
    monkeypatch.setattr("orchestrator.controller.POLL_S", 0.0)
    spec = make_sweep(5, stop=StopSpec(rule="none"))
    changed = {"study": spec.study.model_copy(update=study), "name": name}
    Controller(
        spec.model_copy(update=changed), folder, InlineExecutor(FakeJobs()), MemoryTracker()
    ).run()


@pytest.fixture
def studies(tmp_path, monkeypatch):
    """The folders of a proxy study and of one that was seeded from it."""
    proxy, target = tmp_path / "proxy", tmp_path / "target"
    start = tuple({"learning_rate": rate} for rate in RATES)
    run(proxy, "proxy", monkeypatch, best=-2.0, start=start)
    run(target, "target", monkeypatch, best=-1.7, warm_start=(str(proxy),), warm_points=5)
    return proxy, target


def test_who_watches_reads_the_earlier_studies_once_and_compares_at_every_change(
    studies, monkeypatch
):
    view, read = load_view(studies[1]), []

    def changes(folder, found):
        for trials in (1, 3, 5):
            yield replace(view, trials={n: view.trials[n] for n in range(trials)})

    monkeypatch.setattr("orchestrator.commands.status._changes", changes)
    monkeypatch.setattr(
        "orchestrator.earlier.load_view", lambda folder: (read.append(folder), load_view(folder))[1]
    )
    done = CliRunner().invoke(app, ["status", str(studies[1]), "--watch", "--json"])
    told = [json.loads(line)["warm_start"] for line in done.stdout.splitlines()]
    assert [found["n"] for (found,) in told] == [1, 3, 5]
    assert read == [studies[0]]


def test_the_ranks_of_the_shared_trials_are_in_the_report_and_in_status(studies):
    proxy, target = studies

    def status():
        done = CliRunner().invoke(app, ["status", str(target), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["warm_start"]

    (found,) = status()
    # The ranks 1 2 3 4 5 there are 2 1 4 3 5 here: 1 - 6 * 4 / (5 * 24).
    assert (found["study"], found["n"], found["problem"]) == ("proxy", 5, "")
    assert found["rho"] == pytest.approx(0.8)
    sentence = "proxy: Spearman's rank correlation over the 5 variants in common is +0.80"
    assert sentence in unescape(page(load_view(target)))
    shutil.rmtree(proxy)
    (found,) = status()
    assert "no study here" in found["problem"] and found["rho"] is None
    assert "no study here" in page(load_view(target))
