"""The embedded world's questions as a source: one question about every scene."""

from __future__ import annotations

from jobs.data.prompt import asked, check_prompt
from jobs.data.sample import Sample
from jobs.spec import SourceSpec
from jobs.world.questions import questions_at
from jobs.world.scenes import SPLITS, Split, render, scene_at
from jobs.world.source import DEFAULT_SIZES
from mir.errors import ConfigError

PROMPT = "question : {question} answer :"  # the form that the embedded language model has read


def open_questions(spec: SourceSpec, field: str) -> WorldQuestions:
    """Open the embedded world's questions. Raises ConfigError for misplaced settings."""
    return WorldQuestions(spec.split, spec.size, check_prompt(spec.prompt or PROMPT, field))


class WorldQuestions:
    """Sample i asks scene i one of its questions; neighbours ask for different things."""

    def __init__(self, split: str = "train", size: int | None = None, prompt: str = PROMPT) -> None:
        """size: number of questions, None takes the split's default. Raises ConfigError."""
        if split not in SPLITS:
            raise ConfigError(f"split: {split!r} is unknown; known: {', '.join(SPLITS)}")
        self.split: Split = split
        self.size = DEFAULT_SIZES[self.split] if size is None else size
        self._prompt = prompt

    def __len__(self) -> int:
        return self.size

    def caption(self, index: int) -> str:
        """Question and answer as they are read; no picture is rendered."""
        choices = questions_at(self.split, index)
        one = choices[index % len(choices)]
        return f"{self._prompt.replace('{question}', one.text)} {one.answer}"

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(f"questions/{self.split}: no sample {index} of {self.size}")
        choices = questions_at(self.split, index)
        one = choices[index % len(choices)]
        picture = render(scene_at(self.split, index))
        key = f"questions/{self.split}:{index}"
        return asked(picture, one.text, (one.answer,), key, self._prompt, ending=" .")
