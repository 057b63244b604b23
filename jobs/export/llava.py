"""Our model as transformers' LlavaForConditionalGeneration, where that is the same model.

Legend: V vision tokens, K vocabulary.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from jobs.load import Loaded
from jobs.model.projectors import Normalised

IMAGE_TOKEN = "<image>"
# A chat template without turns.
PLAIN = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + IMAGE_TOKEN + "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
_VISION = ("clip_vision_model", "siglip_vision_model")
# Decoders whose causal model is the bare decoder and a vocabulary head without bias.
_LANGUAGE = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "smollm3")


def why_not_llava(loaded: Loaded) -> str | None:
    """Why transformers' Llava cannot be this model; None if it can."""
    model, spec = loaded.model, loaded.spec.model
    projector, tower = model.projector, model.vision
    kinds = [type(part) for part in projector] if isinstance(projector, nn.Sequential) else []
    vision = str(getattr(tower.encoder.config, "model_type", "unknown"))  # type: ignore[union-attr]
    language = str(model.language.config.model_type)  # type: ignore[union-attr]
    if isinstance(projector, Normalised):
        return "Llava has no norms around its projector (projector_norm)"
    if kinds != [nn.Linear, nn.GELU, nn.Linear]:
        return f"Llava has no projector {spec.projector!r}, only 'mlp2x_gelu'"
    if vision not in _VISION:
        return f"Llava takes CLIP and SigLIP encoders here, not {vision!r}"
    if vision == "siglip_vision_model" and spec.select_layer == -1:
        return "Llava reads SigLIP before its final norm, select_layer -1 is after it"
    if language not in _LANGUAGE:
        return f"Llava is tested here with {', '.join(_LANGUAGE)}, not with {language!r}"
    return None


def as_llava(loaded: Loaded) -> tuple[Any, Any]:
    """The model and its processor in transformers' own classes; the weights are shared, not copied.

    MoCa must have been removed, and LoRA merged. The vocabulary grows by one row where the
    tokenizer has no image token and the embeddings no spare row for one.
    """
    import transformers

    ours, spec = loaded.model, loaded.spec.model
    language: Any = ours.language
    encoder: Any = ours.vision.encoder
    tokenizer = copy.deepcopy(loaded.tokenizer)
    image_id = _image_token(tokenizer, language)
    clip = encoder.config.model_type == "clip_vision_model"
    # SigLIP has no class token that could be cut off.
    strategy = "default" if clip and spec.class_token == "drop" else "full"
    config = transformers.LlavaConfig(
        vision_config=copy.deepcopy(encoder.config),
        text_config=copy.deepcopy(language.config),
        image_token_index=image_id,
        image_seq_length=int(ours.vision.tokens),  # type: ignore[arg-type]
        projector_hidden_act="gelu",
        vision_feature_select_strategy=strategy,
        vision_feature_layer=spec.select_layer,
        tie_word_embeddings=bool(language.config.tie_word_embeddings),
    )
    with torch.device("meta"):
        theirs: Any = transformers.LlavaForConditionalGeneration(config)
    theirs.model.vision_tower = encoder
    theirs.model.multi_modal_projector.linear_1 = ours.projector[0]  # type: ignore[index]
    theirs.model.multi_modal_projector.linear_2 = ours.projector[2]  # type: ignore[index]
    theirs.model.language_model = language.get_decoder()
    theirs.lm_head = language.get_output_embeddings()
    theirs.generation_config = copy.deepcopy(language.generation_config)
    theirs.generation_config.suppress_tokens = [image_id]
    processor = transformers.LlavaProcessor(
        image_processor=loaded.image_processor,
        tokenizer=tokenizer,
        patch_size=encoder.config.patch_size,
        vision_feature_select_strategy=strategy,
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=int(clip),
        chat_template=_plain_template(loaded),
    )
    return theirs.eval(), processor


def _image_token(tokenizer: Any, language: Any) -> int:
    """The image token's id, with a row of the embeddings for it."""
    from tokenizers import AddedToken

    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    number = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    rows = len(language.get_input_embeddings().weight)
    if number >= rows:
        language.resize_token_embeddings(number + 1, mean_resizing=False)
        with torch.no_grad():
            for embeddings in (language.get_input_embeddings(), language.get_output_embeddings()):
                embeddings.weight[rows:] = 0
    return number


def _plain_template(loaded: Loaded) -> str:
    """What pre-training showed the model: [beginning of sequence][picture][text]."""
    start: str = loaded.tokenizer.bos_token if loaded.model.prefix_ids else ""
    return start + PLAIN
