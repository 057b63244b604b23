"""How long captions are: in tokens where the tokenizer lies here, else in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.data.survey import Measure


def caption_measure(language: object) -> tuple[Measure, str]:
    """The measure for captions that a language model reads, and its unit.

    language: 'embedded', a folder, or anything else, which has no tokenizer here. The tokenizer
    file is read without transformers and torch. Captions count without the end-of-sequence token.
    """
    file = _tokenizer_file(language)
    if file is None:
        return _words, "words"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # what looks like a special token is plain text

    def tokens(texts: Sequence[str]) -> list[int]:
        encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in encoded]

    return tokens, "tokens"


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _tokenizer_file(language: object) -> Path | None:
    if not isinstance(language, str):
        return None
    embedded = Path(__file__).parents[1] / "world" / "assets" / "language"
    folder = embedded if language == "embedded" else Path(language).expanduser()
    file = folder / "tokenizer.json"
    return file if file.is_file() else None
