"""The pure parts of the engine: its dictionary, the split of a batch, the learning rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine.config import deepspeed_config
from jobs.engine.report import require_obeyed
from jobs.engine.schedule import rate_factor
from jobs.spec import JobSpec, OptimSpec
from jobs.spec.batch import split_batch
from mir.errors import ConfigError, EngineError

SOURCE = {"kind": "jsonl", "path": "a.jsonl"}


def spec(**deepspeed) -> JobSpec:
    return JobSpec.model_validate(
        {"data": {"sources": {"a": SOURCE}, "validation": SOURCE}, "deepspeed": deepspeed}
    )


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 8))
def test_a_split_multiplies_back_to_the_global_batch(accumulation, ranks, micro):
    whole = micro * accumulation * ranks
    split = split_batch(whole, ranks, micro)
    assert split.micro * split.accumulation * ranks == whole
    assert split_batch(whole, ranks, None).accumulation == 1


@pytest.mark.parametrize(
    ("whole", "ranks", "micro", "remedy"),
    [(16, 3, None, "15 or 18"), (16, 2, 3, "12 or 18"), (2, 4, None, "use 4")],
)
def test_what_does_not_divide_is_refused_with_the_nearest_that_does(whole, ranks, micro, remedy):
    with pytest.raises(ConfigError, match=rf"optim.global_batch: {whole} .*{remedy}"):
        split_batch(whole, ranks, micro)


def test_the_dictionary_follows_the_spec():
    config = deepspeed_config(spec(zero_stage=2, precision="bf16", micro_batch=2), 4, "cpu")
    assert config["train_batch_size"] == 16
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 2
    assert config["zero_optimization"]["stage"] == 2
    assert config["bf16"] == {"enabled": True}
    assert "fp16" not in config


def test_half_precision_needs_a_gpu():
    assert deepspeed_config(spec(precision="fp16"), 1, "cuda")["fp16"] == {"enabled": True}
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        deepspeed_config(spec(precision="fp16"), 1, "cpu")


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@given(steps=st.integers(1, 200), warmup=st.floats(0, 1))
def test_the_rate_rises_to_its_full_height_and_never_leaves_it_below_zero(schedule, steps, warmup):
    optim = OptimSpec(samples=steps, global_batch=1, schedule=schedule, warmup_ratio=warmup)
    factors = [rate_factor(step, optim) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = min(steps, math.ceil(warmup * steps))
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_closed_forms_of_the_schedules():
    settings = {"samples": 100, "global_batch": 1, "warmup_ratio": 0.0}
    assert rate_factor(50, OptimSpec(schedule="linear", **settings)) == pytest.approx(0.5)
    assert rate_factor(25, OptimSpec(schedule="cosine", **settings)) == pytest.approx(
        0.5 + 0.25 * math.sqrt(2)
    )
    assert rate_factor(99, OptimSpec(schedule="constant", **settings)) == 1.0
    warm = OptimSpec(samples=100, global_batch=1, warmup_ratio=0.1)
    assert [rate_factor(s, warm) for s in (0, 9, 10)] == pytest.approx([1 / 11, 10 / 11, 1.0])


def test_offloading_needs_a_stage_that_can():
    with pytest.raises(ValueError, match="set zero_stage to 1, 2 or 3"):
        spec(offload_optimizer=True)
    with pytest.raises(ValueError, match="offload_parameters needs zero_stage 3, not 2"):
        spec(zero_stage=2, offload_parameters=True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_offloading_is_asked_for_with_pinned_memory_on_a_gpu_only(device):
    both = {"offload_optimizer": True, "offload_parameters": True}
    config = deepspeed_config(spec(zero_stage=3, **both), 1, device)
    host = {"device": "cpu", "pin_memory": device == "cuda"}
    assert config["zero_optimization"]["offload_optimizer"] == host
    assert config["zero_optimization"]["offload_param"] == host
    assert config["zero_force_ds_cpu_optimizer"] is False
    assert "offload_optimizer" not in deepspeed_config(spec(), 1, device)["zero_optimization"]


class _Engine:
    """Reports what it is told to report."""

    def __init__(self, **told):
        self._told = told

    def __getattr__(self, name):
        return lambda: self._told[name]


def engine_for(config, **changes):
    told = {
        "train_batch_size": config["train_batch_size"],
        "train_micro_batch_size_per_gpu": config["train_micro_batch_size_per_gpu"],
        "gradient_accumulation_steps": config["gradient_accumulation_steps"],
        "gradient_clipping": config["gradient_clipping"],
        "zero_optimization_stage": config["zero_optimization"]["stage"],
        "bfloat16_enabled": "bf16" in config,
        "fp16_enabled": "fp16" in config,
        "zero_cpu_offload": "offload_optimizer" in config["zero_optimization"],
        "zero_offload_param": None,
    }
    return _Engine(**{**told, **changes})


def test_an_engine_that_obeys_passes_and_one_that_does_not_is_named():
    config = deepspeed_config(spec(zero_stage=1, precision="bf16", micro_batch=4), 2, "cpu")
    require_obeyed(config, engine_for(config))
    with pytest.raises(EngineError) as refused:
        require_obeyed(
            config,
            engine_for(config, gradient_accumulation_steps=1, bfloat16_enabled=False),
        )
    told = str(refused.value)
    assert "gradient_accumulation_steps 1 in place of 2" in told
    assert "precision 'fp32' in place of 'bf16'" in told
    assert "\n" not in told
