"""Makes the shipped models: `python -m jobs.world.pretrain [--out DIR]`.

Takes a few minutes on two cores; run twice on one machine, it prints the same digest twice.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from jobs.world.load import ASSETS, LANGUAGE, VISION
from jobs.world.pretrain_language import train_language
from jobs.world.pretrain_vision import build_image_processor, train_vision
from jobs.world.vocabulary import build_tokenizer


def main() -> None:
    """Trains both models side by side and writes them as transformers folders of float16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write to")
    out: Path = parser.parse_args().out
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        language = pool.submit(make_language, out / LANGUAGE)
        vision = pool.submit(make_vision, out / VISION)
        language.result()
        vision.result()
    print(f"digest {digest(out)}")


def make_language(folder: Path) -> None:
    """Trains the language model and writes it with its tokenizer."""
    start = time.monotonic()
    _be_deterministic()
    tokenizer = build_tokenizer()
    model = train_language(tokenizer, _say)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _say(f"language written to {folder} after {time.monotonic() - start:.0f} s")


def make_vision(folder: Path) -> None:
    """Trains the encoder and writes it with its image processor."""
    start = time.monotonic()
    _be_deterministic()
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


def _be_deterministic() -> None:
    """One thread: the order of sums, and with it the last bits, depends on their number."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
