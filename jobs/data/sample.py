"""One captioned picture, and what every source of them must offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Sample:
    """image: RGB. key: names the sample in messages, e.g. 'captions.jsonl:17'.

    prompt: text between picture and caption that is given and not learnt, such as a question.
    answers: every answer that counts as right, where the caption is an answer.
    """

    image: Image
    caption: str
    key: str
    prompt: str = ""
    answers: tuple[str, ...] = ()


class Source(Protocol):
    """A finite, indexable set of samples; reading one is a pure function of its index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Raises BadSample (jobs/data/errors.py) for a sample that cannot be used."""
        ...

    def caption(self, index: int) -> str:
        """The text that is read with sample `index`, without opening a picture; for its length.

        Raises BadSample.
        """
        ...
