"""A checkpoint as a model again, to score it or to look at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.checkpoint import open_checkpoint
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

    Raises DataError if `path` is no checkpoint or its weights do not fit the model, ConfigError if
    the frozen parts that it names cannot be loaded.
    """
    checkpoint, spec = open_checkpoint(path)
    built = build_model(spec.model, spec.seed)
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
