"""The DeepSpeed dictionary as a pure function of the job and the number of ranks."""

from __future__ import annotations

from typing import Any

from jobs.spec import DeepspeedSpec, JobSpec
from jobs.spec.batch import split_batch
from mir.errors import ConfigError

# Elements of one reduction bucket. DeepSpeed's default of 5e8 sets 2 GB aside for each rank.
_BUCKET = 20_000_000


def deepspeed_config(spec: JobSpec, ranks: int, device: str) -> dict[str, Any]:
    """What `deepspeed.initialize` is given; everything else in it stays at DeepSpeed's default.

    device: 'cpu' or 'cuda'. Raises ConfigError if the global batch cannot be spread over `ranks`
    or the device cannot compute in the precision.
    """
    if device == "cpu" and spec.deepspeed.precision == "fp16":
        raise ConfigError("deepspeed.precision: fp16 needs a GPU: use fp32 or bf16 on the CPU")
    split = split_batch(spec.optim.global_batch, ranks, spec.deepspeed.micro_batch)
    config: dict[str, Any] = {
        "train_batch_size": spec.optim.global_batch,
        "train_micro_batch_size_per_gpu": split.micro,
        "gradient_accumulation_steps": split.accumulation,
        "gradient_clipping": spec.optim.gradient_clip,
        "zero_optimization": _zero(spec.deepspeed, device),
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if spec.deepspeed.offload_optimizer:
        # Else DeepSpeed insists on its own CPU Adam, which needs a compiler on every node.
        config["zero_force_ds_cpu_optimizer"] = False
    if spec.deepspeed.precision != "fp32":
        config[spec.deepspeed.precision] = {"enabled": True}
    return config


def _zero(spec: DeepspeedSpec, device: str) -> dict[str, Any]:
    if spec.zero_stage == 0:
        return {"stage": 0}
    zero: dict[str, Any] = {"stage": spec.zero_stage, "reduce_bucket_size": _BUCKET}
    # Pinned memory is for copies to a GPU; without one there is nothing to pin for.
    host = {"device": "cpu", "pin_memory": device == "cuda"}
    if spec.offload_optimizer:
        zero["offload_optimizer"] = host
    if spec.offload_parameters:
        zero["offload_param"] = host
    if spec.zero_stage == 3:
        return {**zero, "stage3_prefetch_bucket_size": _BUCKET}
    return {**zero, "allgather_bucket_size": _BUCKET}
