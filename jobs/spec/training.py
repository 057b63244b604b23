"""How a job is optimised, run by DeepSpeed and saved."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.spec.base import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt


class OptimSpec(Frozen):
    """AdamW with warm-up; the budget is counted in samples, never in steps or time.

    samples: training samples of a full run. global_batch: samples an optimizer step, all ranks.
    warmup_ratio: share of the steps in which the rate rises linearly.
    weight_decay: of matrices only; biases, norms and MoCa's calibrations do not decay.
    """

    learning_rate: PositiveFloat = 1e-3
    samples: PositiveInt = 4096
    global_batch: PositiveInt = 16
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: NonNegativeFloat = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    gradient_clip: NonNegativeFloat = 1.0

    @property
    def steps(self) -> int:
        """Optimizer steps of a full run; an incomplete last batch is left out."""
        return max(1, self.samples // self.global_batch)


class DeepspeedSpec(Frozen):
    """How DeepSpeed runs the job.

    micro_batch: samples a rank and forward pass; None takes global_batch / ranks.
    offload_optimizer: keep master weights and moments in the host's memory and update them there;
        from ZeRO stage 1 on. offload_parameters: keep the weights there too; at ZeRO stage 3.
    activation_checkpointing: keep only what goes into each transformer layer and compute the rest
        again in the backward pass: less memory, one more forward pass.
    """

    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    micro_batch: PositiveInt | None = None
    offload_optimizer: bool = False
    offload_parameters: bool = False
    activation_checkpointing: bool = False

    @model_validator(mode="after")
    def _stage_can_offload(self) -> DeepspeedSpec:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError(
                "offload_optimizer needs ZeRO: set zero_stage to 1, 2 or 3, or leave it out"
            )
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(
                f"offload_parameters needs zero_stage 3, not {self.zero_stage}: set it, or leave "
                "offload_parameters out"
            )
        return self


class CheckpointSpec(Frozen):
    """When a run is saved, and which of its checkpoints stay on the disk.

    every_samples: None saves only after the last step and when stopped. keep: how many of the
    newest stay. keep_best: how many of the best by MIR stay as well, out of those that were saved
    where they were scored. keep_every_samples: the first at or past each multiple stays for good.
    """

    every_samples: PositiveInt | None = 1024
    keep: PositiveInt = 2
    keep_best: Annotated[int, Field(ge=0)] = 0
    keep_every_samples: PositiveInt | None = None
