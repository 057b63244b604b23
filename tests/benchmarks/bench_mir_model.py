"""MIR of a whole model: time over its forward passes, ranks against threads, memory; see bench_mir.

Each function prints ratios of one run; seconds mean nothing on a busy machine.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from jobs.model.build import build_model
from jobs.place import Place
from jobs.scoring import Scorer
from jobs.spec.score import TextsSpec
from mir.capture import Batch, Subject
from mir.ranks import score_across_ranks
from sweeps.recipe import load_recipe

ROOT = Path(__file__).parents[2]
RECIPE, ASSETS = ROOT / "sweeps" / "recipes" / "real-cpu.yaml", ROOT / ".assets"
WORKER = ROOT / "tests" / "mir"


def timed(work: Callable[[], object]) -> float:
    """Seconds by the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _long_texts(source: Path, words: int) -> str:
    """The texts, each followed by those after it until it has this many words."""
    lines = source.read_text().splitlines()
    long = []
    for number in range(len(lines)):
        joined: list[str] = []
        while len(joined) < words:
            joined += lines[number % len(lines)].split()
            number += 1
        long.append(" ".join(joined))
    return "\n".join(long)


def end_to_end(pairs: int, text_tokens: int, repeats: int, precision: str) -> None:
    """Scoring SmolLM2 + EfficientNet over the same forward passes alone."""
    base = load_recipe(RECIPE).base
    images = base.data.sources["stamps"]
    built = build_model(base.model, 0)
    built.model.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder, "texts.txt")
        texts.write_text(_long_texts(Path(base.score.texts.source), text_tokens))
        wanted = {"pairs": pairs, "max_text_tokens": text_tokens, "images": images}
        wanted |= {"batch_size": 8, "texts": TextsSpec(source=str(texts))}
        spec = base.model_copy(update={"score": base.score.model_copy(update=wanted)})
        scorer = Scorer(spec, built, Place(folder=Path(folder)))
    built.model.eval()

    def forwards() -> None:
        for batch in scorer._pairs:
            features = batch.pictures.encode(built.model, torch.device("cpu"))
            inputs = (features, batch.text_ids, batch.text_mask, scorer._prefix_ids)
            built.model.run_decoder(built.model.sequence(*inputs))

    with torch.no_grad():
        forwards()  # encodes the pictures, which both sides then find encoded
        rounds = [(timed(forwards), timed(scorer._mir)) for _ in range(repeats)]
        report = scorer._mir()
    tokens = sum(layer.vision_tokens + layer.text_tokens for layer in report.layers[:1])
    ratio = median(scored / alone for alone, scored in rounds)
    print(
        f"{precision}, {pairs} pairs, {tokens} tokens, {len(report.layers)} layers, "
        f"{torch.get_num_threads()} threads, {repeats} rounds: forward passes "
        f"{median(alone for alone, _ in rounds):.1f} s, with the score "
        f"{median(scored for _, scored in rounds):.1f} s, ratio {ratio:.2f} "
        f"(rounds: {', '.join(f'{scored / alone:.2f}' for alone, scored in rounds)}); "
        f"MIR {report.mir:.3f} +/- {report.standard_error:.3f}"
    )


def _layers(size: int, tokens: int, count: int, share: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for layer in range(count):
        generator = torch.Generator().manual_seed(layer)
        vision, text = (torch.randn(tokens, size, generator=generator) + k for k in (0.1, 0))
        yield vision[share], text[share]


def _rank(rank: int, ranks: int, folder: str, shape: tuple[int, int, int], answer: object) -> None:
    torch.set_num_threads(max(1, 2 // ranks))
    size, tokens, count = shape
    if ranks > 1:
        store = dist.FileStore(str(Path(folder, "store")), ranks)
        wait = timedelta(seconds=300)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=wait)
    pair = torch.arange(tokens) * 100 // tokens
    share = (pair % ranks == rank).nonzero()[:, 0]  # every so-manyth pair, as jobs share them
    index = pair[share]
    layers = list(_layers(size, tokens, count, share))
    score_across_ranks(layers[:ranks], (index, index))  # threads and libraries are up after this
    seconds = timed(lambda: score_across_ranks(layers, (index, index)))
    answer.put(seconds)  # type: ignore[attr-defined]


def _alone(target: Callable[..., None], *arguments: object, processes: int = 1) -> list[Any]:
    """What fresh processes put into the queue that each gets as its last argument."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    started = [
        context.Process(target=target, args=(rank, *arguments, answer)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    found = [answer.get(timeout=600) for _ in started]
    for process in started:
        process.join()
    return found


def ranks_against_threads(size: int, tokens: int, repeats: int) -> None:
    """Two ranks of one thread against one rank of two threads, six layers, exchange included."""
    shape, ratios = (size, tokens, 6), []
    for _ in range(repeats):
        seconds = []
        for ranks in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                seconds.append(max(_alone(_rank, ranks, folder, shape, processes=ranks)))
        ratios.append(seconds[1] / seconds[0])
        print(f"one rank {seconds[0]:.2f} s, two ranks {seconds[1]:.2f} s, {ratios[-1]:.2f}")
    print(f"D {size}, {tokens} tokens a modality: two ranks / one rank {median(ratios):.2f}")


def _of_random(
    _rank: int, threads: int, passes: int, kind: str, shape: tuple[int, ...], answer: object
) -> None:
    sys.path.append(str(WORKER))
    import memory_worker

    answer.put(memory_worker.main(threads, passes, kind, *shape))  # type: ignore[attr-defined]


def _of_real(_rank: int, threads: int, passes: int, answer: object) -> None:
    """SmolLM2 + EfficientNet in bfloat16, 100 pairs with the texts of the real recipe."""
    sys.path.append(str(WORKER))
    import memory_worker

    torch.set_num_threads(threads)
    base = load_recipe(RECIPE).base
    wanted = {"pairs": 100, "max_text_tokens": 300, "batch_size": 8}
    wanted |= {"images": base.data.sources["stamps"]}
    spec = base.model_copy(update={"score": base.score.model_copy(update=wanted)})
    built = build_model(spec.model, 0)
    model = built.model.bfloat16().eval()
    with tempfile.TemporaryDirectory() as folder:
        scorer = Scorer(spec, built, Place(folder=Path(folder)))
    batches = []
    with torch.no_grad():
        for batch in scorer._pairs:
            features = batch.pictures.encode(model, torch.device("cpu"))
            states = model.sequence(features, batch.text_ids, batch.text_mask, scorer._prefix_ids)
            masks = {"vision": states.vision_mask, "text": states.text_mask}
            batches.append(Batch(inputs={"states": states}, pairs=batch.numbers, **masks))
    subject = Subject(
        module=model,
        forward=lambda inputs: model.run_decoder(inputs["states"]),
        decoder_layers=model.decoder_layers,
        final_norm=model.final_norm,
        hidden_size=model.language.config.hidden_size,
    )
    tokens = sum(batch.tokens for batch in batches)
    found = memory_worker.measure(subject, batches, tokens, passes, torch.bfloat16)
    answer.put(found)  # type: ignore[attr-defined]


def memory(size: int, sequences: int, length: int, count: int) -> None:
    """Peak resident memory over the forward passes' own, against the bound of mir.memory."""
    print("| model | threads | passes | bound | measured | measured / bound |")
    print("|---|---|---|---|---|---|")
    shape = (size, count, sequences, length)
    cases: list[tuple[str, Callable[..., None], tuple[object, ...]]] = [
        (f"D {size}, {kind}", _of_random, (kind, shape)) for kind in ("float32", "bfloat16")
    ]
    if ASSETS.is_dir():
        cases.append(("SmolLM2 + EfficientNet", _of_real, ()))
    for (name, work, more), threads, passes in product(cases, (1, 2), (1, 2, 4)):
        (found,) = _alone(work, threads, passes, *more)
        over, bound = found["over"], found["bound"]
        print(
            f"| {name} | {threads} | {passes} | {bound / 1e6:.0f} MB | {over / 1e6:.0f} MB "
            f"| {over / bound:.2f} |",
            flush=True,
        )
