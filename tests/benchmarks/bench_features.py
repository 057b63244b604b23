"""What the feature cache saves: a picture computed or found, and whole jobs; run by hand.

    python tests/benchmarks/bench_features.py --world embedded [--pictures 200] [--samples 512]
    python tests/benchmarks/bench_features.py --world real --samples 64      (needs .assets)

Prints processor seconds of this process on one thread, its loader threads included, because others
use the machine too; what is compared runs interleaved in one process. `--samples 0` leaves the jobs
out; they tell whether a job without, with a cold and with a warm cache ends in the same weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file

from jobs.data.build import open_source
from jobs.events import Finished
from jobs.features.cache import open_features
from jobs.model.build import build_model
from jobs.place import Place
from jobs.run import run_job
from jobs.spec import JobSpec

ASSETS = Path(__file__).resolve().parents[2] / ".assets"
TURNS = 5


def embedded() -> dict[str, Any]:
    source = {"kind": "scenes", "style": "detailed", "size": 256}
    return {
        "model": {"projector": "pixel-shuffle"},
        "data": {"sources": {"a": source}, "validation": {**source, "split": "validation"},
                 "validation_samples": 16},
        "score": {"pairs": 16},
    }  # fmt: skip


def real() -> dict[str, Any]:
    stamps = ASSETS / "data" / "stamps"
    return {
        "model": {"vision": str(ASSETS / "vision"), "language": str(ASSETS / "language")},
        "data": {
            "sources": {"a": {"kind": "jsonl", "path": str(stamps / "train.jsonl")}},
            "validation": {"kind": "jsonl", "path": str(stamps / "validation.jsonl")},
            "validation_samples": 4, "max_caption_tokens": 32,
        },
        "deepspeed": {"precision": "bf16"},
        "score": {"pairs": 4, "texts": {"source": str(ASSETS / "texts.txt")}},
    }  # fmt: skip


WORLDS: dict[str, Callable[[], dict[str, Any]]] = {"embedded": embedded, "real": real}


def job(world: str, samples: int, cache: str = "auto") -> JobSpec:
    base = WORLDS[world]()
    base["model"]["feature_cache"] = cache
    base["optim"] = {"samples": samples, "global_batch": 8}
    base["score"]["every_samples"] = 10**9
    base["checkpoint"] = {"every_samples": None}
    return JobSpec.model_validate(base)


def pictures(world: str, count: int) -> None:
    """Milliseconds a picture: prepared and encoded, and found."""
    spec = job(world, 8)
    built = build_model(spec.model, 0)
    source = open_source(spec.data.sources["a"])
    images = [source[i].image for i in range(min(count, len(source)))]
    computed, found = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            place = Place(folder=Path(folder) / str(turn))
            for times in (computed, found):
                cache = open_features(spec, built, place)
                assert cache is not None
                began = time.process_time()
                for image in images:
                    cache(image)
                times.append((time.process_time() - began) / len(images) * 1e3)
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / len(files)
    ratio = median(c / f for c, f in zip(computed, found, strict=True))
    print(
        f"{world}, {spec.deepspeed.precision}, a picture: computed {median(computed):.2f} ms, "
        f"found {median(found):.3f} ms, ratio {ratio:.0f}, {size / 1e3:.0f} kB on disk"
    )


def jobs(world: str, samples: int) -> None:
    """Processor seconds of a whole job without, with a cold and with a warm cache."""
    ends = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # The first fills what all of them share: imports and the files' pages.
        for name, cache in (("first", "off"), ("off", "off"), ("cold", "auto"), ("warm", "auto")):
            began = time.process_time()
            place = Place(folder=root / name, shared=root / "study")
            last = list(run_job(job(world, samples, cache), place))[-1]
            assert isinstance(last, Finished), last
            seconds = time.process_time() - began
            newest = max((root / name / "checkpoints").glob("samples-*"))
            ends[name] = load_file(newest / "weights.safetensors")
            print(f"{world}, a job of {samples} samples, {name}: {seconds:.1f} s")
    same = all(
        torch.equal(ends[name][key], value)
        for name in ("cold", "warm") for key, value in ends["off"].items()
    )  # fmt: skip
    print(f"{world}: weights at the end are {'the same' if same else 'DIFFERENT'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", choices=WORLDS, default="embedded")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--samples", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures(options.world, options.pictures)
    if options.samples:
        jobs(options.world, options.samples)


if __name__ == "__main__":
    main()
