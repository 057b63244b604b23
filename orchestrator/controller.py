"""The single event loop: asks Optuna, starts jobs, hears events, decides, tells.

Whatever it is about to do is written to the event log first, so killing it at any moment loses
nothing: the next controller on the same folder goes on from the log.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.ports import Executor, Tracker
from orchestrator.state import SweepView
from sweeps.spec import SweepSpec


class Controller:
    """Runs one sweep in one folder; alone writes its log, its Optuna study and its tracker."""

    def __init__(
        self,
        spec: SweepSpec,
        folder: Path,
        executor: Executor,
        tracker: Tracker,
        on_change: Callable[[SweepView], None] | None = None,
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.executor = executor
        self.tracker = tracker
        self.on_change = on_change

    def run(self) -> SweepView:
        """Begin the sweep, or go on with it, until it is over or interrupted.

        `on_change` is called in this thread, at most a few times a second, with a view that is
        the caller's to keep. The returned view has `ended` set; it is None where the sweep was
        interrupted (SIGINT, SIGTERM) and waits for the same command, `note` says so.
        Raises ConfigError where a job can never fit the cluster or the recipe does not match the
        study, ClusterError where another controller holds the study or the disk is full.
        """
        raise NotImplementedError
