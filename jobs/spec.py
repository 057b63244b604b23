"""A job as a value: everything that decides what a run computes, and nothing else.

Resources (how many ranks, on what) are not part of it: the same job gives the same numbers
however it is sharded, so they must not change its identity.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mir.report import Variant

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0)]


class Frozen(BaseModel):
    """Immutable, refuses unknown fields; strings such as '1e-3' are read as numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class MocaSpec(Frozen):
    """Modality calibration after decoder layers, on vision positions (design section 4).

    layers: 1-based decoder layers, or 'all'.
    init_std: standard deviation of the initial scale and shift; 0 leaves the model unchanged.
    learning_rate: its own rate, None to follow the projector's.
    """

    kind: Literal["scale-shift", "scale-only", "shift-only", "layernorm", "noise"] = "scale-shift"
    layers: Literal["all"] | tuple[PositiveInt, ...] = "all"
    init_std: NonNegativeFloat = 0.0
    learning_rate: PositiveFloat | None = None


class ModelSpec(Frozen):
    """Vision encoder -> projector -> causal language model.

    vision, language: 'embedded' for the shipped pair, otherwise a folder or hub name.
    trainable: which parts learn.
    moca: None trains without MoCa.
    """

    vision: str = "embedded"
    language: str = "embedded"
    projector: Literal["linear", "mlp2x_gelu", "mlp3x_gelu", "pixel-shuffle"] = "mlp2x_gelu"
    select_layer: int = -1
    trainable: Literal["projector", "projector+language", "everything"] = "projector"
    moca: MocaSpec | None = None


class SourceSpec(Frozen):
    """One source of captioned pictures.

    kind: 'scenes' is the embedded world; 'jsonl' one JSON object a line with the fields `image`
        and `caption`; 'llava' the JSON list of LLaVA with an image folder.
    style: caption style of an embedded source.
    split: which part of an embedded source.
    size: number of samples of an embedded source.
    path: the JSON file; images: the folder its image paths are relative to (default: its own).
    """

    kind: Literal["scenes", "jsonl", "llava"] = "scenes"
    style: str | None = None
    split: Literal["train", "validation"] = "train"
    size: PositiveInt | None = None
    path: str | None = None
    images: str | None = None


class DataSpec(Frozen):
    """Sources, their mixture weights and the fixed validation set.

    mixture: weight by source name, non-negative, normalised to sum 1; empty means uniform.
    validation: where the guard's pictures and captions come from.
    max_bad_fraction: share of unreadable samples beyond which the job ends.
    """

    sources: dict[str, SourceSpec]
    mixture: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    validation: SourceSpec
    validation_samples: PositiveInt = 64
    max_caption_tokens: PositiveInt = 64
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01

    @model_validator(mode="after")
    def _mixture_names_sources(self) -> DataSpec:
        if not self.sources:
            raise ValueError("sources is empty: name at least one source")
        unknown = sorted(set(self.mixture) - set(self.sources))
        if unknown:
            raise ValueError(
                f"mixture names unknown sources {unknown}; known: {sorted(self.sources)}"
            )
        if self.mixture and sum(self.mixture.values()) <= 0:
            raise ValueError("mixture weights sum to 0: give at least one source a weight above 0")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Normalised weight of every source, in the order of `sources`; they sum to 1."""
        given = self.mixture or dict.fromkeys(self.sources, 1.0)
        total = sum(given.values())
        return {name: given.get(name, 0.0) / total for name in self.sources}


class OptimSpec(Frozen):
    """AdamW with warm-up; the budget is counted in samples, never in steps or time.

    samples: training samples of a full run. global_batch: samples an optimizer step, all ranks.
    warmup_ratio: share of the steps in which the rate rises linearly.
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
    """

    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    micro_batch: PositiveInt | None = None


class TextsSpec(Frozen):
    """The unrelated texts of MIR's text side.

    source: 'embedded' for the shipped texts, otherwise a text file (one text a line) or a folder
        of .txt files.
    """

    source: str = "embedded"


class ScoreSpec(Frozen):
    """When and how a job scores itself; equal for all trials of a study.

    every_samples: cadence in samples seen; the first score is before the first step, the last
        after the last step.
    pairs: number of image-text pairs N. images: where the pictures come from, None takes the
        validation source. template: how image and text are joined.
    """

    every_samples: PositiveInt = 1024
    variant: Variant = "exact"
    pairs: PositiveInt = 48
    images: SourceSpec | None = None
    texts: TextsSpec = TextsSpec()
    template: Literal["plain", "chat"] = "plain"
    max_text_tokens: PositiveInt = 64
    batch_size: PositiveInt = 16


class CheckpointSpec(Frozen):
    """every_samples: None saves only after the last step and when stopped; keep: newest kept."""

    every_samples: PositiveInt | None = 1024
    keep: PositiveInt = 2


class JobSpec(Frozen):
    """One run. `digest` is its identity: equal content, equal digest."""

    model: ModelSpec = ModelSpec()
    data: DataSpec
    optim: OptimSpec = OptimSpec()
    deepspeed: DeepspeedSpec = DeepspeedSpec()
    score: ScoreSpec = ScoreSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values only; `JobSpec.model_validate` restores an equal spec."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
