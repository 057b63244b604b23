"""Makes the shipped models: `python -m jobs.world.pretrain [--out DIR]`.

Takes a few minutes on two cores; run twice on one machine, it prints the same digest twice.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import torch

from jobs.world.load import ASSETS, LANGUAGE, VISION
from jobs.world.pretrain_language import train_language
from jobs.world.pretrain_vision import build_image_processor, train_vision
from jobs.world.vocabulary import build_tokenizer

THREADS = 2  # the order of sums, and with it the last bits, depends on the number of threads


def main() -> None:
    """Trains both models and writes them as transformers folders of half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write to")
    parser.add_argument("--only", choices=(VISION, LANGUAGE), help="train just one of the two")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    if arguments.only != VISION:
        _language(arguments.out / LANGUAGE)
    if arguments.only != LANGUAGE:
        _vision(arguments.out / VISION)
    print(f"digest {digest(arguments.out)}")


def _language(folder: Path) -> None:
    start = time.monotonic()
    tokenizer = build_tokenizer()
    model = train_language(tokenizer, _say)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _say(f"language written to {folder} after {time.monotonic() - start:.0f} s")


def _vision(folder: Path) -> None:
    start = time.monotonic()
    processor = build_image_processor()
    model = train_vision(processor, _say)
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    _say(f"vision written to {folder} after {time.monotonic() - start:.0f} s")


def digest(out: Path) -> str:
    """Sixteen hexadecimal digits over all written weights."""
    total = hashlib.sha256()
    for file in sorted(out.glob("*/model.safetensors")):
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
