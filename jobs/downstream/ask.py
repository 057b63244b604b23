"""Asks a model questions about pictures, batch by batch, and judges what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from jobs.data.batch import collate
from jobs.data.sample import Sample
from jobs.downstream.answers import MEASURES, first_answer
from jobs.downstream.generate import Shot, greedy, join_shots, require_room
from jobs.load import Loaded
from jobs.spec.downstream import Evaluation
from mir.errors import ConfigError

ANSWER_LOSS = "answer-loss"
_LONGEST = 1 << 20  # no prompt is cut while its answer's loss is read


class Asker:
    """Asks with the same solved examples before every question (none: zero-shot)."""

    def __init__(self, spec: Evaluation, loaded: Loaded, examples: Sequence[Sample]) -> None:
        """Read the examples. Raises ConfigError where they do not fit the language model."""
        self._spec, self._loaded = spec, loaded
        self._device = next(loaded.model.parameters()).device
        self._examples = self._solved(examples) if examples else []

    def batches(self, asked: Sequence[Sample]) -> list[list[Sample]]:
        """The questions in groups of equally many tokens; the same groups on every rank."""
        by_length: dict[int, list[Sample]] = {}
        for sample in asked:
            by_length.setdefault(len(self._ids(sample.prompt)), []).append(sample)
        batches: list[list[Sample]] = []
        for _, samples in sorted(by_length.items()):
            left = iter(samples)
            while batch := list(islice(left, self._spec.batch_size)):
                batches.append(batch)
        return batches

    def judge(self, batch: Sequence[Sample]) -> dict[str, list[float]]:
        """Each measure's value for every question of one batch."""
        given = self.answer(batch)
        found = {
            name: [measure(g, s.answers) for g, s in zip(given, batch, strict=True)]
            for name, measure in MEASURES.items()
        }
        if not self._examples:
            found[ANSWER_LOSS] = self._losses(batch)
        return found

    @torch.no_grad()
    def answer(self, batch: Sequence[Sample]) -> list[str]:
        """What the model answers, cut at the separator or a sentence's end.

        Raises ConfigError where a sample is no question.
        """
        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        features = self._features(batch)
        prompts = [
            [*self._examples, Shot(features=own, ids=self._question(sample))]
            for sample, own in zip(batch, features, strict=True)
        ]
        tokens = join_shots(model, prompts)
        positions = tokens.embeds.shape[1] + self._spec.max_new_tokens
        require_room(model, positions, len(self._examples))
        rows = greedy(model, tokens, self._spec.max_new_tokens, tokenizer.eos_token_id)
        texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [first_answer(text, self._spec.separator) for text in texts]

    def _question(self, sample: Sample) -> list[int]:
        if not sample.prompt or not sample.answers:
            raise ConfigError(
                f"evaluate.questions: {sample.key} is a caption and no question: use a source of "
                "kind 'questions' or 'vqa'"
            )
        return self._ids(sample.prompt)

    def _solved(self, examples: Sequence[Sample]) -> list[Shot]:
        between = self._ids(self._spec.separator)
        with torch.no_grad():
            features = self._features(examples)
        return [
            Shot(features=own, ids=[*self._question(s), *self._ids(s.caption), *between])
            for s, own in zip(examples, features, strict=True)
        ]

    def _features(self, samples: Sequence[Sample]) -> Tensor:
        images = [sample.image for sample in samples]
        pixels = self._loaded.image_processor(images=images, return_tensors="pt")["pixel_values"]
        return self._loaded.model.encode(pixels.to(self._device))

    @torch.no_grad()
    def _losses(self, batch: Sequence[Sample]) -> list[float]:
        loaded = self._loaded
        whole = collate(batch, loaded.tokenizer, loaded.image_processor, _LONGEST)
        losses: list[float] = loaded.model.per_sample_loss(whole.to(self._device)).tolist()
        return losses

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._loaded.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
        return ids
