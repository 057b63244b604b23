"""fp16's loss scale and the steps that it leaves out, kept over an interruption.

DeepSpeed's own fp16 code runs here on the CPU: only its question whether the device can is answered
for it, since this is about what is saved and counted and not about speed.
"""

import pytest
import torch
from tiny_job import events_of, make_world, spec_of

from jobs.checkpoint import open_checkpoint
from jobs.engine import deepspeed_engine
from jobs.engine.config import deepspeed_config
from jobs.engine.loss_scale import KEY, LossScale
from jobs.events import Failed, Finished, Step, Stopped, event_from_json
from jobs.place import Place
from jobs.run import run_job

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SAMPLES = 40  # ten steps of four
TOO_HIGH = 23  # power of two: gradients overflow in four steps or more


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def half(monkeypatch):
    """A job in fp16 on a device that is said to be able to; begins with a loss scale 2**power."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    deepspeed_engine._deepspeed()
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)

    def begin(power):
        def config(spec, ranks, _device):
            made = deepspeed_config(spec, ranks, "cuda")
            if spec.deepspeed.precision == "fp16":
                made["fp16"]["initial_scale_power"] = power
            return made

        monkeypatch.setattr(deepspeed_engine, "deepspeed_config", config)

    return begin


def job(base, stage, **changes):
    return spec_of(
        base,
        deepspeed={"zero_stage": stage, "precision": "fp16"},
        model={"moca": {"init_std": 0.02}},
        optim={"samples": SAMPLES},
        checkpoint={"every_samples": None},
        **changes,
    )


def stopped_after(spec, folder, steps):
    polls = iter(range(100))
    stop = {"stop_requested": lambda: "asked" if next(polls) == steps - 1 else None}
    events = list(run_job(spec, Place(folder=folder, **stop)))
    assert isinstance(events[-1], Stopped), events[-1]
    return events


def kept(folder):
    newest = max((folder / "checkpoints").glob("samples-*"))
    return open_checkpoint(newest)[0].tensors()


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_interrupted_among_overflows_it_ends_where_it_would_have(base, half, tmp_path, stage):
    half(TOO_HIGH)
    spec = job(base, stage)
    whole = events_of(spec, tmp_path / "whole")
    assert isinstance(whole[-1], Finished), whole[-1]
    left_out = [e for e in whole if isinstance(e, Step)][-1].overflows
    assert 4 <= left_out < SAMPLES // 4, "some steps must be left out, and some not"
    for steps in (3, left_out + 1):  # with the scale still too high, and after an update
        stopped_after(spec, tmp_path / str(steps), steps)
        again = events_of(spec, tmp_path / str(steps))
        assert isinstance(again[-1], Finished)
        a, b = kept(tmp_path / "whole"), kept(tmp_path / str(steps))
        assert a.keys() == b.keys() and KEY in a
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_step_that_is_left_out_has_seen_its_samples_and_changed_no_weight(base, half, tmp_path):
    half(TOO_HIGH)
    spec = job(base, 0)
    events = stopped_after(spec, tmp_path, 2)
    (last,) = (e for e in events if isinstance(e, Step) and e.samples == 8)
    assert (last.overflows, last.grad_norm) == (2, 0.0)
    *_, updates = kept(tmp_path)[KEY].tolist()
    assert updates == 0
    moments = {k: v for k, v in kept(tmp_path).items() if k.startswith("exp_avg")}
    assert moments and not any(v.any() for v in moments.values())
    steps = [e for e in events_of(spec, tmp_path) if isinstance(e, Step)]
    assert steps[-1].samples == SAMPLES
    assert steps[-1].grad_norm > 0
    # The schedule goes by samples: after the same ones the rate is that of a run in float32.
    full = spec.model_copy(update={"deepspeed": spec.deepspeed.model_copy(
        update={"precision": "fp32"})})  # fmt: skip
    expected = [e for e in events_of(full, tmp_path / "full") if isinstance(e, Step)]
    assert expected[-1].overflows == 0
    assert steps[-1].learning_rate == expected[-1].learning_rate
    assert KEY not in kept(tmp_path / "full")


@pytest.mark.parametrize("stage", [0, 1])
def test_half_precision_takes_the_steps_of_float32(base, half, tmp_path, stage):
    """Losses, norms and weights within what half precision rounds: 2**-11 of each number."""
    half(16)
    spec = job(base, stage)
    full = spec.model_copy(update={"deepspeed": spec.deepspeed.model_copy(
        update={"precision": "fp32"})})  # fmt: skip
    ends = {}
    for name, one in (("half", spec), ("full", full)):
        events = events_of(one, tmp_path / name)
        ends[name] = [e for e in events if isinstance(e, Step)], kept(tmp_path / name)
    (a, half_end), (b, full_end) = ends["half"], ends["full"]
    assert [e.overflows for e in a] == [0] * len(a)
    assert a[0].grad_norm == pytest.approx(b[0].grad_norm, rel=1e-2)
    assert a[-1].loss == pytest.approx(b[-1].loss, rel=1e-2)
    moments = [name for name in full_end if name.startswith("exp_avg_sq/projector")]
    assert moments
    for name in moments:
        torch.testing.assert_close(half_end[name].sum(), full_end[name].sum(), rtol=0.2, atol=0)


def test_every_step_of_an_overflowing_run_can_be_kept_and_read_again(base, half, tmp_path):
    """DeepSpeed's norm of such a step is infinite at stage 0, which JSON does not know."""
    half(TOO_HIGH)
    steps = [e for e in events_of(job(base, 0), tmp_path) if isinstance(e, Step)]
    assert steps[0].overflows == 1
    assert [event_from_json(e.model_dump(mode="json")) for e in steps] == steps


@pytest.mark.parametrize("stage", [0, 1])
def test_gradients_that_overflow_at_any_scale_end_the_run_as_diverged(base, half, tmp_path, stage):
    half(1)
    spec = job(base, stage)

    class Broken(LossScale):
        @property
        def overflowed(self):
            self._optimizer.overflow = True
            self._scaler.cur_scale = 1
            return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deepspeed_engine, "LossScale", Broken)
        last = events_of(spec, tmp_path)[-1]
    assert isinstance(last, Failed) and last.kind == "diverged"
    assert "step 1: use bf16" in last.reason and last.detail == ""


@pytest.mark.parametrize(("before", "after"), [("fp16", "bf16"), ("bf16", "fp16")])
def test_another_precision_goes_on_with_the_count_of_updates(base, half, tmp_path, before, after):
    half(TOO_HIGH)
    spec = job(base, 1)
    engines = [spec.deepspeed.model_copy(update={"precision": one}) for one in (before, after)]
    first, second = (spec.model_copy(update={"deepspeed": engine}) for engine in engines)
    overflows = [
        e.overflows for e in stopped_after(first, tmp_path, 3) if isinstance(e, Step)
    ][-1]  # fmt: skip
    assert overflows == (3 if before == "fp16" else 0)
    events = events_of(second, tmp_path)
    assert isinstance(events[-1], Finished)
    steps = [e for e in events if isinstance(e, Step)]
    assert steps[-1].overflows >= overflows
