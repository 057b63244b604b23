"""Where a job's samples come from and in which proportions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.spec.base import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt

SourceKind = Literal[
    "scenes", "jsonl", "llava", "webdataset", "parquet", "datasets", "questions", "vqa"
]


class SourceSpec(Frozen):
    """One source of captioned pictures.

    kind: 'scenes' is the embedded world; 'jsonl' one JSON object a line; 'llava' the JSON list of
        LLaVA with an image folder; 'webdataset' uncompressed tar files; 'parquet' parquet files;
        'datasets' a folder that save_to_disk of Hugging Face's datasets wrote; 'questions' asks
        about the embedded world; 'vqa' questions with answers in a file (jobs/data/vqa.py).
    path: what is read: a local path or one that begins with file://, s3://, gs:// or memory://.
        Several tar or parquet files: a folder, a pattern (*.tar) or a range (a-{000..012}.tar).
    images: the folder below which pictures named in the data lie (default: that of `path`).
    image_field, caption_field: names of the fields or columns (default: image, caption); of
        webdataset's JSON members only the caption's.
    style: caption style of an embedded source.
    size: number of samples: of an embedded source so many are made; of others it is declared, for
        caps by epochs and natural proportions in a sweep, and checked when they are opened.
    split: which part of an embedded source, or of a folder that holds several.
    answers: the annotations file of a VQA question file, where answers stand apart.
    image_name: name of a picture by its number where a VQA file gives only that, e.g.
        'COCO_val2014_{image_id:012d}.jpg'.
    prompt: how a question is put, with {question} in it; None takes the kind's own.
    turns: what of LLaVA's conversations is read: the first answer as a caption, or all questions
        and answers, of which the answers are learnt.
    """

    kind: SourceKind = "scenes"
    style: str | None = None
    split: Literal["train", "validation"] = "train"
    size: PositiveInt | None = None
    path: str | None = None
    images: str | None = None
    image_field: str | None = None
    caption_field: str | None = None
    answers: str | None = None
    image_name: str | None = None
    prompt: str | None = None
    turns: Literal["first-answer", "all"] = "first-answer"


class DataSpec(Frozen):
    """Sources, their mixture weights and the fixed validation set.

    mixture: weight by source name, non-negative, normalised to sum 1; empty means uniform.
    max_epochs: how often a source may be seen at most, by source name; what its weight gives it
        beyond goes to the others in proportion to theirs.
    validation: where the guard's pictures and captions come from.
    max_bad_fraction: share of bad samples beyond which the job ends: of those whose turn came in
        training, on all ranks and in all attempts together, and of those tried for each set it is
        scored on; taken of 1,000 at least.
    group_by_length: so many global batches' samples are put together by the length of their
        captions, which saves padding; 1 leaves the order as it is.
    """

    sources: dict[str, SourceSpec]
    mixture: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    max_epochs: dict[str, PositiveFloat] = Field(default_factory=dict)
    validation: SourceSpec
    validation_samples: PositiveInt = 64
    max_caption_tokens: PositiveInt = 64
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    group_by_length: PositiveInt = 1

    @model_validator(mode="after")
    def _mixture_names_sources(self) -> DataSpec:
        if not self.sources:
            raise ValueError("sources is empty: name at least one source")
        for field, named in (("mixture", self.mixture), ("max_epochs", self.max_epochs)):
            unknown = sorted(set(named) - set(self.sources))
            if unknown:
                raise ValueError(
                    f"{field} names unknown sources {unknown}; known: {sorted(self.sources)}"
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
