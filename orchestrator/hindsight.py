"""Which complete trials still count: judged by all that is known, whatever the order of endings.

The log says what was decided when, and stays as it is. Whoever shows or uses how trials stand
looks at them like this, so that a trial which came early, when nobody was there to be near, does
not win over all that came later.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.state import SweepView, TrialState
from sweeps.guard import NEAR_BEST, outdone


def in_hindsight(view: SweepView) -> SweepView:
    """The view in which complete trials count only if they are near the best of all by now.

    The view itself where no trial stands otherwise than when it ended.
    """
    guard = view.spec.study.guard
    if NEAR_BEST not in guard.constraints:
        return view
    reasons = outdone({number: trial.losses() for number, trial in view.trials.items()}, guard)
    gone = {
        number: trial.outdone(reasons[number])
        for number, trial in view.trials.items()
        if number in reasons and trial.state is TrialState.COMPLETE and trial.feasible
    }
    return replace(view, trials={**view.trials, **gone}) if gone else view
