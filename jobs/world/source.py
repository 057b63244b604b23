"""The embedded world as a source of captioned pictures."""

from __future__ import annotations

from typing import TypeVar

from jobs.data.sample import Sample, Source
from jobs.spec import SourceSpec
from jobs.world.captions import STYLES, Style, caption_at, image_at
from jobs.world.scenes import SPLITS, Split
from mir.errors import ConfigError

__all__ = ["DEFAULT_SIZES", "STYLES", "WorldSource", "open_scenes"]

_Choice = TypeVar("_Choice", bound=str)

DEFAULT_SIZES: dict[Split, int] = {"train": 4096, "validation": 512}


class WorldSource:
    """Samples of one caption style; the scene depends on split and index, not on the style."""

    def __init__(self, style: str, split: str = "train", size: int | None = None) -> None:
        """size: number of samples; None takes DEFAULT_SIZES. Raises ConfigError."""
        self.style: Style = _one_of("style", style, STYLES)
        self.split: Split = _one_of("split", split, SPLITS)
        self.size = DEFAULT_SIZES[self.split] if size is None else size
        if self.size < 1:
            raise ConfigError(f"size: {size} samples; give at least 1")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        caption = self.caption(index)
        return Sample(
            image=image_at(self.split, index, self.style),
            caption=caption,
            key=f"{self.style}/{self.split}:{index}",
        )

    def caption(self, index: int) -> str:
        """The caption alone."""
        if not 0 <= index < self.size:
            raise IndexError(f"{self.style}/{self.split}: no sample {index} of {self.size}")
        return caption_at(self.split, index, self.style)


def open_scenes(spec: SourceSpec, field: str) -> Source:
    """The source that a spec of kind 'scenes' names. Raises ConfigError."""
    if spec.style is None:
        raise ConfigError(f"{field}.style: missing: kind 'scenes' needs one of {', '.join(STYLES)}")
    try:
        return WorldSource(spec.style, spec.split, spec.size)
    except ConfigError as error:
        raise ConfigError(f"{field}.{error}") from error


def _one_of(field: str, value: str, known: tuple[_Choice, ...]) -> _Choice:
    for choice in known:
        if choice == value:
            return choice
    raise ConfigError(f"{field}: {value!r} is unknown; known: {', '.join(known)}")
