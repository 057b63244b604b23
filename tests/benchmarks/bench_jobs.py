"""Steps of one job beside a plain torch loop and transformers' Trainer + DeepSpeed; run by hand.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_jobs.py                  toy shape on the CPU
    python tests/benchmarks/bench_jobs.py --shape 0.5b --trainable projector --precision bf16
    python tests/benchmarks/bench_jobs.py --memory                           by ZeRO stage
    python tests/benchmarks/bench_jobs.py --start --shape 0.5b               of a job's start
    python tests/benchmarks/bench_jobs.py --profile                          what a step spends

All train the same model on the same batches in the same precision at the same rate and
clipping, in one process and in turns, so the ratios hold where the seconds do not. On the CPU the
clock counts the training thread's processor time, since machines are shared; on a GPU it counts
real time between synchronisations, and model-flops utilisation and scoring's share are shown too.
Toy figures say what an engine costs beside small arithmetic: the worst case.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from job_shapes import SHAPES, batches_of, model_flops, spec_of, tokens_of
from job_sides import SIDES, Ours

from jobs.data.batch import Batch
from jobs.engine.group import join
from jobs.launch import free_port
from jobs.model.build import build_model
from jobs.model.language import load_language
from jobs.place import Place
from jobs.spec import JobSpec

PEAK_FLOPS = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}


def compare(arguments: argparse.Namespace, place: Place) -> None:
    """Print the step of each side and the ratios: fastest on the CPU, median on a GPU; and those
    of the sides' median steps turn by turn, with an interval."""
    spec = spec_of(arguments)
    sides = [name for name in arguments.sides if name != "mirsweep, features kept"
             or arguments.trainable == "projector"]  # fmt: skip
    turns: dict[str, list[list[float]]] = {name: [] for name in sides}
    runners = {name: SIDES[name](spec, build_model(spec.model, 0).model, place) for name in sides}
    batches = batches_of(spec, arguments)
    for turn in range(arguments.turns + 1):
        first = turn % len(sides)
        for name in sides[first:] + sides[:first]:
            taken = runners[name].steps(batches)
            if turn:  # the first turn warms up
                turns[name].append(taken[1:])
    seconds = {name: [second for taken in turns[name] for second in taken] for name in sides}
    # Other work on a shared machine only ever adds time, so there the fastest step says most.
    typical = {n: median(taken) if place.device == "cuda" else min(taken)
               for n, taken in seconds.items()}  # fmt: skip
    for name, taken in typical.items():
        middle = 1000 * median(seconds[name])
        rate = rate_of(taken, spec, batches, place)
        print(f"| {name} | {1000 * taken:.2f} ms | median {middle:.2f} ms | {rate}")
    for name in typical:
        if name != "mirsweep":
            ratio, low, high = paired(turns[name], turns["mirsweep"])
            print(
                f"mirsweep runs at {typical[name] / typical['mirsweep']:.3f}x of {name}; by turns "
                f"{ratio:.3f} [{low:.3f}, {high:.3f}]"
            )


def paired(theirs: list[list[float]], ours: list[list[float]]) -> tuple[float, float, float]:
    """Median over turns of their median step over ours, and its 95 % bootstrap interval."""
    ratios = [median(a) / median(b) for a, b in zip(theirs, ours, strict=True)]
    draw = random.Random(0)
    drawn = sorted(median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return median(ratios), drawn[49], drawn[1949]


def rate_of(seconds: float, spec: JobSpec, batches: list[Batch], place: Place) -> str:
    """Tokens a second and, on a known GPU, model-flops utilisation."""
    tokens = tokens_of(spec, batches[0])
    text = f"{tokens / seconds:,.0f} tokens/s |"
    if place.device == "cuda":
        name = torch.cuda.get_device_name()
        peak = next((p for known, p in PEAK_FLOPS.items() if name.startswith(known)), None)
        if peak is not None:
            text += f" {model_flops(spec, batches[0]) / seconds / peak:.1%} MFU |"
    return text


def memory(arguments: argparse.Namespace, place: Place) -> None:
    """Print what each rank's training holds by ZeRO stage, after two steps on `--ranks` ranks.

    On the CPU: bytes of all live tensors (weights, gradients, masters, moments, buckets). On a GPU:
    the peak, activations included.
    """
    spawn = multiprocessing.get_context("spawn")
    for stage in (0, 1, 2, 3):
        arguments.zero_stage = stage
        port = free_port()
        ranks = [
            spawn.Process(target=_held, args=(arguments, rank, port))
            for rank in range(arguments.ranks)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()


def _held(arguments: argparse.Namespace, rank: int, port: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = Place(
        folder=Path(), rank=rank, local_rank=rank, world_size=arguments.ranks, master_port=port,
        device=device,
    )  # fmt: skip
    spec = spec_of(arguments)
    share = arguments.batch // arguments.ranks
    batches = [_rows(batch, slice(0, share)) for batch in batches_of(spec, arguments)[:2]]
    ours = Ours(spec, build_model(spec.model, 0).model, place)
    ours.steps(batches)
    held = torch.cuda.max_memory_allocated() if device == "cuda" else _live_bytes()
    if rank == 0:
        stage = spec.deepspeed.zero_stage
        print(f"| ZeRO-{stage} | {arguments.ranks} ranks | {held / 2**20:,.1f} MiB a rank |")


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(
        pixel_values=batch.pixel_values[rows],
        caption_ids=batch.caption_ids[rows],
        caption_mask=batch.caption_mask[rows],
    )


def _live_bytes() -> int:
    """Bytes of the distinct storages of all tensors that this process can reach."""
    gc.collect()
    storages = {}
    for found in gc.get_objects():
        if isinstance(found, torch.Tensor) and found.device.type == "cpu":
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def start(arguments: argparse.Namespace, _: Place) -> None:
    """Print the host memory that loading a language model takes where it lies in bfloat16, as a job
    that computes in fp32 loads it and as one in bf16 does: its own, with the file's pages, and
    the most there was of both. Ranks of a node share the file's pages."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for task, given in ((_saved, ()), (_started, (False,)), (_started, (True,))):
            process = spawn.Process(target=task, args=(arguments, folder, *given))
            process.start()
            process.join()


def _saved(arguments: argparse.Namespace, folder: str) -> None:
    language = load_language(spec_of(arguments).model.language)
    language.model.to(torch.bfloat16).save_pretrained(folder)
    language.tokenizer.save_pretrained(folder)


def _started(_: argparse.Namespace, folder: str, as_stored: bool) -> None:
    load_language("embedded")  # imports
    before = _resident()
    model: Any = load_language(folder, as_stored=as_stored).model
    weights = sum(p.count_nonzero().item() for p in model.parameters())  # reads every page
    after = _resident()
    own, all_, most = (after[n] - before[n] for n in ("RssAnon", "VmRSS", "VmHWM"))
    print(
        f"| {weights / 1e6:,.0f} M as {model.dtype} | {own:,.0f} MiB of its own | "
        f"{all_:,.0f} MiB with the file's pages | {most:,.0f} MiB at most |"
    )


def _resident() -> dict[str, float]:
    """MiB by name: RssAnon, what this process holds of its own; VmRSS, with pages of files; VmHWM,
    the most that this has been."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return {name: int(found[name]) / 1024 for name in ("RssAnon", "VmRSS", "VmHWM")}


def scoring_share(arguments: argparse.Namespace, place: Place) -> None:
    """Print what the scores of a whole run take of its time, over the job's own loop."""
    from jobs.events import Finished, Scored, Step
    from jobs.run import run_job

    with tempfile.TemporaryDirectory() as folder:
        here = Place(**{**vars(place), "folder": Path(folder)})
        events = list(run_job(spec_of(arguments), here))
    assert isinstance(events[-1], Finished), events[-1]
    scores = [e for e in events if isinstance(e, Scored)]
    waits = [e.loader_wait for e in events if isinstance(e, Step)]
    print(f"scoring: {len(scores)} scores, {scores[-1].share:.1%} of the time of steps and scores")
    print(f"loader: the steps waited {median(waits):.1%} of their time")


def profile(arguments: argparse.Namespace, place: Place) -> None:
    """Print where the engine's step spends processor time, by function."""
    import cProfile
    import pstats

    spec = spec_of(arguments)
    ours, batches = Ours(spec, build_model(spec.model, 0).model, place), batches_of(spec, arguments)
    ours.steps(batches)
    with cProfile.Profile(time.thread_time) as taken:
        ours.steps(batches)
    pstats.Stats(taken).sort_stats("cumulative").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="toy")
    parser.add_argument("--trainable", choices=("projector", "everything"), default="projector")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--zero-stage", type=int, choices=(0, 1, 2, 3), default=0)
    parser.add_argument("--offload-optimizer", action="store_true")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--text", type=int, default=32, help="caption tokens")
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--ranks", type=int, default=2, help="of --memory")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--scoring", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = Place(folder=Path(), device=device, threads=torch.get_num_threads())
    join(place)
    modes = {"memory": memory, "start": start, "scoring": scoring_share, "profile": profile}
    chosen = [mode for name, mode in modes.items() if getattr(arguments, name)]
    for mode in chosen or [compare]:
        mode(arguments, place)


if __name__ == "__main__":
    main()
