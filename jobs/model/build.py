"""From a ModelSpec to a model, its tokenizer and its image processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from jobs.model.language import decoder_parts, load_language
from jobs.model.learning import what_learns
from jobs.model.llava import Llava
from jobs.model.lora import attach_lora
from jobs.model.projectors import Normalised, make_projector
from jobs.model.vision import load_vision
from jobs.spec import MocaSpec, ModelSpec
from mir.moca import Moca


@dataclass(frozen=True, kw_only=True)
class Built:
    """A model with what turns pictures and text into its inputs."""

    model: Llava
    tokenizer: Any
    image_processor: Any


def build_model(
    spec: ModelSpec,
    seed: int,
    attention: str | None = None,
    lora_seed: int | None = None,
    *,
    as_stored: bool = False,
) -> Built:
    """Load the two pre-trained parts and initialise the rest from `seed`, on the CPU in float32.

    attention: transformers' name of the language model's attention, None for its default.
    lora_seed: LoRA's own, None for `seed`. as_stored: of the language model, see `load_language`.
    The caller's random state is left as it was. Raises ConfigError for what cannot be loaded or
    does not fit together.
    """
    import transformers

    # A job's log holds its events; progress bars over tensors would drown them.
    transformers.utils.logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        vision = load_vision(spec.vision, spec.select_layer, spec.class_token)
        language = load_language(spec.language, as_stored=as_stored)
        if attention is not None:
            language.model.set_attn_implementation(attention)  # type: ignore[operator]
        torch.manual_seed(seed)  # loading may draw; the new parts must not depend on it
        projector = make_projector(spec.projector, vision.tower.width, language.width)
        if spec.projector_norm:
            words: Any = language.model.get_input_embeddings()  # type: ignore[operator]
            projector = Normalised(projector, words)
        with torch.no_grad():  # one that does not fit the encoder's tokens says so here
            projector(torch.zeros(1, vision.tower.tokens, vision.tower.width))
    moca = None if spec.moca is None else _moca(spec.moca, language.model, language.width, seed)
    if spec.learns.lora is not None:
        attach_lora(language.model, spec.learns.lora, seed if lora_seed is None else lora_seed)
    learning = what_learns(
        spec.learns,
        vision=vision.tower,
        projector=projector,
        language=language.model,
        moca=moca,
        pixels_1CHW=vision.pixels_1CHW,
    )
    bos = language.tokenizer.bos_token_id
    model = Llava(
        vision=vision.tower,
        projector=projector,
        language=language.model,
        moca=moca,
        learning=learning,
        prefix_ids=() if bos is None else (bos,),
    )
    return Built(model=model, tokenizer=language.tokenizer, image_processor=vision.image_processor)


def _moca(spec: MocaSpec, language: torch.nn.Module, width: int, seed: int) -> Moca:
    return Moca.attach(
        decoder_parts(language)[0],
        width,
        kind=spec.kind,
        layers=spec.layers,
        init_std=spec.init_std,
        generator=torch.Generator().manual_seed(seed),
    )
