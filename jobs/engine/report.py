"""What DeepSpeed says it does, held against what it was asked to do."""

from __future__ import annotations

from typing import Any

from mir.errors import EngineError


def require_obeyed(config: dict[str, Any], engine: Any) -> None:
    """Raise EngineError, naming every setting, unless the engine reports back `config`.

    config: as `deepspeed_config` gives it. engine: what `deepspeed.initialize` made of it.
    A library that rounds, defaults or ignores a setting would otherwise make the run another one.
    """
    asked, told = asked_for(config), reported(engine)
    wrong = [f"{name} {told[name]!r} in place of {asked[name]!r}" for name in asked
             if told[name] != asked[name]]  # fmt: skip
    if wrong:
        raise EngineError(
            f"DeepSpeed runs with {'; '.join(wrong)}: this is not the job that was asked for. "
            "Install the DeepSpeed version that mirsweep names, or report it"
        )


def asked_for(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a DeepSpeed dictionary that an engine can be asked about."""
    zero = config["zero_optimization"]
    return {
        "train_batch_size": config["train_batch_size"],
        "train_micro_batch_size_per_gpu": config["train_micro_batch_size_per_gpu"],
        "gradient_accumulation_steps": config["gradient_accumulation_steps"],
        "gradient_clipping": config["gradient_clipping"],
        "zero_stage": zero["stage"],
        "precision": next((name for name in ("bf16", "fp16") if name in config), "fp32"),
        "offload_optimizer": "offload_optimizer" in zero,
        "offload_parameters": "offload_param" in zero,
    }


def reported(engine: Any) -> dict[str, Any]:
    """The same settings as the engine tells them."""
    parameters = engine.zero_offload_param()
    return {
        "train_batch_size": engine.train_batch_size(),
        "train_micro_batch_size_per_gpu": engine.train_micro_batch_size_per_gpu(),
        "gradient_accumulation_steps": engine.gradient_accumulation_steps(),
        "gradient_clipping": engine.gradient_clipping(),
        "zero_stage": engine.zero_optimization_stage(),
        "precision": _precision(engine),
        "offload_optimizer": bool(engine.zero_cpu_offload()),
        "offload_parameters": parameters is not None and parameters.device == "cpu",
    }


def _precision(engine: Any) -> str:
    if engine.bfloat16_enabled():
        return "bf16"
    return "fp16" if engine.fp16_enabled() else "fp32"
