"""Which model a job builds and what of it learns."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from jobs.spec.base import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt
from jobs.spec.trainable import TrainableSpec

# What {n} and {q} stand for is any whole number above 0: mlp2x_gelu, resampler64.
PROJECTORS = ("linear", "mlp{n}x_gelu", "pixel-shuffle", "resampler{q}")
Shorthand = Literal["projector", "projector+language", "everything"]
_SHORTHANDS = {
    "projector": TrainableSpec(),
    "projector+language": TrainableSpec(language_until="all"),
    "everything": TrainableSpec(language_until="all", vision_from="all"),
}


def projector_number(name: str) -> tuple[str, int | None]:
    """The entry of PROJECTORS that `name` means, and its number: ('mlp{n}x_gelu', 4).

    Raises ValueError, with the known names, for any other.
    """
    for known in PROJECTORS:
        pattern = re.sub(r"\\\{.\\\}", "([1-9][0-9]{0,3})", re.escape(known))
        found = re.fullmatch(pattern, name)
        if found:
            return known, int(found[1]) if found.groups() else None
    raise ValueError(f"{name!r} is refused. Known: {', '.join(PROJECTORS)}, with n and q above 0.")


def _projector(name: str) -> str:
    projector_number(name)
    return name


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


class RandomModel(Frozen):
    """An architecture with random weights.

    random: a folder or hub name with a config.json, a JSON file, or the configuration itself, as
        in {model_type: llama, hidden_size: 64, ...}.
    seed: of the weights; not the job's, so that all trials of a sweep have the same model.
    """

    random: str | dict[str, Any]
    seed: int = 0

    def __str__(self) -> str:
        given = self.random
        return f"random {given if isinstance(given, str) else given.get('model_type')}"


class RandomVision(RandomModel):
    """image_processor: folder or hub name of the preprocessing; None takes the one beside `random`,
    and where there is none resizes to the encoder's `image_size` and scales to -1 to 1."""

    image_processor: str | None = None


class RandomLanguage(RandomModel):
    """tokenizer: 'embedded', a folder or a hub name; None takes the one beside `random`."""

    tokenizer: str | None = None


class ModelSpec(Frozen):
    """Vision encoder -> projector -> causal language model.

    vision, language: 'embedded' for the shipped pair, a folder or hub name, or random weights.
    projector: one of PROJECTORS.
    projector_norm: normalise features before the projector, and scale vision tokens to the mean
        norm of the word embeddings after it.
    select_layer: -1 for the encoder's output after its final norm, otherwise which entry of its
        hidden states (0 is the patch embedding; LLaVA takes -2 of CLIP).
    class_token: whether the encoder's class token is a vision token; registers never are.
    trainable: which parts learn, by a name or as a mapping with learning rates.
    moca: None trains without MoCa.
    feature_cache: where features of a frozen encoder are kept for all trials: 'auto' in the study's
        folder, 'off', or a folder. feature_cache_gib: how large it may grow.
    """

    vision: str | RandomVision = "embedded"
    language: str | RandomLanguage = "embedded"
    projector: Annotated[str, AfterValidator(_projector)] = "mlp2x_gelu"
    projector_norm: bool = False
    select_layer: int = -1
    class_token: Literal["drop", "keep"] = "drop"
    trainable: Shorthand | TrainableSpec = "projector"
    moca: MocaSpec | None = None
    feature_cache: Annotated[str, Field(min_length=1)] = "auto"
    feature_cache_gib: PositiveFloat = 8.0

    @property
    def learns(self) -> TrainableSpec:
        """What learns, a name written out."""
        if isinstance(self.trainable, TrainableSpec):
            return self.trainable
        return _SHORTHANDS[self.trainable]

    def learning_rate(self, part: str, default: float) -> float:
        """The full rate of a part that learns; `default` where it has none of its own."""
        own = self.moca.learning_rate if part == "moca" and self.moca else None
        leader = "projector" if part == "moca" else part
        return own or getattr(self.learns.learning_rates, leader) or default

    @model_validator(mode="after")
    def _something_learns(self) -> ModelSpec:
        idle = self.moca is None or self.moca.kind == "noise"
        if idle and not self.learns.parts:
            raise ValueError(
                "trainable: nothing learns: set projector to true, or name another part"
            )
        return self
