"""What a job is scored on: MIR's pairs and the guard's validation samples, fixed by the spec.

Legend: B samples, T text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.data.build import open_source, open_texts
from jobs.data.errors import BadSample
from jobs.data.sample import Sample, Source
from jobs.data.stream import permuted
from jobs.spec import JobSpec, ScoreSpec
from mir.errors import ConfigError, DataError
from mir.pairs import pairs_digest

# Pictures and texts are taken in a fixed shuffled order, since files are often sorted by kind.
_ORDER = 20241007
_IMAGE, _TEXT = "\u241aimage\u241a", "\u241atext\u241a"


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """pictures and texts: the N pairs of MIR, in order. validation: the guard's samples.

    digest: hash of the pictures and texts. prefix_ids, text_ids: each pair's tokens before and
    after the picture.
    """

    pictures: list[Sample]
    text_ids: list[list[int]]
    prefix_ids: tuple[int, ...]
    validation: list[Sample]
    digest: str


def evaluation_set(spec: JobSpec, tokenizer: Any, prefix_ids: Sequence[int]) -> EvaluationSet:
    """Read what `spec` is scored on; the same on every rank and for every trial of a study.

    prefix_ids: tokens before the picture in the plain template.
    Raises ConfigError if there are fewer pictures, texts or validation samples than asked for.
    """
    field = "data.validation" if spec.score.images is None else "score.images"
    validation_source = open_source(spec.data.validation, "data.validation")
    pictures_source = (
        validation_source if spec.score.images is None else open_source(spec.score.images, field)
    )
    pictures = take(pictures_source, spec.score.pairs, "score.pairs", field)
    texts = _texts(spec.score)
    if spec.data.validation_samples < 2:
        raise ConfigError(
            "data.validation_samples: 1 leaves no other picture to compare with: use 2 or more"
        )
    validation = take(
        validation_source, spec.data.validation_samples, "data.validation_samples",
        "data.validation",
    )  # fmt: skip
    prefix, between, after = template_ids(spec.score.template, tokenizer, prefix_ids)
    limit = spec.score.max_text_tokens
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return EvaluationSet(
        pictures=pictures,
        text_ids=[[*between, *ids[:limit], *after] for ids in encoded],
        prefix_ids=prefix,
        validation=validation,
        digest=pairs_digest(map(_pixels, pictures), texts),
    )


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token rows as ids [B, T], padded on the right with 0, and the mask of real ones [B, T]."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows])
    return ids, mask


def take(source: Source, count: int, field: str, origin: str) -> list[Sample]:
    """The first `count` readable samples of the shuffled source."""
    taken: list[Sample] = []
    for index in range(len(source)):
        if len(taken) == count:
            break
        try:
            taken.append(source[permuted(index, len(source), _ORDER)])
        except BadSample:
            continue
    if len(taken) < count:
        raise ConfigError(
            f"{field}: {count} asked for, but {origin} holds only {len(taken)} usable samples: "
            f"use {len(taken)} or fewer"
        )
    return taken


def _texts(score: ScoreSpec) -> list[str]:
    found = open_texts(score.texts)
    if len(found) < score.pairs:
        raise ConfigError(
            f"score.pairs: {score.pairs} asked for, but score.texts holds only {len(found)} texts: "
            f"use {len(found)} or fewer"
        )
    return [found[permuted(i, len(found), _ORDER)] for i in range(score.pairs)]


def _pixels(sample: Sample) -> bytes:
    """Bytes that decide the picture."""
    return f"{sample.image.mode} {sample.image.size} ".encode() + sample.image.tobytes()


def template_ids(
    name: str, tokenizer: Any, prefix_ids: Sequence[int]
) -> tuple[tuple[int, ...], list[int], list[int]]:
    """Token ids before the picture, between picture and text, and after the text."""
    if name == "plain":
        return tuple(prefix_ids), [], []
    if not tokenizer.chat_template:
        raise ConfigError(
            "score.template: 'chat' needs a tokenizer with a chat template, this one has none: "
            "use 'plain'"
        )
    messages = [{"role": "user", "content": f"{_IMAGE}\n{_TEXT}"}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    before, _, rest = whole.partition(_IMAGE)
    between, found, after = rest.partition(_TEXT)
    if not found:
        raise DataError("score.template: the tokenizer's chat template drops the user's message")
    ids = [
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, between, after)
    ]
    return tuple(ids[0]), ids[1], ids[2]
