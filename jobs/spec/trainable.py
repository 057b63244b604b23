"""What of a model learns, and how fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.spec.base import Frozen, PositiveFloat, PositiveInt


class LoraSpec(Frozen):
    """Low-rank updates of the language model's linear layers (Hu et al. 2021, arXiv 2106.09685).

    alpha: the update is scaled by alpha / rank.
    targets: names of linear layers, such as q_proj, or all of them in the decoder layers.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"


class LearningRates(Frozen):
    """A rate for a part of its own, None to follow `optim.learning_rate`."""

    projector: PositiveFloat | None = None
    vision: PositiveFloat | None = None
    language: PositiveFloat | None = None
    lora: PositiveFloat | None = None


class TrainableSpec(Frozen):
    """Which parts learn; all others stay as they are.

    vision_from: from this layer of the vision encoder (1-based) to the features, or 'all'.
    language_until: decoder layers from the first to this one (1-based, without the embeddings), or
        'all' for the whole language model.
    lora: low-rank updates of the language model in place of `language_until`.
    """

    projector: bool = True
    vision_from: Literal["all"] | PositiveInt | None = None
    language_until: Literal["all"] | PositiveInt | None = None
    lora: LoraSpec | None = None
    learning_rates: LearningRates = LearningRates()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that learn, as in `Started.trainable`; MoCa comes on top."""
        learning = {
            "vision": self.vision_from is not None,
            "projector": self.projector,
            "language": self.language_until is not None,
            "lora": self.lora is not None,
        }
        return tuple(name for name, learns in learning.items() if learns)

    def __str__(self) -> str:
        words = {
            "vision": f"vision from {self.vision_from}",
            "language": f"language until {self.language_until}",
            "lora": f"lora {self.lora.rank if self.lora else ''}",
        }
        return " + ".join(words.get(part, part) for part in self.parts)

    @model_validator(mode="after")
    def _consistent(self) -> TrainableSpec:
        if self.lora is not None and self.language_until is not None:
            raise ValueError(
                "lora and language_until both change the language model: keep one of them"
            )
        given = self.learning_rates.model_dump(exclude_none=True)
        idle = [name for name in given if name not in self.parts]
        if idle:
            raise ValueError(
                f"learning_rates.{idle[0]}: {given[idle[0]]:g} is for a part that does not learn: "
                f"remove it, or let the part learn (learns: {', '.join(self.parts) or 'nothing'})"
            )
        return self
