"""Tiny random models and pictures on disk, for tests that need a whole job in a second."""

import json
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from jobs.place import Place
from jobs.run import run_job
from jobs.spec import JobSpec

_WORDS = "a red green blue big small circle square left right of the and with story market"
WORDS = _WORDS.split()
CHAT = (
    "{% for m in messages %}<user> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)


def make_world(folder: Path) -> dict:
    """Write a tiny encoder, language model, pictures and texts; the base of a job spec."""
    torch.manual_seed(0)
    vision = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=16, patch_size=8,
    )  # fmt: skip
    ViTModel(vision, add_pooling_layer=False).save_pretrained(folder / "vit")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / "vit")
    vocabulary = {
        w: i for i, w in enumerate(["<pad>", "<s>", "</s>", "<unk>", "<user>", "<bot>", *WORDS])
    }
    language = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=24, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(language).save_pretrained(folder / "llama")
    raw = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>", extra_special_tokens=["<user>", "<bot>"], chat_template=CHAT,
    ).save_pretrained(folder / "llama")  # fmt: skip
    _pictures(folder)
    source = {"kind": "jsonl", "path": str(folder / "captions.jsonl")}
    return {
        "model": {"vision": str(folder / "vit"), "language": str(folder / "llama")},
        "data": {"sources": {"a": source}, "validation": source, "validation_samples": 6},
        "optim": {"learning_rate": 1e-2, "samples": 24, "global_batch": 4},
        "score": {
            "every_samples": 8, "pairs": 6, "batch_size": 4, "overhead_limit": 1.0,
            "texts": {"source": str(folder / "texts.txt")},
        },
        "checkpoint": {"every_samples": 8},
        "seed": 7,
    }  # fmt: skip


def _pictures(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    lines = []
    for i in range(24):
        pixels = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
        words = [
            WORDS[int(j)] for j in torch.randint(0, len(WORDS), (3 + i % 4,), generator=generator)
        ]
        lines.append(json.dumps({"image": f"{i}.png", "caption": " ".join(words)}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    texts = [f"the {w} story of the market and a {w} with {w}" for w in WORDS]
    (folder / "texts.txt").write_text("\n".join(texts))


def spec_of(base: dict, **changes: dict) -> JobSpec:
    """The base spec with sections updated, e.g. optim={'samples': 8}."""
    merged = json.loads(json.dumps(base))
    for section, values in changes.items():
        if isinstance(values, dict):
            merged.setdefault(section, {}).update(values)
        else:
            merged[section] = values
    return JobSpec.model_validate(merged)


def events_of(spec: JobSpec, folder: Path, **place) -> list:
    """All events of a job run in this process."""
    return list(run_job(spec, Place(folder=folder, **place)))
