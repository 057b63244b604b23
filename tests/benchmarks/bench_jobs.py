"""Steps of one job beside a plain torch loop and transformers' Trainer + DeepSpeed; run by hand.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_jobs.py                  toy shape on the CPU
    python tests/benchmarks/bench_jobs.py --shape 0.5b --trainable projector --precision bf16
    python tests/benchmarks/bench_jobs.py --memory                           by ZeRO stage
    python tests/benchmarks/bench_jobs.py --profile                          what a step spends

All three train the same model on the same batches in the same precision at the same rate and
clipping, in one process and in turns, so the ratios hold where the seconds do not. On the CPU the
clock counts the training thread's processor time, since machines are shared; on a GPU it counts
real time between synchronisations, and model-flops utilisation and scoring's share are shown too.
Toy figures say what an engine costs beside small arithmetic: the worst case.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from job_shapes import SHAPES, batches_of, model_flops, spec_of, tokens_of
from torch import nn

from jobs.data.batch import Batch
from jobs.engine.deepspeed_engine import Engine
from jobs.engine.group import device_of, join
from jobs.launch import free_port
from jobs.model.build import build_model
from jobs.model.llava import Llava
from jobs.place import Place
from jobs.spec import JobSpec

PEAK_FLOPS = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}


def clock(device: torch.device) -> float:
    """Seconds: the device's once it has done everything, or this thread's on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.thread_time()


class Plain:
    """The loop that one would write in an afternoon: torch's AdamW, clipping, nothing else."""

    def __init__(self, spec: JobSpec, model: Llava, place: Place) -> None:
        self._spec, self._device = spec, device_of(place)
        self._low = spec.deepspeed.precision == "bf16"
        self._model = model.to(self._device)
        self._learns = [p for p in model.parameters() if p.requires_grad]
        if self._low:  # bf16 weights with float32 masters, as DeepSpeed keeps them
            self._masters = [p.detach().float().clone() for p in self._learns]
            self._model = model.bfloat16()
            self._learns = [p for p in model.parameters() if p.requires_grad]
        else:
            self._masters = self._learns
        self._adamw = torch.optim.AdamW(
            self._masters, lr=spec.optim.learning_rate, weight_decay=0.0,
            fused=self._device.type == "cuda",
        )  # fmt: skip

    def steps(self, batches: list[Batch]) -> list[float]:
        """Seconds of each step."""
        return [self._timed(batch) for batch in batches]

    def _timed(self, batch: Batch) -> float:
        began = clock(self._device)
        self._model.train()
        loss = self._model(batch.to(self._device))
        loss.backward()
        if self._low:
            for master, parameter in zip(self._masters, self._learns, strict=True):
                master.grad = parameter.grad.float() if parameter.grad is not None else None
        nn.utils.clip_grad_norm_(self._masters, self._spec.optim.gradient_clip)
        self._adamw.step()
        if self._low:
            with torch.no_grad():
                for master, parameter in zip(self._masters, self._learns, strict=True):
                    parameter.copy_(master)
        for parameter in {*self._learns, *self._masters}:
            parameter.grad = None
        float(loss.detach())
        return clock(self._device) - began


class Ours:
    """The engine of a job: what a run calls for every batch."""

    def __init__(self, spec: JobSpec, model: Llava, place: Place) -> None:
        self.engine, self._device, self._done = Engine(model, spec, place), device_of(place), 0

    def steps(self, batches: list[Batch]) -> list[float]:
        """Seconds of each step."""
        seconds = []
        for batch in batches:
            began = clock(self._device)
            self.engine.step(batch, self._done)
            seconds.append(clock(self._device) - began)
            self._done += 1
        return seconds


class _AsTrainerWants(nn.Module):
    """transformers' Trainer passes columns and takes the loss from a dictionary."""

    def __init__(self, model: Llava) -> None:
        super().__init__()
        self.model = model

    def forward(self, **columns: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.model(Batch(**columns))}


class Peer:
    """transformers' Trainer with DeepSpeed on the same dictionary."""

    def __init__(self, spec: JobSpec, model: Llava, place: Place) -> None:
        from jobs.engine.config import deepspeed_config

        self._spec, self._place, self._device = spec, place, device_of(place)
        self._model = _AsTrainerWants(model)
        self._config = deepspeed_config(spec, place.world_size, place.device)
        self._config["zero_allow_untested_optimizer"] = True
        # None means never to DeepSpeed; accelerate insists on a number.
        self._config["steps_per_print"] = 10**9

    def steps(self, batches: list[Batch]) -> list[float]:
        """Seconds of each step, without what the Trainer does before the first."""
        import transformers

        seconds: list[float] = []
        device = self._device

        class Clock(transformers.TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                seconds.append(-clock(device))

            def on_step_end(self, *_: Any, **__: Any) -> None:
                seconds[-1] += clock(device)

        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder, max_steps=len(batches), report_to=[], save_strategy="no",
                logging_strategy="no", remove_unused_columns=False, disable_tqdm=True,
                per_device_train_batch_size=len(batches[0]), deepspeed=self._config,
                learning_rate=self._spec.optim.learning_rate, lr_scheduler_type="constant",
                weight_decay=0.0, max_grad_norm=self._spec.optim.gradient_clip,
                bf16=self._spec.deepspeed.precision == "bf16", dataloader_num_workers=0,
                use_cpu=device.type == "cpu", optim="adamw_torch",
            )  # fmt: skip
            trainer = transformers.Trainer(
                model=self._model, args=arguments, data_collator=_joined,
                train_dataset=_Rows([b.to("cpu") for b in batches]), callbacks=[Clock()],
            )  # fmt: skip
            trainer.train()
        return seconds


class _Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The samples of the batches, one by one."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches, self._size = batches, len(batches[0])

    def __len__(self) -> int:
        return len(self._batches) * self._size

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        batch, row = self._batches[index // self._size], index % self._size
        return {
            "pixel_values": batch.pixel_values[row],
            "caption_ids": batch.caption_ids[row],
            "caption_mask": batch.caption_mask[row],
        }


def _joined(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


SIDES = {"plain loop": Plain, "mirsweep": Ours, "Trainer + DeepSpeed": Peer}


def compare(arguments: argparse.Namespace, place: Place) -> None:
    """Print the step of each side and the ratios: fastest on the CPU, median on a GPU."""
    spec = spec_of(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in SIDES if name in arguments.sides}
    runners = {name: SIDES[name](spec, build_model(spec.model, 0).model, place) for name in seconds}
    batches = batches_of(spec, arguments)
    for turn in range(arguments.turns + 1):
        for name, runner in runners.items():
            taken = runner.steps(batches)
            if turn:  # the first turn warms up
                seconds[name] += taken[1:]
    # Other work on a shared machine only ever adds time, so there the fastest step says most.
    typical = {n: median(taken) if place.device == "cuda" else min(taken)
               for n, taken in seconds.items()}  # fmt: skip
    for name, taken in typical.items():
        middle = 1000 * median(seconds[name])
        rate = rate_of(taken, spec, batches, place)
        print(f"| {name} | {1000 * taken:.2f} ms | median {middle:.2f} ms | {rate}")
    for name in typical:
        if name != "mirsweep":
            print(f"mirsweep runs at {typical[name] / typical['mirsweep']:.3f}x of {name}")


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
    parser.add_argument("--scoring", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = Place(folder=Path(), device=device, threads=torch.get_num_threads())
    join(place)
    modes = {"memory": memory, "scoring": scoring_share, "profile": profile}
    chosen = [mode for name, mode in modes.items() if getattr(arguments, name)]
    for mode in chosen or [compare]:
        mode(arguments, place)


if __name__ == "__main__":
    main()
