"""A rank that is killed takes the others down at once, with an error that says so."""

import multiprocessing
import os
from datetime import timedelta

import pytest
import ranks_worker
import torch.distributed as dist

from mir.ranks import all_or_none, score_across_ranks

RANKS = 3


def run(rank: int, folder: str, where: str, answer) -> None:
    """Score until the last rank is gone, as by `kill -9`; tell what the others get."""
    store = dist.FileStore(f"{folder}/store", RANKS)
    # Far longer than the test may take: it is not the timeout that ends them.
    wait = timedelta(minutes=10)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=wait)
    layers, pairs = ranks_worker.shard(
        *ranks_worker.features(), ranks_worker.shares(RANKS)["strided"][rank]
    )

    def reading():
        for number, layer in enumerate(layers):
            if rank == RANKS - 1 and number == 4:
                os._exit(9)
            yield layer

    exchange, calls = dist.batch_isend_irecv, []

    def exchanging(operations):
        calls.append(operations)
        if rank == RANKS - 1 and where == f"exchange {len(calls)}":
            os._exit(9)
        return exchange(operations)

    dist.batch_isend_irecv = exchanging
    try:
        with all_or_none():
            if where == "forward" and rank == RANKS - 1:
                os._exit(9)
        score_across_ranks(reading(), pairs)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        answer.put((rank, type(error).__name__, str(error)))


@pytest.mark.parametrize("where", ["forward", "layers", "exchange 1", "exchange 3"])
def test_a_killed_rank_ends_the_others(where, tmp_path):
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    ranks = [
        context.Process(target=run, args=(rank, str(tmp_path), where, answer), daemon=True)
        for rank in range(RANKS)
    ]
    for process in ranks:
        process.start()
    try:
        said = [answer.get(timeout=90) for _ in range(RANKS - 1)]
    finally:
        for process in ranks:
            process.join(30)
            process.kill()
    assert sorted(rank for rank, _, _ in said) == [0, 1]
    for _, kind, message in said:
        assert kind == "ClusterError"
        assert message.startswith("another rank is gone: ")
        assert len(message.splitlines()) == 1
    assert ranks[-1].exitcode == 9
