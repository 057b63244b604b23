"""A tiny LLaVA folder with its processor, pictures and texts, all made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers as tf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [
    *("the", "a", "red", "blue", "green", "round", "square", "shape"),
    *("stands", "next", "to", "another", "one", "and", "is", "small"),
]
CHAT = (
    "{% for message in messages %}user: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} assistant:{% endif %}"
)


def tokenizer() -> tf.PreTrainedTokenizerFast:
    """One token a word."""
    special = ["<pad>", "<unk>", "<image>", "user:", "assistant:"]
    vocabulary = {word: k for k, word in enumerate([*special, *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )


def save_llava(folder: Path, chat: bool = True) -> Path:
    """Save a random two-layer LLaVA with its processor."""
    torch.manual_seed(0)
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
        ),
        text_config=tf.LlamaConfig(
            vocab_size=32,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        image_token_index=2,
    )
    tf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    tf.LlavaProcessor(
        image_processor=tf.CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT if chat else None,
    ).save_pretrained(folder)
    return folder


def save_pairs(folder: Path, count: int) -> tuple[Path, Path]:
    """A folder of random pictures and one of texts of different lengths."""
    images, texts = folder / "images", folder / "texts"
    images.mkdir(parents=True)
    texts.mkdir()
    random = np.random.default_rng(0)
    for k in range(count):
        pixels = random.integers(0, 256, (20 + k, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{k:02d}.png")
        words = random.choice(WORDS, size=4 + k % 5)
        (texts / f"{k:02d}.txt").write_text(" ".join(words))
    return images, texts
