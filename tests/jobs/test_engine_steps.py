"""DeepSpeed's steps against a plain torch loop, and its stages against each other."""

import pytest
import torch
from tiny_job import make_world, spec_of

from jobs.data.loader import BatchLoader
from jobs.engine.deepspeed_engine import Engine
from jobs.engine.schedule import rate_factor
from jobs.model.build import build_model
from jobs.place import Place

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
STEPS = 5


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def spec_with(base, **deepspeed):
    return spec_of(
        base,
        deepspeed=deepspeed,
        model={"moca": {"init_std": 0.02, "learning_rate": 3e-2}},
        optim={"weight_decay": 0.1, "gradient_clip": 0.05},  # below the norms here, so it acts
    )


def batches_of(spec, built):
    loader = BatchLoader(
        spec.data, seed=spec.seed, tokenizer=built.tokenizer,
        image_processor=built.image_processor, global_batch=4, rank=0, world_size=1,
    )  # fmt: skip
    try:
        return [next(loader) for _ in range(STEPS)]
    finally:
        loader.close()


def trained(spec, folder):
    """Losses, norms and final state of a few steps through DeepSpeed."""
    built = build_model(spec.model, spec.seed)
    batches = batches_of(spec, built)
    engine = Engine(built.model, spec, Place(folder=folder))
    results = [engine.step(batch, i) for i, batch in enumerate(batches)]
    tensors = engine.gather()
    engine.close()
    return results, tensors


def plain(spec):
    """The same with nothing but torch."""
    built = build_model(spec.model, spec.seed)
    model, optim = built.model, spec.optim
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    moca = [p for n, p in named if n.startswith("moca")]
    rest = [p for n, p in named if not n.startswith("moca")]
    matrices, others = ([p for p in rest if (p.ndim > 1) is wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": others},
              {"params": moca}]  # fmt: skip
    adamw = torch.optim.AdamW(groups, weight_decay=0.0)
    losses, norms = [], []
    for step, batch in enumerate(batches_of(spec, built)):
        model.train()
        rates = (optim.learning_rate, optim.learning_rate, spec.model.moca.learning_rate)
        for group, rate in zip(adamw.param_groups, rates, strict=True):
            group["lr"] = rate * rate_factor(step, optim)
        adamw.zero_grad()
        loss = model(batch)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(rest + moca, optim.gradient_clip)))
        adamw.step()
        losses.append(float(loss.detach()))
    return losses, norms, {n: p.detach() for n, p in named}


def test_stage_0_equals_a_plain_loop(base, tmp_path):
    spec = spec_with(base, zero_stage=0)
    losses, norms, weights = plain(spec)
    results, tensors = trained(spec, tmp_path)
    assert [r.loss for r in results] == pytest.approx(losses, abs=1e-6)
    assert [r.grad_norm for r in results] == pytest.approx(norms, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(tensors[f"weight/{name}"], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_stages_equal_stage_0(base, tmp_path, stage):
    one, first = trained(spec_with(base, zero_stage=0), tmp_path)
    other, second = trained(spec_with(base, zero_stage=stage), tmp_path)
    assert [r.loss for r in other] == pytest.approx([r.loss for r in one], abs=1e-6)
    assert [r.grad_norm for r in other] == pytest.approx([r.grad_norm for r in one], rel=1e-5)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-5, rtol=0)


def test_accumulation_does_not_change_the_steps(base, tmp_path):
    one, first = trained(spec_with(base), tmp_path)
    four, second = trained(spec_with(base, micro_batch=1), tmp_path)
    assert [r.loss for r in four] == pytest.approx([r.loss for r in one], abs=1e-6)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "bf16"), (1, "bf16"), (3, "bf16"), (3, "fp32")]
)
def test_what_was_gathered_can_be_put_back_exactly(base, tmp_path, stage, precision):
    spec = spec_with(base, zero_stage=stage, precision=precision)
    _, tensors = trained(spec, tmp_path)
    assert all(value.dtype == torch.float32 for value in tensors.values())
    assert any(value.abs().sum() > 0 for name, value in tensors.items() if "exp_avg_sq" in name)
    weights = {k.removeprefix("weight/"): v for k, v in tensors.items() if k.startswith("weight/")}
    built = build_model(spec.model, spec.seed)
    engine = Engine(built.model, spec, Place(folder=tmp_path), weights)
    engine.restore(tensors, STEPS)
    again = engine.gather()
    engine.close()
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
