"""Pre-trains the tiny Llama of the embedded world on the world's text.

Shapes: B documents, T tokens, W words in one position (more than one where an object's words are
superposed), D hidden size.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from jobs.world.corpus import Document, document_at, lesson_at

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

STEPS = 1200
LESSONS = 320  # of the steps, the first, on short documents
BATCH = 24
POOL = 16  # batches drawn together and sorted by length, so that little is padding
LEARNING_RATE = 3e-3
WARMUP = 50
# 1 / sqrt(hidden size). With 0.02, made for models ten times wider, reading the record had not
# begun after 600 steps; with this it has after 100.
INITIAL_STD = 0.08
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """words: ids of the words in every position. labels: ids to predict, IGNORED elsewhere."""

    words: list[list[int]]
    labels: list[int]


def build_language(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of about 1.2 million parameters with tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=320,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            initializer_range=INITIAL_STD,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """[bos] record body [eos], all predicted: of a position with several words, one by turns.

    Were the record not predicted, its hidden states would be of a kind of their own, and MIR
    would find the best possible vision tokens further from text than untrained ones (measured:
    0.99 against 0.66).
    """
    ids = tokenizer.get_vocab()
    groups = [[ids[word] for word in group] for group in document.groups]
    body = tokenizer.encode(document.body, add_special_tokens=False)
    body.append(tokenizer.eos_token_id)
    return Encoded(
        words=[[tokenizer.bos_token_id], *groups, *([word] for word in body)],
        labels=[IGNORED, *(group[spot % len(group)] for spot, group in enumerate(groups)), *body],
    )


def collate(batch: list[Encoded], pad: int) -> tuple[Tensor, Tensor]:
    """words [B, T, W] padded with `pad`, labels [B, T] padded with IGNORED."""
    length = max(len(item.words) for item in batch)
    width = max(len(group) for item in batch for group in item.words)
    words = torch.full((len(batch), length, width), pad)
    labels = torch.full((len(batch), length), IGNORED)
    for row, item in enumerate(batch):
        flat = [group + [pad] * (width - len(group)) for group in item.words]
        words[row, : len(flat)] = torch.tensor(flat)
        labels[row, : len(flat)] = torch.tensor(item.labels)
    return words, labels


def embed(model: LlamaForCausalLM, words_BTW: Tensor, pad: int) -> Tensor:
    """Sum of the embeddings of the words in each position: [B, T, D]."""
    embedded: Tensor = model.get_input_embeddings()(words_BTW)
    return (embedded * (words_BTW != pad).unsqueeze(-1)).sum(dim=2)


def loss_of(model: LlamaForCausalLM, words: Tensor, labels: Tensor, pad: int) -> Tensor:
    """Mean cross-entropy (nats a token) of the predicted tokens. Padding comes last, so the
    causal mask alone keeps it out of sight."""
    logits = model(inputs_embeds=embed(model, words, pad)).logits[:, :-1]
    target = labels[:, 1:]
    return functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED)


def batches(tokenizer: PreTrainedTokenizerFast, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches, words and labels; every document is read once."""
    rng = random.Random("language batches")
    for first in range(0, steps, POOL):
        read = lesson_at if first < LESSONS else document_at
        numbers = range(first * BATCH, (first + POOL) * BATCH)
        pool = [encode(read("train", number), tokenizer) for number in numbers]
        pool.sort(key=lambda item: len(item.words))
        starts = list(range(0, len(pool), BATCH))
        rng.shuffle(starts)
        for start in starts:
            yield collate(pool[start : start + BATCH], tokenizer.pad_token_id)


def cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train_language(
    tokenizer: PreTrainedTokenizerFast, say: Callable[[str], None], steps: int = STEPS
) -> LlamaForCausalLM:
    """The pre-trained model, in evaluation mode. Deterministic on one machine."""
    torch.manual_seed(0)
    model = build_language(tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine(s, steps, WARMUP))
    model.train()
    stream = batches(tokenizer, steps)
    for step in range(steps):
        words, labels = next(stream)
        loss = loss_of(model, words, labels, tokenizer.pad_token_id)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            say(f"language step {step}/{steps} loss {loss.item():.3f}")
    return model.eval()
