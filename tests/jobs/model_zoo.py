"""Tiny random models of many families, as a job's specification spells them."""

import torch

from jobs.data.batch import Batch
from jobs.model.build import build_model
from jobs.spec import ModelSpec

_SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
_PICTURE = {**_SMALL, "image_size": 32, "patch_size": 8}
_DINO = {name: value for name, value in _PICTURE.items() if name != "intermediate_size"}
_GRID = {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}
_WORDS = {
    **_SMALL, "vocab_size": 400, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

# With the number of tokens of a 32-pixel picture; the convolutional ones get larger pictures.
ENCODERS = {
    "clip": ({"model_type": "clip_vision_model", **_PICTURE}, 16),
    "siglip": ({"model_type": "siglip_vision_model", **_PICTURE}, 16),
    "dinov2": ({"model_type": "dinov2", **_DINO}, 16),
    "dinov2-registers": ({"model_type": "dinov2_with_registers", **_DINO}, 16),
    "vit": ({"model_type": "vit", **_PICTURE}, 16),
    "convnext": ({"model_type": "convnext", **_GRID, "image_size": 128}, 16),
    "swin": (
        {"model_type": "swin", "image_size": 32, "patch_size": 4, "embed_dim": 8,
         "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        16,
    ),
}  # fmt: skip
# With batch norms, whose statistics are no parameters.
RESNET = {
    "model_type": "resnet", **_GRID, "embedding_size": 8, "layer_type": "basic",
}  # fmt: skip
WITH_CLASS_TOKEN = ("clip", "dinov2", "dinov2-registers", "vit")
DECODERS = {
    "llama": {"model_type": "llama", **_WORDS},
    "qwen2": {"model_type": "qwen2", **_WORDS},
    "qwen3": {"model_type": "qwen3", **_WORDS, "head_dim": 8},
    "mistral": {"model_type": "mistral", **_WORDS},
    "gemma2": {"model_type": "gemma2", **_WORDS, "head_dim": 8},
    "gemma3": {"model_type": "gemma3_text", **_WORDS, "head_dim": 8},
    "phi": {"model_type": "phi", **_WORDS, "num_key_value_heads": 2},
    "phi3": {"model_type": "phi3", **_WORDS},
    "olmo": {"model_type": "olmo", **_WORDS},
    "olmo2": {"model_type": "olmo2", **_WORDS},
    "gpt2": {
        "model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 400,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "mixtral": {"model_type": "mixtral", **_WORDS, "num_local_experts": 4},
    "qwen3-moe": {
        "model_type": "qwen3_moe", **_WORDS, **_EXPERTS, "num_experts": 4, "head_dim": 8,
    },
    "olmoe": {"model_type": "olmoe", **_WORDS, "num_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip
EXPERTS = ("mixtral", "qwen3-moe", "olmoe")
PROJECTORS = ("linear", "mlp2x_gelu", "mlp4x_gelu", "pixel-shuffle", "resampler3")


def spec(encoder="vit", decoder="llama", **settings):
    """A model of two random parts that speaks the embedded world's words."""
    return ModelSpec.model_validate({
        "vision": {"random": ENCODERS[encoder][0]},
        "language": {"random": DECODERS[decoder], "tokenizer": "embedded"},
        **settings,
    })  # fmt: skip


def model_of(encoder="vit", decoder="llama", **settings):
    return build_model(spec(encoder, decoder, **settings), seed=0).model


def batch_for(encoder="vit", count=2):
    side = ENCODERS[encoder][0].get("image_size", 32)
    generator = torch.Generator().manual_seed(5)
    return Batch(
        pixel_values=torch.randn(count, 3, side, side, generator=generator),
        caption_ids=torch.tensor([[7, 8, 9, 2], [10, 11, 2, 0]] * count)[:count],
        caption_mask=torch.tensor([[True] * 4, [True] * 3 + [False]] * count)[:count],
    )


def moved(model):
    """Names of the parameters that got a gradient other than zero."""
    return {n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
