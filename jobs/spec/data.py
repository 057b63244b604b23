"""Where a job's samples come from and in which proportions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.spec.base import Frozen, NonNegativeFloat, PositiveInt


class SourceSpec(Frozen):
    """One source of captioned pictures.

    kind: 'scenes' is the embedded world; 'jsonl' one JSON object a line with the fields `image`
        and `caption`; 'llava' the JSON list of LLaVA with an image folder; 'questions' asks about
        the embedded world; 'vqa' questions with answers in a file (jobs/data/vqa.py).
    style: caption style of an embedded source.
    split: which part of an embedded source.
    size: number of samples of an embedded source.
    path: the JSON file; images: the folder its image paths are relative to (default: its own).
    answers: the annotations file of a VQA question file, where answers stand apart.
    image_name: name of a picture by its number where a VQA file gives only that, e.g.
        'COCO_val2014_{image_id:012d}.jpg'.
    prompt: how a question is put, with {question} in it; None takes the kind's own.
    """

    kind: Literal["scenes", "jsonl", "llava", "questions", "vqa"] = "scenes"
    style: str | None = None
    split: Literal["train", "validation"] = "train"
    size: PositiveInt | None = None
    path: str | None = None
    images: str | None = None
    answers: str | None = None
    image_name: str | None = None
    prompt: str | None = None


class DataSpec(Frozen):
    """Sources, their mixture weights and the fixed validation set.

    mixture: weight by source name, non-negative, normalised to sum 1; empty means uniform.
    validation: where the guard's pictures and captions come from.
    max_bad_fraction: share of unreadable samples beyond which the job ends.
    """

    sources: dict[str, SourceSpec]
    mixture: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    validation: SourceSpec
    validation_samples: PositiveInt = 64
    max_caption_tokens: PositiveInt = 64
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01

    @model_validator(mode="after")
    def _mixture_names_sources(self) -> DataSpec:
        if not self.sources:
            raise ValueError("sources is empty: name at least one source")
        unknown = sorted(set(self.mixture) - set(self.sources))
        if unknown:
            raise ValueError(
                f"mixture names unknown sources {unknown}; known: {sorted(self.sources)}"
            )
        if self.mixture and sum(self.mixture.values()) <= 0:
            raise ValueError("mixture weights sum to 0: give at least one source a weight above 0")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Normalised weight of every source, in the order of `sources`; they sum to 1."""
        given = self.mixture or dict.fromkeys(self.sources, 1.0)
        total = sum(given.values())
        return {name: given.get(name, 0.0) / total for name in self.sources}
