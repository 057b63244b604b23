"""Folders of tiny random models with the real processor of their family.

The tokenizer is trained on the spot; the chat templates have the shape of the families' own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from orchestrator.scoring.processor import without_videos

SIDE, PATCH = 16, 4
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
ROPE_3D = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_QWEN_SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
_IDEFICS_SPECIAL = (
    "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
)  # fmt: skip


def turns(head: str, image: str, tail: str, answer: str) -> str:
    """A chat template: `head` with the role, the parts, `tail`, and `answer` to be continued."""
    return (
        "{% for message in messages %}" + head + "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}"
        + tail
        + "{% endfor %}{% if add_generation_prompt %}"
        + answer
        + "{% endif %}"
    )


_IM = turns(
    "<|im_start|>{{ message['role'] }}\n",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|im_end|>\n",
    "<|im_start|>assistant\n",
)
_IDEFICS_CHAT = turns(
    "<|im_start|>{{ message['role'] | capitalize }}:",
    "<image>",
    "<end_of_utterance>\n",
    "Assistant:",
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is saved, and what a correct score must count.

    image: the token that stands for the picture. marks: tokens after the last image token that
    belong to the image block. vision: image tokens of the first four pictures of `save_pairs`.
    """

    build: Callable[[Any], tuple[torch.nn.Module, Any]]
    image: str
    vision: int
    special: tuple[str, ...]
    marks: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)


def tokenizer(family: Family) -> tf.PreTrainedTokenizerFast:
    """A byte-level BPE trained on a few lines; left-padding, as many families ship it."""
    special = ["<pad>", "<s>", "</s>", *dict.fromkeys(family.special)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        ["the red shape stands next to another blue shape and is small"], trainer
    )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        extra_special_tokens=dict(family.named),
        additional_special_tokens=[
            token for token in special[3:] if token not in family.named.values()
        ],
    )


def _ids(words: Any) -> dict[str, int]:
    return {"vocab_size": len(words), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _llava_next(words: Any) -> tuple[torch.nn.Module, Any]:
    grid = [[16, 32], [32, 16], [32, 32]]
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**VISION),
        text_config=tf.LlamaConfig(**TEXT, **_ids(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    pictures = tf.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=grid,
    )
    processor = tf.LlavaNextProcessor(
        image_processor=pictures,
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=turns("{{ message['role'] }}: ", "<image>\n", " ", "assistant:"),
    )
    return tf.LlavaNextForConditionalGeneration(config), processor


def _qwen_tokens(words: Any) -> dict[str, int]:
    name = words.convert_tokens_to_ids
    return {
        "image_token_id": name("<|image_pad|>"),
        "video_token_id": name("<|video_pad|>"),
        "vision_start_token_id": name("<|vision_start|>"),
        "vision_end_token_id": name("<|vision_end|>"),
    }


def _qwen_pictures() -> Any:
    return tf.Qwen2VLImageProcessor(
        patch_size=PATCH, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )


def _qwen2_5_vl(words: Any) -> tuple[torch.nn.Module, Any]:
    config = tf.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": PATCH, "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config={**TEXT, **_ids(words), "rope_parameters": ROPE_3D},
        **_qwen_tokens(words),
    )  # fmt: skip
    processor = without_videos(tf.Qwen2_5_VLProcessor)(_qwen_pictures(), words, chat_template=_IM)
    return tf.Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3_parts(words: Any, experts: dict[str, int]) -> dict[str, Any]:
    return {
        "vision_config": {
            "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": PATCH, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        "text_config": {
            **TEXT, **_ids(words), **experts, "head_dim": 8, "rope_parameters": ROPE_3D
        },
        **_qwen_tokens(words),
    }  # fmt: skip


def _qwen3_vl(words: Any) -> tuple[torch.nn.Module, Any]:
    config = tf.Qwen3VLConfig(**_qwen3_parts(words, {}))
    processor = without_videos(tf.Qwen3VLProcessor)(_qwen_pictures(), words, chat_template=_IM)
    return tf.Qwen3VLForConditionalGeneration(config), processor


def _qwen3_vl_moe(words: Any) -> tuple[torch.nn.Module, Any]:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    config = tf.Qwen3VLMoeConfig(**_qwen3_parts(words, experts))
    processor = without_videos(tf.Qwen3VLProcessor)(_qwen_pictures(), words, chat_template=_IM)
    return tf.Qwen3VLMoeForConditionalGeneration(config), processor


def _gemma3(words: Any) -> tuple[torch.nn.Module, Any]:
    name = words.convert_tokens_to_ids
    config = tf.Gemma3Config(
        vision_config=tf.SiglipVisionConfig(**VISION),
        text_config=tf.Gemma3TextConfig(**TEXT, **_ids(words), head_dim=8, sliding_window=16),
        image_token_index=name("<image_soft_token>"),
        boi_token_index=name("<start_of_image>"),
        eoi_token_index=name("<end_of_image>"),
        mm_tokens_per_image=4,
    )
    processor = tf.Gemma3Processor(
        tf.Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}),
        words,
        image_seq_length=4,
        chat_template=turns(
            "<start_of_turn>{{ message['role'] }}\n", "<start_of_image>", "<end_of_turn>\n",
            "<start_of_turn>model\n",
        ),
    )  # fmt: skip
    return tf.Gemma3ForConditionalGeneration(config), processor


def _tiles(kind: Any) -> Any:
    return kind(
        size={"longest_edge": 2 * SIDE},
        max_image_size={"longest_edge": SIDE},
        do_image_splitting=True,
    )


def _idefics_config(kind: Any, words: Any) -> Any:
    return kind(
        vision_config=VISION,
        text_config=tf.LlamaConfig(**TEXT, **_ids(words)),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )


def _smolvlm(words: Any) -> tuple[torch.nn.Module, Any]:
    processor = without_videos(tf.SmolVLMProcessor)(
        _tiles(tf.SmolVLMImageProcessor), words, None, image_seq_len=4, chat_template=_IDEFICS_CHAT
    )
    return tf.SmolVLMForConditionalGeneration(_idefics_config(tf.SmolVLMConfig, words)), processor


def _idefics3(words: Any) -> tuple[torch.nn.Module, Any]:
    processor = tf.Idefics3Processor(
        _tiles(tf.Idefics3ImageProcessor), words, image_seq_len=4, chat_template=_IDEFICS_CHAT
    )
    return tf.Idefics3ForConditionalGeneration(_idefics_config(tf.Idefics3Config, words)), processor


def _internvl(words: Any) -> tuple[torch.nn.Module, Any]:
    vision = {**VISION, "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}
    config = tf.InternVLConfig(
        vision_config=tf.InternVLVisionConfig(**vision),
        text_config=tf.Qwen2Config(**TEXT, **_ids(words)),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    pictures = tf.GotOcr2ImageProcessor(
        size={"height": SIDE, "width": SIDE}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = without_videos(tf.InternVLProcessor)(
        pictures,
        words,
        image_seq_length=4,
        chat_template=turns(
            "<|im_start|>{{ message['role'] }}\n", "<IMG_CONTEXT>\n", "<|im_end|>\n",
            "<|im_start|>assistant\n",
        ),
    )  # fmt: skip
    return tf.InternVLForConditionalGeneration(config), processor


_QWEN = {
    "image": "<|image_pad|>",
    "vision": 33,
    "marks": ("<|vision_end|>",),
    "special": _QWEN_SPECIAL,
}
_IDEFICS = {
    "image": "<image>",
    "vision": 4 * 5 * 4,
    "marks": ("<fake_token_around_image>",),
    "special": ("<|im_start|>", *_IDEFICS_SPECIAL),
}
_GEMMA = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}
_INTERN = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
FAMILIES: dict[str, Family] = {
    "llava-next": Family(
        build=_llava_next,
        image="<image>",
        vision=334,
        special=("<image>",),
        named={"image_token": "<image>"},
    ),
    "qwen2.5-vl": Family(build=_qwen2_5_vl, **_QWEN),
    "qwen3-vl": Family(build=_qwen3_vl, **_QWEN),
    "qwen3-vl-moe": Family(build=_qwen3_vl_moe, **_QWEN),
    "gemma3": Family(
        build=_gemma3,
        image="<image_soft_token>",
        vision=4 * 4,
        marks=("<end_of_image>",),
        special=("<start_of_turn>", "<end_of_turn>", *_GEMMA.values()),
        named=_GEMMA,
    ),
    "smolvlm": Family(build=_smolvlm, **_IDEFICS),
    "idefics3": Family(build=_idefics3, **_IDEFICS),
    "internvl": Family(
        build=_internvl,
        image="<IMG_CONTEXT>",
        vision=4 * 3 * 4,
        marks=("</img>",),
        special=("<|im_start|>", "<|im_end|>", *_INTERN.values()),
        named=_INTERN,
    ),
}


def save_family(name: str, folder: Path) -> Path:
    """Save the family's model, its weights spread enough to tell positions apart."""
    torch.manual_seed(0)
    words = tokenizer(FAMILIES[name])
    model, processor = FAMILIES[name].build(words)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if hasattr(processor, "video_processor"):
        # As the real folders have it; mirsweep must not need it.
        settings = json.loads((folder / "processor_config.json").read_text())
        settings["video_processor"] = {"video_processor_type": "Qwen2VLVideoProcessor"}
        (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder
