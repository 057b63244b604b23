"""Scores and sweeps for the tests of this folder."""

from hypothesis import strategies as st

from jobs.events import GuardReading, Scored
from mir.report import MirReport, Protocol
from sweeps.spec import SweepSpec


def scored(samples, mir, loss=3.0, gap=0.5, *, error=0.01, gap_error=0.01, pairs=48):
    report = MirReport(
        mir=mir,
        standard_error=error,
        protocol=Protocol(variant="exact", pairs=pairs),
        layers=(),
    )
    reading = GuardReading(
        validation_loss=loss, wrong_loss=loss + gap, gap=gap, gap_error=gap_error
    )
    return Scored(samples=samples, mir=report.to_json(), guard=reading, seconds=0.1)


@st.composite
def curve(draw):
    finite = st.floats(0.1, 10)
    count = draw(st.integers(1, 5))
    return [
        scored(100 * i, draw(finite), draw(finite), draw(st.floats(-2, 2))) for i in range(count)
    ]


def a_sweep(name="demo", space=None, samples=1000, **fields):
    base = {
        "data": {
            "sources": {"good": {"style": "detailed"}, "bad": {"style": "mismatched"}},
            "validation": {"split": "validation"},
        },
        "optim": {"samples": samples, "global_batch": 10},
        "score": {"every_samples": 100},
    }
    space = space or {
        "data": {"mixture": {"mixture": "all"}},
        "optim": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        "model": {
            "moca": {"branches": {"off": None, "on": {"init_std": {"low": 0, "high": 0.05}}}}
        },
    }
    return SweepSpec.model_validate({"name": name, "base": base, "space": space, **fields})


def no_study(name):
    raise AssertionError(name)


def ask(study):
    """The next trial, as a controller asks for it."""
    number = len(study.states())
    queue = study.first(number, no_study)
    return study.ask(number, queue[0] if queue else {})
