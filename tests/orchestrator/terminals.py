"""A small real sweep, and commands beside it as processes of their own: for the slow tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.fold import load_view
from orchestrator.state import SweepView

MAIN = "from orchestrator.cli import main; main()"
ROOT = Path(__file__).parents[2]

RECIPE = """
name: tiny
base:
  model: {{vision: embedded, language: embedded, projector: linear, trainable: projector}}
  data:
    sources: {{detailed: {{kind: scenes, style: detailed, size: 64}}}}
    validation: {{kind: scenes, style: detailed, split: validation, size: 16}}
    validation_samples: 8
  optim: {{samples: {samples}, global_batch: 8, gradient_clip: 0.0}}
  score: {{every_samples: {samples}, pairs: 8, overhead_limit: 1.0}}
  checkpoint: {{every_samples: {samples}, keep: 1}}
space:
  optim: {{learning_rate: {{low: 1.0e-4, high: 1.0e+38, log: true}}}}
study:
  sampler: random
  start: [{{learning_rate: 1.0e-3}}]
  guard: {{constraints: {{loss-below-start: null}}}}
budget: {{trials: {trials}}}
stop: {{rule: none, infeasible_patience: 0}}
resources: {{workers: 1, cpus_per_worker: 1, max_concurrent: 1}}
"""


class Terminals:
    """Commands in one working directory. environment: of every command."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        quiet = {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), **quiet, **environment}

    def recipe(self, *, samples: int, trials: int) -> str:
        """Write the recipe and return its name."""
        text = RECIPE.format(samples=samples, trials=trials)
        (self.folder / "tiny.yaml").write_text(text)
        return "tiny.yaml"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            [sys.executable, "-c", MAIN, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def answer(self, *words: str, code: int = 0) -> Any:
        """What a command says as JSON, after checking how it left."""
        done = self.run(*words, "--json")
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def until(self, true: Callable[[SweepView], bool], timeout_s: float = 120.0) -> SweepView:
        """Wait until the study `tiny` has come so far."""
        deadline = time.monotonic() + timeout_s
        folder = self.folder / "runs" / "tiny"
        while time.monotonic() < deadline:
            if (folder / "events.jsonl").exists() and (folder / "events.jsonl").stat().st_size:
                view = load_view(folder)
                if true(view):
                    return view
            time.sleep(0.1)
        raise AssertionError(f"it did not come to that: {load_view(folder)}")


def end(process: subprocess.Popen[str]) -> str:
    """Wait for a command to leave by itself and return what it said."""
    said, _ = process.communicate(timeout=120.0)
    return said
