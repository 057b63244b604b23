"""What reading costs, and whether batches of like length pay. Writes a Markdown page.

    python tests/benchmarks/bench_data.py --out infra/benchmarks/data.md

Needs what infra/real-assets fetches. Each comparison is made in one run on the same samples, its
sides taken in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from jobs.data.batch import Batch
from jobs.data.build import open_source
from jobs.data.grouping import LengthGroups
from jobs.data.lengths import caption_measure
from jobs.data.loader import BatchLoader
from jobs.data.stream import MixtureStream
from jobs.data.survey import survey
from jobs.model.build import Built, build_model
from jobs.spec import DataSpec, JobSpec, ModelSpec, SourceSpec
from sweeps.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ("quickstart", "real-cpu")
WINDOWS = (1, 4, 16, 64)
VISION_TOKENS = (16, 49, 144, 576)
ENTRIES = 200_000
TITLE = "# Reading data\n"


def padding(job: JobSpec, batch: int) -> dict[tuple[int, int], float]:
    """Positions a batch has by (vision tokens, window), as a multiple of those without padding."""
    sources = {name: open_source(spec) for name, spec in job.data.sources.items()}
    sizes = {name: len(source) for name, source in sources.items()}
    measure, unit = caption_measure(job.model.language)
    assert unit == "tokens"
    limit = job.data.max_caption_tokens

    def lengths(picks: Any) -> list[int]:
        texts = [sources[name].caption(index) for name, index in picks]
        return [min(limit, length + 1) for length in measure(texts)]

    stream = MixtureStream(sizes, job.data.weights, 0)
    samples = 64 * batch
    found = {}
    for window in WINDOWS:
        order = LengthGroups(stream, lengths, batch=batch, window=window)
        all_lengths = lengths([order.pick(p) for p in range(samples)])
        batches = [all_lengths[start : start + batch] for start in range(0, samples, batch)]
        if window == 1:  # sorting inside a batch changes nothing
            assert sum(map(max, batches)) >= sum(all_lengths) / batch
        for vision in VISION_TOKENS:
            padded = sum((vision + max(one)) * batch for one in batches)
            found[vision, window] = padded / (vision * samples + sum(all_lengths))
    return found


def padding_table(recipes: dict[str, JobSpec]) -> Iterator[str]:
    yield (
        "| recipe | batch | vision tokens | as they come | "
        + " | ".join(f"grouped over {w} batches" for w in WINDOWS[1:])
        + " |"
    )
    yield "|---|---|---|---|" + "---|" * len(WINDOWS[1:])
    for name, job in recipes.items():
        for batch in (8, 64):
            found = padding(job, batch)
            for vision in VISION_TOKENS:
                cells = " | ".join(f"{found[vision, w]:.3f}" for w in WINDOWS)
                yield f"| {name} | {batch} | {vision} | {cells} |"


def loader(job: JobSpec, built: Built, **changes: Any) -> BatchLoader:
    settings = {"group_by_length": changes.pop("group", 1)}
    data = DataSpec.model_validate({**job.data.model_dump(), **settings})
    return BatchLoader(
        data, seed=0, tokenizer=built.tokenizer, image_processor=built.image_processor,
        rank=0, world_size=1, **{"global_batch": 8, **changes},
    )  # fmt: skip


def batches(job: JobSpec, built: Built, count: int, group: int) -> list[Batch]:
    reading = loader(job, built, group=group)
    found = [next(reading) for _ in range(count)]
    reading.close()
    return found


def step_times(job: JobSpec, built: Built, count: int) -> tuple[float, float]:
    """Seconds of forward and backward passes over the same samples: as they come, and grouped."""
    sides = [batches(job, built, count, 1), batches(job, built, count, count)]
    spent = [0.0, 0.0]
    for pair in zip(*sides, strict=True):
        for side, batch in enumerate(pair):
            began = time.perf_counter()
            built.model(batch).backward()
            spent[side] += time.perf_counter() - began
    return spent[0], spent[1]


def reading_speed(job: JobSpec, built: Built, workers: int, count: int = 40) -> float:
    """Samples a second that a loader gives to somebody who does nothing else."""
    reading = loader(job, built, workers=workers, global_batch=16)
    for _ in range(8):
        next(reading)
    began = time.perf_counter()
    for _ in range(count):
        next(reading)
    speed = 16 * count / (time.perf_counter() - began)
    reading.close()
    return speed


def listings(folder: Path) -> None:
    """A list like LLaVA's own, and the same as JSON lines."""
    answer = "the same words again and again, as captions are " * 3
    entries = [
        {
            "id": f"{n:09}",
            "image": f"{n // 1000:05}/{n:09}.jpg",
            "conversations": [
                {"from": "human", "value": "Give a brief description of the image.\n<image>"},
                {"from": "gpt", "value": f"{n} {answer}"},
            ],
        }
        for n in range(ENTRIES)
    ]
    (folder / "list.json").write_text(json.dumps(entries))
    lines = [json.dumps({"image": e["image"], "caption": f"{answer}"}) for e in entries]
    (folder / "lines.jsonl").write_text("\n".join(lines))


_CHILD = """
import sys, time
sys.path.insert(0, {root!r})
from jobs.data.build import open_source
from jobs.spec import SourceSpec
import jobs.data.llava, jobs.data.json_lines, json
def most():  # MiB; getrusage would tell of the parent before it became this process
    lines = open("/proc/self/status").read().splitlines()
    return int(next(l for l in lines if l.startswith("VmHWM")).split()[1]) / 1024
base = most()
began = time.process_time()
{action}
seconds = time.process_time() - began
print(seconds, most() - base)
"""


def opened(action: str) -> tuple[float, float]:
    """CPU seconds and MiB that `action` takes in a process of its own."""
    code = _CHILD.format(root=str(ROOT), action=action)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def opening_table() -> Iterator[str]:
    yield f"| {ENTRIES:,} entries | CPU seconds | memory (MiB) |"
    yield "|---|---|---|"
    with tempfile.TemporaryDirectory() as name:
        listings(Path(name))
        ours = "held = open_source(SourceSpec(kind={kind!r}, path={path!r}))"
        lists, lines = f"{name}/list.json", f"{name}/lines.jsonl"
        rows = {
            "LLaVA's list, `json.load` of the whole": f"held = json.load(open({lists!r}))",
            "LLaVA's list, kind `llava`": ours.format(kind="llava", path=lists),
            "JSON lines, kind `jsonl`": ours.format(kind="jsonl", path=lines),
        }
        for title, action in rows.items():
            seconds, memory = opened(action)
            yield f"| {title} | {seconds:.2f} | {memory:.0f} |"


def survey_speed(spec: SourceSpec, language: str, limit: int) -> float:
    source, (measure, _) = open_source(spec), caption_measure(language)
    began = time.perf_counter()
    found = survey(source, measure, limit=limit, threads=len(os.sched_getaffinity(0)))
    return found.read / (time.perf_counter() - began)


def page(steps: int) -> Iterator[str]:
    """The lines of the page."""
    torch.set_num_threads(1)
    recipes = {name: load_recipe(ROOT / f"sweeps/recipes/{name}.yaml").base for name in RECIPES}
    real = recipes["real-cpu"]
    yield "## Batches of like length\n"
    yield "Positions of a batch, padding included, as a multiple of those without padding.\n"
    yield from padding_table(recipes)
    built = build_model(ModelSpec.model_validate(real.model.model_dump()), 0)
    plain, grouped = step_times(real, built, steps)
    yield (
        f"\nForward and backward of the real-cpu model, float32, one thread, {steps} batches of 8, "
        f"the same samples on both sides: {plain:.1f} s as they come, {grouped:.1f} s grouped over "
        f"{steps} batches: **{plain / grouped:.2f} times** as fast.\n"
    )
    yield "## Readers\n"
    rounds = [[reading_speed(real, built, n) for n in (1, 2)] for _ in range(5)]
    one, two = (statistics.median(speeds) for speeds in zip(*rounds, strict=True))
    yield (
        f"Pictures of real-cpu prepared for its encoder: {one:.0f} samples a second with one "
        f"thread, {two:.0f} with two (**{two / one:.2f} times**; medians of 5, in turns).\n"
    )
    yield "## Opening a long listing\n"
    yield from opening_table()
    yield "\n## `mirsweep data check`\n"
    clipart, scenes = real.data.sources["clipart"], recipes["quickstart"].data.sources["detailed"]
    yield (
        f"{survey_speed(clipart, real.model.language, 2000):.0f} photographs (clipart, 239 x 238 "
        f"in the median) and {survey_speed(scenes, 'embedded', 2000):.0f} scenes a second."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    began = time.perf_counter()
    body = list(page(args.steps))
    command = f"`python tests/benchmarks/bench_data.py --steps {args.steps}`"
    note = f"Command: {command} ({time.perf_counter() - began:.0f} s, 2 cores, Python 3.11).\n"
    text = "\n".join([TITLE, note, *body]) + "\n"
    write: Callable[[str], Any] = args.out.write_text if args.out else print
    write(text)


if __name__ == "__main__":
    main()
