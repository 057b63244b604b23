"""A question as the model reads it: a prompt with a place for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jobs.data.sample import Sample
from mir.errors import ConfigError


def check_prompt(prompt: str, field: str) -> str:
    """The prompt as it is; ConfigError unless the question has a place in it."""
    if "{question}" not in prompt:
        raise ConfigError(f"{field}.prompt: {prompt!r} has no {{question}}: say where it goes")
    return prompt


def asked(
    image: Any, question: str, answers: tuple[str, ...], key: str, prompt: str, ending: str = ""
) -> Sample:
    """A question as a sample: the answer follows the prompt after a blank, as in running text.

    ending: what is learnt after the answer, before the end of the sequence.
    """
    answer = Counter(answers).most_common(1)[0][0] + ending
    return Sample(
        image=image, caption=f" {answer}", key=key, answers=answers,
        prompt=prompt.replace("{question}", question),
    )  # fmt: skip
