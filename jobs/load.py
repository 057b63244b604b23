"""A checkpoint as a model again, to score it or to look at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from jobs.checkpoint import frozen_parts, open_checkpoint, require_same_frozen
from jobs.model.build import Built, build_model
from jobs.spec import JobSpec
from mir.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Loaded(Built):
    """The model with its trained weights and MoCa, on the CPU in evaluation mode, and its job."""

    spec: JobSpec
    samples: int


def load_checkpoint(path: Path) -> Loaded:
    """Build the job's model and put the checkpoint's weights into it.

    Raises DataError if `path` is no checkpoint, its weights do not fit the model, or the frozen
    parts are not those that it was trained with; ConfigError if these cannot be loaded.
    """
    checkpoint, spec = open_checkpoint(path)
    built = build_model(spec.model, spec.seed)
    load_start(built.model, spec)
    require_same_frozen(str(path), checkpoint.frozen, frozen_parts(built.model, spec))
    weights = checkpoint.weights()
    trained = {name for name, p in built.model.named_parameters() if p.requires_grad}
    if trained != set(weights):
        odd = sorted(trained ^ set(weights))
        raise DataError(
            f"{path}: its weights do not fit model {spec.model.vision} + {spec.model.language}: "
            f"{odd[0]} and {len(odd) - 1} more are in only one of them"
        )
    built.model.load_state_dict(weights, strict=False)
    return Loaded(
        model=built.model,
        tokenizer=built.tokenizer,
        image_processor=built.image_processor,
        spec=spec,
        samples=checkpoint.progress.samples,
    )


def load_start(model: nn.Module, spec: JobSpec) -> None:
    """Put the weights that the job begins with into a model as it was built.

    A start that itself began from a checkpoint is followed back to the first, because each holds
    only what it trained. Raises DataError for a start that is no checkpoint or does not fit.
    """
    if spec.start is None:
        return
    checkpoint, earlier = open_checkpoint(Path(spec.start))
    load_start(model, earlier)
    weights, own = checkpoint.weights(), model.state_dict()
    odd = sorted(n for n, value in weights.items() if n not in own or own[n].shape != value.shape)
    if odd:
        raise DataError(
            f"start: {spec.start}: its {odd[0]} and {len(odd) - 1} more do not fit this model: "
            "use the model, projector, LoRA and MoCa that the checkpoint was made with"
        )
    model.load_state_dict(weights, strict=False)
