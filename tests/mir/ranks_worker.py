"""What each process of test_ranks.py runs, and the features that it scores.

All scenarios run in one process group, one after the other: that a failed one leaves the group
usable is part of what is tested.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import mir.ranks
from mir.errors import MirsweepError
from mir.ranks import all_or_none, score_across_ranks
from mir.report import Protocol

PAIRS, LAYERS, SIZE = 11, 7, 12


def features(dtype: torch.dtype = torch.float32) -> tuple[list[tuple], tuple]:
    """(layers, pairs) of one rank that has everything: uneven tokens a pair, some outliers."""
    generator = torch.Generator().manual_seed(4)
    counts = [[3 + (5 * p + 2 * m) % 7 for p in range(PAIRS)] for m in (0, 1)]
    pairs = tuple(torch.arange(PAIRS).repeat_interleave(torch.tensor(c)) for c in counts)
    layers = []
    for layer in range(LAYERS):
        vision, text = (torch.randn(len(p), SIZE, generator=generator) for p in pairs)
        vision = vision * (1 + layer) + 0.3
        vision[layer] *= 40
        text[-1 - layer] *= 25
        layers.append((vision.to(dtype), text.to(dtype)))
    # As after a final norm without gains: equal norms but for the rounding of float32.
    layers[-1] = tuple(x / x.float().norm(dim=1, keepdim=True).to(dtype) for x in layers[-1])
    return layers, pairs


def shard(layers: list[tuple], pairs: tuple, mine: list[int]) -> tuple[list[tuple], tuple]:
    """Only the tokens of the pairs in `mine`, in that order."""
    rows = [torch.cat([(p == k).nonzero().flatten() for k in mine] or [p[:0]]) for p in pairs]
    kept = [(vision[rows[0]], text[rows[1]]) for vision, text in layers]
    return kept, (pairs[0][rows[0]], pairs[1][rows[1]])


def shares(ranks: int) -> dict[str, list[list[int]]]:
    """Ways to spread the pairs over ranks."""
    everything = list(range(PAIRS))
    return {
        "strided": [everything[r::ranks] for r in range(ranks)],
        "uneven": [everything[1:], [0], []][:ranks] if ranks > 1 else [everything],
        "backwards": [everything[::-1][r::ranks] for r in range(ranks)],
    }


def run(rank: int, ranks: int, folder: str) -> None:
    """Run every scenario and save what happened."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder, "store")), ranks)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
    )
    found: dict[str, object] = {}
    for variant in ("exact", "paper-accurate"):
        for name, share in shares(ranks).items():
            found[f"{variant} {name}"] = _score(variant, share[rank]).to_json()
    found["bfloat16"] = _score("exact", shares(ranks)["strided"][rank], torch.bfloat16).to_json()
    mine = shares(ranks)["strided"][rank]
    found["finished layers"], found["received"] = _watched(mine)
    found["own"] = sum(tokens_ND.nbytes for tokens_ND in shard(*features(), mine)[0][0])
    for name, scenario in FAILURES.items():
        found[name] = _error_of(scenario, rank, ranks)
    if ranks == 3:
        found["in a group of two"] = _in_a_group_of_two(rank)
    found["after the failures"] = _score("exact", shares(ranks)["strided"][rank]).to_json()
    dist.destroy_process_group()
    torch.save(found, Path(folder, f"rank-{rank}.pt"))


def _score(variant, mine, dtype=torch.float32):
    layers, pairs = shard(*features(dtype), mine)
    protocol = Protocol(variant=variant, pairs=PAIRS)
    return score_across_ranks(iter(layers), pairs, variant=variant, protocol=protocol)


def _in_a_group_of_two(rank):
    """Ranks 1 and 2 score alone; their numbers in the group are 0 and 1."""
    group = dist.new_group([1, 2])
    if rank == 0:
        return None
    layers, pairs = shard(*features(), shares(2)["strided"][rank - 1])
    protocol = Protocol(variant="exact", pairs=PAIRS)
    return score_across_ranks(layers, pairs, protocol=protocol, group=group).to_json()


def _watched(mine):
    """Which layers this rank finished, and the bytes that reached it in each exchange."""
    finished, received = [], []
    score, swap = mir.ranks.score_layer, dist.batch_isend_irecv

    def scored(*args, layer, **more):
        finished.append(layer)
        return score(*args, layer=layer, **more)

    def swapped(operations):
        received.append(sum(one.tensor.nbytes for one in operations if one.op is dist.irecv))
        return swap(operations)

    mir.ranks.score_layer, dist.batch_isend_irecv = scored, swapped
    try:
        _score("exact", mine)
    finally:
        mir.ranks.score_layer, dist.batch_isend_irecv = score, swap
    return finished, received


def _error_of(scenario, rank, ranks):
    mine = shares(ranks)["strided"][rank]
    try:
        scenario(*shard(*features(), mine), rank, ranks)
    except MirsweepError as error:
        return type(error).__name__, str(error)
    except ZeroDivisionError as error:
        return "ZeroDivisionError", str(error)
    return None


def _nan_on_the_last(layers, pairs, rank, ranks):
    if rank == ranks - 1:
        layers[2][0][1, 3] = float("nan")
    score_across_ranks(layers, pairs)


def _crash_while_reading(layers, pairs, rank, ranks):
    def reading():
        for number, layer in enumerate(layers):
            if rank == ranks - 1 and number == 4:
                raise ZeroDivisionError("the disk is gone")
            yield layer

    score_across_ranks(reading(), pairs)


def _crash_before(layers, pairs, rank, ranks):
    with all_or_none():
        if rank == ranks - 1:
            raise ZeroDivisionError("the forward failed")
    score_across_ranks(layers, pairs)


def _fewer_layers(layers, pairs, rank, ranks):
    score_across_ranks(layers[:-1] if rank == ranks - 1 else layers, pairs)


def _wrong_pairs(layers, pairs, rank, ranks):
    vision, text = pairs
    score_across_ranks(layers, (vision[1:], text) if rank == ranks - 1 else pairs)


FAILURES = {
    "nan": _nan_on_the_last,
    "crash while reading": _crash_while_reading,
    "crash before": _crash_before,
    "fewer layers": _fewer_layers,
    "wrong pairs": _wrong_pairs,
}
