"""Turn unpacked packages into what recipes name: `python -m jobs.real.prepare FOLDER`.

Each result is made once, aside, and renamed when complete: an interrupted run is continued by
running it again. What was not fetched is left out and named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jobs.real import captions, texts
from jobs.real.models import write_language, write_vision
from jobs.real.write import write_source
from mir.errors import MirsweepError

Step = tuple[str, str | None, Callable[[Path, Path], str]]

# Result, the unpacked package that it needs, and what makes it.
STEPS: tuple[Step, ...] = (
    ("texts.txt", None, lambda result, _: texts.write_texts(result)),
    ("vision", "vision", write_vision),
    ("language", "language", write_language),
    ("easyvqa", "easyvqa", texts.write_questions),
    ("data/stamps", "stamps", lambda result, raw: write_source(result, captions.stamps(raw))),
    (
        "data/emoji",
        "emoji",
        lambda result, raw: write_source(result, captions.emoji(raw, tags=False)),
    ),
    (
        "data/tags",
        "emoji",
        lambda result, raw: write_source(result, captions.emoji(raw, tags=True)),
    ),
    ("data/clipart", "clipart", lambda result, raw: write_source(result, captions.clipart(raw))),
    ("data/openmoji", "openmoji", lambda result, raw: write_source(result, captions.openmoji(raw))),
)


def prepare(folder: Path, say: Callable[[str], None]) -> list[str]:
    """Make every result whose package lies in `folder/unpacked`; return the names left out."""
    left_out: list[str] = []
    for name, package, make in STEPS:
        result, raw = folder / name, folder / "unpacked" / (package or "")
        if result.exists():
            say(f"{name}: ready")
        elif package is not None and not raw.is_dir():
            left_out.append(name)
        else:
            result.parent.mkdir(parents=True, exist_ok=True)
            say(f"{name}: {make(result, raw)}")
    return left_out


def main(arguments: list[str]) -> int:
    """Prepare the folder named by the only argument; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m jobs.real.prepare FOLDER", file=sys.stderr)
        return 2
    try:
        left_out = prepare(Path(arguments[0]), partial(print, flush=True))
    except MirsweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if left_out:
        print(f"left out, not fetched: {', '.join(left_out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
