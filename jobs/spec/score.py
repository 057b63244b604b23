"""When and how a job scores itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jobs.spec.base import Frozen, PositiveInt
from jobs.spec.data import SourceSpec
from mir.report import Variant


class TextsSpec(Frozen):
    """The unrelated texts of MIR's text side.

    source: 'embedded' for the shipped texts, otherwise a text file (one text a line) or a folder
        of .txt files.
    """

    source: str = "embedded"


class ScoreSpec(Frozen):
    """When and how a job scores itself; equal for all trials of a study.

    every_samples: cadence in samples seen; the first score is before the first step, the last
        after the last step.
    overhead_limit: share of the run's time that scoring may take. Where the cadence would cost
        more, every second score is left out, or three of four, and so on, never moved, so that
        trials stay comparable at equal samples. 1 sets no limit.
    always: samples whose scores are made whatever they cost, beside the first and the last; None
        takes the first that a stopping rule looks at: past warm-up and a quarter of the samples.
    pairs: number of image-text pairs N. images: where the pictures come from, None takes the
        validation source. template: how image and text are joined.
    """

    every_samples: PositiveInt = 1024
    overhead_limit: Annotated[float, Field(gt=0, le=1)] = 0.03
    always: tuple[PositiveInt, ...] | None = None
    variant: Variant = "exact"
    pairs: PositiveInt = 48
    images: SourceSpec | None = None
    texts: TextsSpec = TextsSpec()
    template: Literal["plain", "chat"] = "plain"
    max_text_tokens: PositiveInt = 64
    batch_size: PositiveInt = 16
