"""What each process of test_ranks_zero3.py runs: a tiny LLaVA sharded by ZeRO-3."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from probe_models import IMAGE, family, padded

from mir.capture import Batch, score_model
from mir.families import find_subject, token_positions
from mir.memory import MemoryPlan
from mir.pairs import rank_batches
from mir.report import MirReport, Protocol

PAIRS, LAYERS = 3, 3
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "zero_allow_untested_optimizer": True,
}


def score(model: torch.nn.Module, rows: list, rank: int, ranks: int) -> MirReport:
    """Score the pairs of `rows` as `rank` of `ranks`; 2 ranks for 3 pairs, so one repeats."""
    batches = []
    for numbers, counts in rank_batches(PAIRS, 1, rank, ranks):
        inputs = padded([rows[number] for number in numbers])
        vision, text = token_positions(inputs["input_ids"], inputs["attention_mask"], IMAGE)
        batches.append(
            Batch(inputs=inputs, vision=vision & counts, text=text & counts, pairs=numbers)
        )
    return score_model(
        find_subject(model),
        batches,
        plan=MemoryPlan(store="device", groups=(range(1, LAYERS + 1),), reason=""),
        protocol=Protocol(variant="exact", pairs=PAIRS),
    )


def tiny() -> tuple[torch.nn.Module, list]:
    """The model in float32, and its sequences."""
    model, rows = family("llava")
    return model.float(), [
        {name: v.float() if v.is_floating_point() else v for name, v in row.items()} for row in rows
    ]


def run(rank: int, ranks: int, folder: str) -> None:
    """Shard, score twice, save the reports and how much of the model this rank holds."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    os.environ.update(DS_ACCELERATOR="cpu", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder, "store")), ranks)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
    )
    import deepspeed

    # Its shared-memory collectives would be compiled now, which takes half a minute.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    model, rows = tiny()
    whole = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=CONFIG)
    reports = [score(engine.module, rows, rank, ranks).to_json() for _ in range(2)]
    held = sum(p.numel() for p in engine.module.parameters())
    torch.save((reports, held / whole), Path(folder, f"rank-{rank}.pt"))
    dist.destroy_process_group()
    # A thread of DeepSpeed's or gloo's may abort a process that ends by itself: seen once, on a
    # busy machine.
    os._exit(0)
