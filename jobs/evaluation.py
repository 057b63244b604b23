"""What a job is scored on: MIR's pairs and the guard's validation samples, fixed by the spec.

Legend: B samples, T text tokens.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.data.build import open_source, open_texts
from jobs.data.errors import BadSample, tally, too_many_bad
from jobs.data.sample import Sample, Source
from jobs.data.stream import permuted
from jobs.events import Skipped
from jobs.spec import JobSpec, ScoreSpec
from mir.errors import ConfigError, DataError
from mir.pairs import pairs_digest

# Pictures and texts are taken in a fixed shuffled order, since files are often sorted by kind.
_ORDER = 20241007
_log = logging.getLogger(__name__)
_IMAGE, _TEXT = "\u241aimage\u241a", "\u241atext\u241a"


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """pictures and texts: the N pairs of MIR, in order. validation: the guard's samples.

    digest: hash of the pictures and texts. prefix_ids, text_ids: each pair's tokens before and
    after the picture. skipped: bad samples that were met in looking for them.
    """

    pictures: list[Sample]
    text_ids: list[list[int]]
    prefix_ids: tuple[int, ...]
    validation: list[Sample]
    digest: str
    skipped: tuple[Skipped, ...] = ()


def evaluation_set(spec: JobSpec, tokenizer: Any, prefix_ids: Sequence[int]) -> EvaluationSet:
    """Read what `spec` is scored on; the same on every rank and for every trial of a study.

    prefix_ids: tokens before the picture in the plain template.
    Raises ConfigError if there are fewer pictures, texts or validation samples than asked for,
    DataError where more than `data.max_bad_fraction` of those tried are bad.
    """
    field = "data.validation" if spec.score.images is None else "score.images"
    validation_source = open_source(spec.data.validation, "data.validation")
    pictures_source = (
        validation_source if spec.score.images is None else open_source(spec.score.images, field)
    )
    limit = spec.data.max_bad_fraction
    skipped: dict[str, Counter[str]] = {}
    pictures, skipped[field] = _taken(
        pictures_source, spec.score.pairs, "score.pairs", field, limit
    )
    texts = _texts(spec.score)
    if spec.data.validation_samples < 2:
        raise ConfigError(
            "data.validation_samples: 1 leaves no other picture to compare with: use 2 or more"
        )
    validation, bad = _taken(
        validation_source, spec.data.validation_samples, "data.validation_samples",
        "data.validation", limit,
    )  # fmt: skip
    # Of one source the shorter walk meets no other bad samples than the longer one.
    skipped["data.validation"] = bad | skipped.get("data.validation", Counter())
    prefix, between, after = template_ids(spec.score.template, tokenizer, prefix_ids)
    longest = spec.score.max_text_tokens
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return EvaluationSet(
        pictures=pictures,
        text_ids=[[*between, *ids[:longest], *after] for ids in encoded],
        prefix_ids=prefix,
        validation=validation,
        digest=pairs_digest(map(_pixels, pictures), texts),
        skipped=tuple(
            Skipped(source=source, reason=reason, count=count)
            for source, counts in skipped.items()
            for reason, count in sorted(counts.items())
        ),
    )


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token rows as ids [B, T], padded on the right with 0, and the mask of real ones [B, T]."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows])
    return ids, mask


def take(
    source: Source, count: int, field: str, origin: str, max_bad_fraction: float
) -> list[Sample]:
    """The first `count` readable samples of the shuffled source; what is skipped is logged.

    Raises ConfigError where there are fewer, DataError where too many of those tried are bad.
    """
    taken, bad = _taken(source, count, field, origin, max_bad_fraction)
    if bad:
        tried = len(taken) + bad.total()
        _log.warning("%s: skipped %d of %d samples (%s)", origin, bad.total(), tried, tally(bad))
    return taken


def _taken(
    source: Source, count: int, field: str, origin: str, limit: float
) -> tuple[list[Sample], Counter[str]]:
    """Readable samples, and the bad ones on the way to them by reason."""
    taken: list[Sample] = []
    bad: Counter[str] = Counter()
    for index in range(len(source)):
        if len(taken) == count:
            break
        try:
            taken.append(source[permuted(index, len(source), _ORDER)])
        except BadSample as error:
            bad[error.reason] += 1
            tried = len(taken) + bad.total()
            if too_many_bad(bad.total(), tried, limit):
                section = "evaluate" if origin.startswith("evaluate.") else "data"
                raise DataError(
                    f"{origin}: {bad.total()} of {tried} samples could not be used, more than "
                    f"{section}.max_bad_fraction {limit:g} allows ({tally(bad)}; the last: "
                    f"{error}): mend the data or raise the limit"
                ) from error
    if len(taken) < count:
        raise ConfigError(
            f"{field}: {count} asked for, but {origin} holds only {len(taken)} usable samples: "
            f"use {len(taken)} or fewer"
        )
    return taken, bad


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
