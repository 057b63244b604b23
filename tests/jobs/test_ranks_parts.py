"""Two ranks against one where several parts learn, each at its own rate, LoRA and MoCa among them.

All jobs of two ranks share one gang: two processes and one process group for the whole file.
"""

import itertools
import multiprocessing
import sys

import pytest
import torch
import warm as warm_processes
from model_zoo import DECODERS
from safetensors.torch import load_file
from tiny_job import events_of, make_world, spec_of

from jobs.checkpoint import WEIGHTS
from jobs.events import Failed, Finished, Scored, Started, Stopped
from jobs.launch import free_port
from jobs.place import Place
from jobs.run import run_job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("warm"),
]
warm = warm_processes.warm
LORA = {"rank": 2, "alpha": 4.0}
SEVERAL = {
    "trainable": {
        "vision_from": 2, "lora": LORA,
        "learning_rates": {"projector": 1e-2, "vision": 1e-3, "lora": 3e-3},
    },
    "moca": {"init_std": 0.02, "learning_rate": 3e-2},
}  # fmt: skip
FIRST = {
    "trainable": {"language_until": 2, "learning_rates": {"language": 2e-3}},
    "moca": {"init_std": 0.02},
}
CACHED = {"trainable": {"lora": LORA}, "moca": {"kind": "layernorm", "layers": [1, 3]}}
EXPERTS = {
    "random": {**DECODERS["mixtral"], "max_position_embeddings": 128}, "tokenizer": "embedded",
}  # fmt: skip
RESUMED = (0, 1, 2, 3)
COMPILER = "torch._inductor.compile_fx"
# name: parts that learn, what of the model is set, what of DeepSpeed
JOBS = {
    "vision+lora+moca-0": ("vision projector lora moca", SEVERAL, {"zero_stage": 0}),
    "vision+lora+moca-1": ("vision projector lora moca", SEVERAL, {"zero_stage": 1}),
    "vision+lora+moca-2": (
        "vision projector lora moca", SEVERAL, {"zero_stage": 2, "micro_batch": 1},
    ),
    "vision+lora+moca-3": (
        "vision projector lora moca", SEVERAL, {"zero_stage": 3, "micro_batch": 1},
    ),
    "language+moca+cache-2": ("projector language moca", FIRST, {"zero_stage": 2}),
    "lora+moca+cache-3": ("projector lora moca", CACHED, {"zero_stage": 3}),
    "everything+moca-3": (
        "vision projector language moca", {"trainable": "everything", "moca": {}},
        {"zero_stage": 3, "activation_checkpointing": True},
    ),
    "experts+cache-3": (
        "projector language", {"trainable": "projector+language", "language": EXPERTS},
        {"zero_stage": 3},
    ),
}  # fmt: skip


def job(base, name, cache):
    _, model, engine = JOBS[name]
    return spec_of(
        base,
        model={**model, "feature_cache": cache},
        deepspeed=engine,
        score={"every_samples": 12, "pairs": 7, "batch_size": 2},
        data={"validation_samples": 5},
        checkpoint={"every_samples": None},
    )


def dropping(base, stage):
    """LoRA's dropout draws other random numbers on every rank and at every step."""
    lora = {**LORA, "dropout": 0.3}
    return spec_of(
        base,
        model={"trainable": {"lora": lora}},
        deepspeed={"zero_stage": stage},
        score={"every_samples": 100, "pairs": 6},
        checkpoint={"every_samples": None},
    )


def rank_of_a_gang(rank, port, runs, told):
    """Run after run; one with a number of steps is asked to stop after them, on one rank only."""
    for spec, folder, steps in runs:
        polls = itertools.count(1)

        def stop(steps=steps, polls=polls):
            return "asked" if rank == 1 and next(polls) == steps else None

        place = Place(
            folder=folder, rank=rank, world_size=2, local_rank=rank, master_port=port,
            stop_requested=stop,
        )  # fmt: skip
        for event in run_job(spec, place):
            told.put((rank, folder.name, event))
    told.put((rank, COMPILER, COMPILER in sys.modules))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of all runs and, by name, the events of rank 0 of two ranks and of the only one."""
    base = make_world(tmp_path_factory.mktemp("world"))
    folder = tmp_path_factory.mktemp("runs")
    plan = [(job(base, name, "auto"), folder / "two" / name, None) for name in JOBS]
    for stage in RESUMED:
        spec = dropping(base, stage)
        plan.append((spec, folder / "two" / f"whole-{stage}", None))
        plan += [(spec, folder / "two" / f"parts-{stage}", steps) for steps in (3, None)]
    two = gang_of_two(plan)
    one = {name: events_of(job(base, name, "off"), folder / "one" / name) for name in JOBS}
    return folder, one, two


def gang_of_two(plan):
    """Events of rank 0 by the name of a run's folder."""
    context = multiprocessing.get_context("spawn")
    told, port = context.Queue(), free_port()
    gang = [
        context.Process(target=rank_of_a_gang, args=(rank, port, plan, told), daemon=True)
        for rank in range(2)
    ]
    for process in gang:
        process.start()
    heard, ended = {}, 0
    while ended < len(gang):
        rank, name, event = told.get(timeout=200)
        ended += name == COMPILER
        if rank == 0:
            heard.setdefault(name, []).append(event)
        assert not isinstance(event, Failed), event
    for process in gang:
        process.join()
    return heard


def weights_of(folder):
    return load_file(max((folder / "checkpoints").glob("samples-*")) / WEIGHTS)


@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_end_where_one_does(runs, name):
    folder, one, two = runs
    started = next(e for e in two[name] if isinstance(e, Started))
    assert started.ranks == 2 and set(started.trainable) == set(JOBS[name][0].split())
    alone, both = (weights_of(folder / where / name) for where in ("one", "two"))
    assert alone.keys() == both.keys()
    for key, value in alone.items():
        if key.endswith(("k_proj.bias", "key.bias")):
            continue  # softmax does not feel a constant: their gradient is all rounding
        torch.testing.assert_close(both[key], value, atol=2e-5, rtol=0, msg=key)
    for left, right in zip(*([e for e in events[name] if isinstance(e, Scored)]
                             for events in (one, two)), strict=True):  # fmt: skip
        assert right.samples == left.samples
        assert right.report.fingerprint == left.report.fingerprint
        assert right.mir["mir"] == pytest.approx(left.mir["mir"], abs=1e-4)
        assert right.guard.gap == pytest.approx(left.guard.gap, abs=1e-5)


def test_only_frozen_encoders_were_kept_in_the_cache(runs):
    folder, *_ = runs
    cached = {name for name in JOBS if (folder / "two" / name / "features").is_dir()}
    assert cached == {name for name in JOBS if "cache" in name}
    assert not any((folder / "one").rglob("features"))


def test_no_stage_of_zero_loads_a_compiler_that_no_job_uses(runs):
    assert runs[-1][COMPILER] == [False]


@pytest.mark.parametrize("stage", RESUMED)
def test_two_ranks_interrupted_and_resumed_end_bit_for_bit_as_never_interrupted(runs, stage):
    folder, _, two = runs
    first, *_, last = two[f"parts-{stage}"]
    assert isinstance(last, Finished) and isinstance(first, Started)
    stops = [e for e in two[f"parts-{stage}"] if isinstance(e, Stopped)]
    assert [e.samples for e in stops] == [12]
    whole, parts = (weights_of(folder / "two" / f"{which}-{stage}") for which in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
