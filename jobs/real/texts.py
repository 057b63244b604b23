"""Unrelated English text and a small question-answering set."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from jobs.files import written_whole
from jobs.real.write import whole_folder

_PROSE = re.compile(r"[A-Z][A-Za-z0-9 ,.;:'\"()/_-]*")
_MIN_WORDS = 25


def topic_paragraphs() -> list[str]:
    """Prose paragraphs of Python's own manual, one line each, without code and duplicates."""
    from pydoc_data.topics import topics

    paragraphs: dict[str, None] = {}
    for name in sorted(topics):
        for block in topics[name].split("\n\n"):
            if block.startswith(" ") or "::=" in block:
                continue
            line = " ".join(block.replace("*", "").split())
            if len(line.split()) >= _MIN_WORDS and _PROSE.fullmatch(line):
                paragraphs[line] = None
    return list(paragraphs)


def write_texts(path: Path) -> str:
    """Write one paragraph a line; return one line that says how many."""
    paragraphs = topic_paragraphs()
    with written_whole(path) as part:
        part.write_text("\n".join(paragraphs) + "\n", encoding="utf-8")
    return f"{len(paragraphs)} paragraphs"


def write_questions(folder: Path, unpacked: Path) -> str:
    """easy-VQA as JSON lines with `image`, `question`, `answer`; train and test as published."""
    counts = []
    with whole_folder(folder) as making:
        for split in ("train", "test"):
            data = unpacked / "easy_vqa/data" / split
            shutil.copytree(data / "images", making / "images" / split)
            questions = json.loads((data / "questions.json").read_text(encoding="utf-8"))
            lines = [
                json.dumps({"image": f"images/{split}/{n}.png", "question": q, "answer": a}) + "\n"
                for q, a, n in questions
            ]
            (making / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
            counts.append(f"{len(lines)} {split}")
    return ", ".join(counts) + " questions"
