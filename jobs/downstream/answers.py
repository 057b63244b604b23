"""Whether a generated answer is right: exact match, token F1 and VQA's accuracy.

Sources: Antol et al., "VQA", arXiv 1505.00468, and its evaluation code (how answers are made
comparable; accuracy by the agreement of ten people). Rajpurkar et al., "SQuAD", arXiv 1606.05250
(token F1).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

_ARTICLES = frozenset(("a", "an", "the"))
_DIGITS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_DASH = re.compile(r"[-/]")
_PUNCTUATION = re.compile(r"[^\w\s.']|(?<!\d)\.|\.(?!\d)|(?<!\w)'|'(?!\w)")


def first_answer(text: str, separator: str = "\n") -> str:
    """What a model answered before it went on: up to the separator, a line's or sentence's end."""
    ends = [separator.strip(" ") or separator, "\n"]
    for end in ends:
        text = text.strip().split(end)[0]
    return re.split(r"\s?\.(?:\s|$)", text)[0].strip()


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, number words as digits, single blanks.

    >>> normalised("The  Red, circle."), normalised("two"), normalised("3.5")
    ('red circle', '2', '3.5')
    """
    bare = _PUNCTUATION.sub("", _DASH.sub(" ", text.lower()))
    return " ".join(_DIGITS.get(w, w) for w in bare.split() if w not in _ARTICLES)


def exact_match(given: str, answers: Sequence[str]) -> float:
    """1 if the answer equals one of the right ones once both are normalised, else 0."""
    return float(normalised(given) in {normalised(answer) for answer in answers})


def token_f1(given: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words, against the closest right answer."""
    return max(_f1(normalised(given).split(), normalised(a).split()) for a in answers)


def _f1(given: list[str], right: list[str]) -> float:
    if not given or not right:
        return float(given == right)
    common = (Counter(given) & Counter(right)).total()
    return 2 * common / (len(given) + len(right))


def vqa_accuracy(given: str, answers: Sequence[str]) -> float:
    """Mean over all sets of answers that leave one out of min(1, agreeing answers / 3).

    With fewer than four answers it is the exact match: there are no three to agree.
    """
    if len(answers) < 4:
        return exact_match(given, answers)
    own = normalised(given)
    agrees = [normalised(answer) == own for answer in answers]
    return fmean(min(1.0, (sum(agrees) - agree) / 3) for agree in agrees)


MEASURES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact-match": exact_match,
    "f1": token_f1,
    "vqa-accuracy": vqa_accuracy,
}
