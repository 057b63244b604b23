"""Shows that the shipped models are really pre-trained: `python -m jobs.world.evaluate`.

The language model's perplexity on held-out texts against a unigram baseline, and how well linear
probes read an object's attributes from the encoder's patches, against an untrained encoder and
raw pixels. Prints Markdown tables.
Shapes: N patches that an object covers, F features of a patch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.world.captions import caption_at
from jobs.world.load import load_image_processor, load_language, load_tokenizer, load_vision
from jobs.world.pretrain_vision import ATTRIBUTES, NOTHING, build_vision, targets_of
from jobs.world.pretrain_vision import pixels_of as render_pixels
from jobs.world.scenes import PATCH, Scene, Split, scene_at
from jobs.world.texts import text_at

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, ViTModel

HELD_OUT = 256  # texts of each kind
COUNTED = 4096  # training texts of each kind behind the unigram baseline
FIRST_SCENE = 1_000_000  # probes learn from scenes that pre-training has not seen
PROBE_SCENES: dict[Split, int] = {"train": 600, "validation": 200}
PROBE_STEPS = 400

TEXTS: dict[str, Callable[[Split, int], str]] = {
    "unrelated texts": text_at,
    "detailed captions": lambda split, index: caption_at(split, index, "detailed"),
    "short captions": lambda split, index: caption_at(split, index, "short"),
}


def perplexity(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> float:
    """exp of the mean nats a token, the end of each text included."""
    total, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([[*tokenizer.encode(text), tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        total += float(functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    return math.exp(total / tokens)


def unigram_perplexity(
    tokenizer: PreTrainedTokenizerFast, known: list[str], texts: list[str]
) -> float:
    """The same for the frequencies of the words in `known`, each counted once more than seen."""
    counts = Counter(token for text in known for token in _tokens(tokenizer, text))
    size = sum(counts.values()) + len(tokenizer)
    tokens = [token for text in texts for token in _tokens(tokenizer, text)]
    return math.exp(-sum(math.log((counts[t] + 1) / size) for t in tokens) / len(tokens))


def _tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


def language_table() -> list[str]:
    """Markdown rows: perplexity by kind of text."""
    model, tokenizer = load_language(), load_tokenizer()
    rows = ["| held-out text | language model | unigram |", "|---|---|---|"]
    for kind, text_of in TEXTS.items():
        held_out = [text_of("validation", index) for index in range(HELD_OUT)]
        known = [text_of("train", index) for index in range(COUNTED)]
        ours = perplexity(model, tokenizer, held_out)
        unigram = unigram_perplexity(tokenizer, known, held_out)
        rows.append(f"| {kind} | {ours:.2f} | {unigram:.1f} |")
    return rows


def raw_patches(pixels: Tensor) -> Tensor:
    """[B, 3, 64, 64] -> [B, P, F]: each patch's pixels as its features."""
    return functional.unfold(pixels, kernel_size=PATCH, stride=PATCH).transpose(1, 2)


def encoded_patches(model: ViTModel, pixels: Tensor) -> Tensor:
    """[B, 3, 64, 64] -> [B, P, F]: the encoder's patch tokens."""
    with torch.no_grad():
        hidden: Tensor = model(pixel_values=pixels).last_hidden_state
    return hidden[:, 1:]


def probe_accuracy(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], classes: int
) -> float:
    """Share of validation patches that a linear classifier names rightly.

    Each pair: features [N, F], classes [N]. Features are standardised by the training part.
    """
    torch.manual_seed(0)
    mean, scale = train[0].mean(dim=0), train[0].std(dim=0) + 1e-6
    probe = nn.Linear(train[0].shape[1], classes)
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.03)
    features = (train[0] - mean) / scale
    for _ in range(PROBE_STEPS):
        loss = functional.cross_entropy(probe(features), train[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        named = probe((validation[0] - mean) / scale).argmax(dim=1)
    return float((named == validation[1]).double().mean())


def vision_table() -> list[str]:
    """Markdown rows: probe accuracy on covered patches by attribute and kind of features."""
    torch.manual_seed(0)
    encoder, untrained = load_vision(), build_vision().eval()
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "pre-trained": lambda pixels: encoded_patches(encoder, pixels),
        "untrained": lambda pixels: encoded_patches(untrained, pixels),
        "raw pixels": raw_patches,
    }
    scenes = {split: _scenes(split, count) for split, count in PROBE_SCENES.items()}
    processor = load_image_processor()
    pixels = {split: render_pixels(items, processor) for split, items in scenes.items()}
    targets = {split: targets_of(items) for split, items in scenes.items()}
    rows = [f"| attribute | {' | '.join(kinds)} | most frequent |", "|---|---|---|---|---|"]
    features = {kind: {s: of(pixels[s]) for s in pixels} for kind, of in kinds.items()}
    for attribute, values in ATTRIBUTES.items():
        cells = []
        parts: dict[str, tuple[Tensor, Tensor]] = {}
        for kind in kinds:
            for split in scenes:
                covered = targets[split][attribute] != NOTHING
                chosen = features[kind][split][covered]
                parts[split] = (chosen, targets[split][attribute][covered])
            accuracy = probe_accuracy(parts["train"], parts["validation"], 1 + len(values))
            cells.append(f"{accuracy:.1%}")
        guess = parts["train"][1].mode().values
        cells.append(f"{float((parts['validation'][1] == guess).double().mean()):.1%}")
        rows.append(f"| {attribute} | {' | '.join(cells)} |")
    return rows


def _scenes(split: Split, count: int) -> list[Scene]:
    return [scene_at(split, FIRST_SCENE + index) for index in range(count)]


def main() -> None:
    """Prints both tables."""
    print("\n".join(["Perplexity (nats a token, exponentiated):", "", *language_table(), ""]))
    print("\n".join(["Linear probes on patches that an object covers:", "", *vision_table()]))


if __name__ == "__main__":
    main()
