"""Models of known shapes with random weights, random batches, and how much arithmetic they are."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from jobs.data.batch import Batch
from jobs.spec import JobSpec

_CLIP_L = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
_TOY_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 64, "patch_size": 8,
}  # fmt: skip
# name: (vision, language); the 0.5b is Qwen2-0.5B's shape, the 7b Llama-2-7B's.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "toy": (_TOY_CLIP, {
        "model_type": "llama", "hidden_size": 128, "intermediate_size": 384,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 4,
        "vocab_size": 2048,
    }),
    "small": (_TOY_CLIP, {
        "model_type": "llama", "hidden_size": 512, "intermediate_size": 1536,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8,
        "vocab_size": 8192,
    }),
    "0.5b": (_CLIP_L, {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": 151936, "tie_word_embeddings": True,
    }),
    "7b": (_CLIP_L, {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "vocab_size": 32000,
    }),
}  # fmt: skip


def spec_of(arguments: argparse.Namespace) -> JobSpec:
    """The job that the command line asks for; its own data are the embedded scenes."""
    vision, language = SHAPES[arguments.shape]
    scenes = {"kind": "scenes", "style": "detailed"}
    return JobSpec.model_validate(
        {
            "model": {
                "vision": {"random": vision},
                "language": {"random": language, "tokenizer": "embedded"},
                "select_layer": -2,
                "trainable": arguments.trainable,
                "feature_cache": "off",
            },
            "data": {
                "sources": {"a": {**scenes, "size": 512}},
                "validation": {**scenes, "split": "validation", "size": 64},
                "validation_samples": 16,
            },
            "optim": {
                "learning_rate": 1e-4, "global_batch": arguments.batch, "warmup_ratio": 0.0,
                "schedule": "constant", "samples": arguments.batch * arguments.steps,
            },
            "deepspeed": {
                "zero_stage": arguments.zero_stage,
                "precision": arguments.precision,
                "offload_optimizer": arguments.offload_optimizer,
                "activation_checkpointing": arguments.activation_checkpointing,
            },
            "score": {"every_samples": arguments.batch * max(1, arguments.steps // 4)},
            "checkpoint": {"every_samples": None},
        }
    )  # fmt: skip


def batches_of(spec: JobSpec, arguments: argparse.Namespace) -> list[Batch]:
    """As many random batches as a turn has steps."""
    vision, language = SHAPES[arguments.shape]
    generator = torch.Generator().manual_seed(0)
    size, count = vision["image_size"], spec.optim.global_batch
    return [
        Batch(
            pixel_values=torch.randn(count, 3, size, size, generator=generator),
            caption_ids=torch.randint(
                0, language["vocab_size"], (count, arguments.text), generator=generator
            ),
            caption_mask=torch.ones(count, arguments.text, dtype=torch.bool),
        )
        for _ in range(arguments.steps)
    ]


def tokens_of(spec: JobSpec, batch: Batch) -> int:
    """Positions that the decoder reads in a batch: prefix, vision and text."""
    vision = spec.model.vision.random  # type: ignore[union-attr]
    grid = (vision["image_size"] // vision["patch_size"]) ** 2  # type: ignore[index]
    return len(batch) * (1 + grid + batch.caption_ids.shape[1])


def model_flops(spec: JobSpec, batch: Batch) -> float:
    """Multiplications and additions that the step needs, recomputation not counted.

    2 a weight and token forwards; as many again for gradients of activations, which the projector
    needs through the whole frozen decoder; as many again for gradients of weights that learn.
    Attention scores and values add 2 x 2 x width a layer and pair of positions (half of them
    masked). The vision encoder only runs backwards where it learns.
    """
    vision: Any = spec.model.vision.random  # type: ignore[union-attr]
    language: Any = spec.model.language.random  # type: ignore[union-attr]
    everything = spec.model.trainable == "everything"
    tokens, text = tokens_of(spec, batch), len(batch) * (batch.caption_ids.shape[1] + 1)
    decoder = _weights(language) * tokens + _attention(language, tokens, tokens // len(batch)) / 2
    head = language["hidden_size"] * language["vocab_size"] * text
    patches = tokens - text
    encoder = _weights(vision) * patches + _attention(vision, patches, patches // len(batch))
    passes, encoder_passes = (3, 3) if everything else (2, 1)
    return 2.0 * (passes * (decoder + head) + encoder_passes * encoder)


def _weights(shape: dict[str, Any]) -> float:
    """Weights of the linear layers of all transformer layers."""
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    heads = shape["num_attention_heads"]
    grouped = shape.get("num_key_value_heads", heads) / heads
    gated = 2 if shape["model_type"] == "clip_vision_model" else 3
    layer = (2 + 2 * grouped) * width * width + gated * width * inner
    return float(shape["num_hidden_layers"] * layer)


def _attention(shape: dict[str, Any], tokens: int, length: int) -> float:
    """Multiplications of scores and values over all layers, no mask."""
    return 2.0 * shape["num_hidden_layers"] * shape["hidden_size"] * tokens * length
