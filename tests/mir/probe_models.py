"""Tiny random image-text models of many families, with a padded batch for each.

Every builder returns a model in float64 (so that batching cannot hide behind rounding) and a list
of single-sequence inputs of different lengths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as tf

TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
IMAGE = 90
ROPE_3D = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
Sequence = dict[str, torch.Tensor]


def _sequence(image_tokens: int, text: int, **more: torch.Tensor) -> Sequence:
    """Two tokens of a system prompt, the image, then the text."""
    ids = [1, 5] + [IMAGE] * image_tokens + torch.randint(6, 80, (text,)).tolist()
    return {"input_ids": torch.tensor([ids]), **more}


def _pixels(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def llava() -> tuple[torch.nn.Module, list[Sequence]]:
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**VISION),
        text_config=tf.LlamaConfig(**TEXT),
        image_token_index=IMAGE,
    )
    rows = [_sequence(16, n, pixel_values=_pixels(1, 3, 16, 16)) for n in (5, 9, 3)]
    return tf.LlavaForConditionalGeneration(config), rows


def llava_moe() -> tuple[torch.nn.Module, list[Sequence]]:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**VISION),
        text_config=tf.MixtralConfig(**TEXT, **experts),
        image_token_index=IMAGE,
    )
    rows = [_sequence(16, n, pixel_values=_pixels(1, 3, 16, 16)) for n in (5, 9, 3)]
    return tf.LlavaForConditionalGeneration(config), rows


def llava_next() -> tuple[torch.nn.Module, list[Sequence]]:
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**VISION),
        text_config=tf.LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
    )
    # A 32 x 32 picture: the base view (16 tokens) and four tiles of 16 with 8 row ends.
    rows = [
        _sequence(
            16 + 64 + 8,
            n,
            pixel_values=_pixels(1, 5, 3, 16, 16),
            image_sizes=torch.tensor([[32, 32]]),
        )
        for n in (5, 9)
    ]
    return tf.LlavaNextForConditionalGeneration(config), rows


def _qwen_rows(width: int) -> list[Sequence]:
    rows = []
    for height, wide, text in ((4, 4, 6), (4, 8, 3), (8, 4, 9)):
        row = _sequence(
            height * wide // 4,
            text,
            pixel_values=_pixels(height * wide, width),
            image_grid_thw=torch.tensor([[1, height, wide]]),
        )
        row["mm_token_type_ids"] = (row["input_ids"] == IMAGE).long()
        rows.append(row)
    return rows


def qwen2_5_vl() -> tuple[torch.nn.Module, list[Sequence]]:
    config = tf.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 2,
            "window_size": 8,
            "fullatt_block_indexes": [1],
        },
        text_config={**TEXT, "rope_parameters": ROPE_3D},
        image_token_id=IMAGE,
        video_token_id=91,
        vision_start_token_id=92,
        vision_end_token_id=93,
    )
    return tf.Qwen2_5_VLForConditionalGeneration(config), _qwen_rows(3 * 2 * 2 * 2)


def _qwen3_vision() -> dict[str, object]:
    return {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 2,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    }


def qwen3_vl() -> tuple[torch.nn.Module, list[Sequence]]:
    config = tf.Qwen3VLConfig(
        vision_config=_qwen3_vision(),
        text_config={**TEXT, "rope_parameters": ROPE_3D},
        image_token_id=IMAGE,
        video_token_id=91,
        vision_start_token_id=92,
        vision_end_token_id=93,
    )
    return tf.Qwen3VLForConditionalGeneration(config), _qwen_rows(3 * 2 * 2 * 2)


def qwen3_vl_moe() -> tuple[torch.nn.Module, list[Sequence]]:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    config = tf.Qwen3VLMoeConfig(
        vision_config=_qwen3_vision(),
        text_config={**TEXT, **experts, "rope_parameters": ROPE_3D},
        image_token_id=IMAGE,
        video_token_id=91,
        vision_start_token_id=92,
        vision_end_token_id=93,
    )
    return tf.Qwen3VLMoeForConditionalGeneration(config), _qwen_rows(3 * 2 * 2 * 2)


def gemma3() -> tuple[torch.nn.Module, list[Sequence]]:
    config = tf.Gemma3Config(
        vision_config=tf.SiglipVisionConfig(**VISION),
        text_config=tf.Gemma3TextConfig(**TEXT, sliding_window=8),
        image_token_index=IMAGE,
        boi_token_index=91,
        eoi_token_index=92,
        mm_tokens_per_image=4,
    )
    rows = [_sequence(4, n, pixel_values=_pixels(1, 3, 16, 16)) for n in (5, 11, 3)]
    for row in rows:
        row["token_type_ids"] = (row["input_ids"] == IMAGE).long()
    return tf.Gemma3ForConditionalGeneration(config), rows


def _idefics_rows() -> list[Sequence]:
    rows = []
    for text in (5, 9):
        row = _sequence(0, text, pixel_values=_pixels(1, 2, 3, 16, 16))
        # Two tiles with a marker between them, as these processors write it.
        ids = [1, 5] + [IMAGE] * 4 + [7] + [IMAGE] * 4 + row["input_ids"][0, 2:].tolist()
        row["input_ids"] = torch.tensor([ids])
        rows.append(row)
    return rows


def smolvlm() -> tuple[torch.nn.Module, list[Sequence]]:
    config = tf.SmolVLMConfig(
        vision_config=VISION, text_config=tf.LlamaConfig(**TEXT), image_token_id=IMAGE
    )
    return tf.SmolVLMForConditionalGeneration(config), _idefics_rows()


def idefics3() -> tuple[torch.nn.Module, list[Sequence]]:
    config = tf.Idefics3Config(
        vision_config=VISION, text_config=tf.LlamaConfig(**TEXT), image_token_id=IMAGE
    )
    return tf.Idefics3ForConditionalGeneration(config), _idefics_rows()


def internvl() -> tuple[torch.nn.Module, list[Sequence]]:
    vision = {**VISION, "image_size": [16, 16], "patch_size": [4, 4]}
    config = tf.InternVLConfig(
        vision_config=tf.InternVLVisionConfig(**vision),
        text_config=tf.Qwen2Config(**{k: v for k, v in TEXT.items() if k != "head_dim"}),
        image_token_id=IMAGE,
    )
    rows = [_sequence(4, n, pixel_values=_pixels(1, 3, 16, 16)) for n in (5, 9, 3)]
    return tf.InternVLForConditionalGeneration(config), rows


def blip2() -> tuple[torch.nn.Module, list[Sequence]]:
    """No headless module of its own, and an OPT decoder two wrappers down."""
    config = tf.Blip2Config(
        vision_config=VISION,
        qformer_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "encoder_hidden_size": 16,
        },
        text_config=tf.OPTConfig(
            vocab_size=99,
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=IMAGE,
        num_query_tokens=6,
    )
    rows = [_sequence(6, n, pixel_values=_pixels(1, 3, 16, 16)) for n in (5, 9)]
    return tf.Blip2ForConditionalGeneration(config), rows


FAMILIES: dict[str, Callable[[], tuple[torch.nn.Module, list[Sequence]]]] = {
    builder.__name__: builder
    for builder in (
        llava,
        llava_moe,
        llava_next,
        qwen2_5_vl,
        qwen3_vl,
        qwen3_vl_moe,
        gemma3,
        smolvlm,
        idefics3,
        internvl,
        blip2,
    )
}


def family(name: str, seed: int = 0) -> tuple[torch.nn.Module, list[Sequence]]:
    """The model in eval mode and float64, with its sequences."""
    torch.manual_seed(seed)
    model, rows = FAMILIES[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    for part in model.modules():
        if isinstance(part, tf.PreTrainedModel) and part._can_set_experts_implementation():
            part.set_experts_implementation("eager")  # the grouped kernel knows no float64
    return model.double().eval(), rows


def padded(rows: list[Sequence], fill: int = 0) -> Sequence:
    """One right-padded batch with its attention mask; other inputs are joined along the batch."""
    width = max(row["input_ids"].shape[1] for row in rows)
    batch: Sequence = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        if parts[0].shape == rows[0]["input_ids"].shape:
            pad = fill if name == "input_ids" else 0
            parts = [torch.nn.functional.pad(p, (0, width - p.shape[1]), value=pad) for p in parts]
        batch[name] = torch.cat(parts)
    lengths = [row["input_ids"].shape[1] for row in rows]
    batch["attention_mask"] = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
    return batch
