"""A checkpoint as a model again: to go on from it, to score it or to look at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from jobs.checkpoint import (
    Checkpoint,
    frozen_beside,
    frozen_parts,
    open_checkpoint,
    require_same_frozen,
)
from jobs.model.build import Built, build_model
from jobs.model.lora import updates
from jobs.model.names import MARK, part_of, plain_name, updated_weights
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
    built = build_job(spec)
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


def build_job(spec: JobSpec, attention: str | None = None, *, as_stored: bool = False) -> Built:
    """The model that a job begins with, on the CPU in float32: as built, or as its start is.

    attention, as_stored: see `build_model`; a start is gone on from in float32. Raises ConfigError
    for what cannot be built, DataError for a start that is no checkpoint, does not fit, or whose
    frozen parts are no longer what they were.
    """
    chain = _chain(spec)
    # The first job drew the parts that are made anew; what has not learnt since is still that.
    first = chain[0][1].seed if chain else spec.seed
    built = build_model(
        spec.model, first, attention, lora_seed=spec.seed, as_stored=as_stored and not chain
    )
    for checkpoint, job in chain:
        _go_on_from(checkpoint, job, built.model)
    return built


def _chain(spec: JobSpec) -> list[tuple[Checkpoint, JobSpec]]:
    """The checkpoints behind a job, the first first: each holds only what it trained."""
    chain: list[tuple[Checkpoint, JobSpec]] = []
    while spec.start is not None:
        checkpoint, spec = open_checkpoint(Path(spec.start))
        chain.insert(0, (checkpoint, spec))
    return chain


@torch.no_grad()
def _go_on_from(checkpoint: Checkpoint, job: JobSpec, model: nn.Module) -> None:
    """Make the model what that of the earlier `job` was. Its LoRA is folded into the weights, in
    float64, so that float32 keeps next to nothing of how it was added up."""
    weights = checkpoint.weights()
    own = {plain_name(n): value for n, value in model.state_dict().items() if MARK not in n}
    given = {plain_name(n): value for n, value in weights.items() if MARK not in n}
    odd = [n for n in updated_weights(weights) if n not in own]
    odd += [n for n, value in given.items() if n not in own or own[n].shape != value.shape]
    held = {part for part, frozen in checkpoint.frozen.items() if frozen.parameters}
    whole = {part_of(n) for n in given} - held  # all of these had learnt
    parameters = {plain_name(n) for n, _ in model.named_parameters() if MARK not in n}
    odd += [n for n in parameters - given.keys() if part_of(n) in whole]
    if odd:
        raise DataError(
            f"start: {checkpoint.path}: {min(odd)} and {len(odd) - 1} more of its weights do not "
            "fit this model: use the model, projector and MoCa that the checkpoint was made with"
        )
    now = frozen_beside(weights.keys(), model, job)
    require_same_frozen(f"start: {checkpoint.path}", checkpoint.frozen, now)
    for name, value in given.items():
        own[name].copy_(value)
    lora = job.model.learns.lora
    for name, update in updates(weights, lora, model) if lora is not None else ():
        own[name].copy_(own[name].double() + update)
