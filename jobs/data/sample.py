"""One captioned picture, and what every source of them must offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

Turn = tuple[str, str]  # prompt, caption


@dataclass(frozen=True, kw_only=True)
class Sample:
    """image: RGB. key: names the sample in messages, e.g. 'captions.jsonl:17'.

    prompt: text between picture and caption that is given and not learnt, such as a question.
    more: what follows in a conversation, again text that is given and text that is learnt.
    answers: every answer that counts as right, where the caption is an answer.
    """

    image: Image
    caption: str
    key: str
    prompt: str = ""
    answers: tuple[str, ...] = ()
    more: tuple[Turn, ...] = ()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All that is given and learnt, in order."""
        return ((self.prompt, self.caption), *self.more)

    @property
    def text(self) -> str:
        """All text that the model reads."""
        return text_of(self.turns)


def text_of(turns: Sequence[Turn]) -> str:
    """Prompts and captions laid end to end."""
    return "".join(prompt + caption for prompt, caption in turns)


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
