"""Whole jobs in which several parts learn at their own rates: steps, resuming, loading, merging."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_job import events_of, make_world, spec_of

from jobs.events import Finished, Started, Stopped
from jobs.load import load_checkpoint
from jobs.model.build import build_model
from jobs.model.lora import merge_lora
from jobs.model.names import part_of
from mir.moca import KINDS

# DeepSpeed's ZeRO stages use it on import.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
LORA = {"rank": 2, "alpha": 8.0, "dropout": 0.25}
RATES = {"projector": 1e-3, "vision": 1e-5, "lora": 1e-4}
SEVERAL = {"vision_from": 2, "lora": LORA, "learning_rates": RATES}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def several(base, stage=0, **optim):
    model = {"trainable": SEVERAL, "moca": {"kind": "scale-shift", "learning_rate": 1e-2}}
    return spec_of(base, model=model, optim=optim, deepspeed={"zero_stage": stage})


def newest(folder):
    return max((folder / "checkpoints").glob("samples-*"))


def weights(folder):
    return load_file(newest(folder) / "weights.safetensors")


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_first_step_moves_every_part_by_its_own_rate(base, tmp_path, stage):
    """AdamW's first step is the rate times the sign of the gradient, where that is not tiny."""
    spec = several(base, stage, samples=4, warmup_ratio=0.0, schedule="constant")
    events = events_of(spec, tmp_path)
    assert isinstance(events[-1], Finished), events[-1]
    started = next(event for event in events if isinstance(event, Started))
    before = build_model(spec.model, spec.seed).model
    assert started.trainable == before.trainable_counts()
    assert set(started.trainable) == {"vision", "projector", "lora", "moca"}
    moves = {}
    for name, after in weights(tmp_path).items():
        moved = (after - before.state_dict()[name]).abs().max().item()
        part = part_of(name)
        moves[part] = max(moves.get(part, 0.0), moved)
    expected = {**RATES, "moca": 1e-2}
    assert moves == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("stage", [0, 2])
def test_interrupted_and_resumed_is_as_never_interrupted(base, tmp_path, stage):
    spec = several(base, stage)
    assert isinstance(events_of(spec, tmp_path / "whole")[-1], Finished)
    polls = iter(range(100))
    first = events_of(
        spec, tmp_path / "parts", stop_requested=lambda: "enough" if next(polls) == 2 else None
    )
    assert isinstance(first[-1], Stopped)
    second = events_of(spec, tmp_path / "parts")
    assert isinstance(second[-1], Finished) and second[0].resumed_samples == first[-1].samples
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys() and any(".lora_A." in name for name in whole)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_moca_is_trained_saved_and_resumed(base, tmp_path, kind):
    moca = {"kind": kind, "init_std": 0.1, "layers": [1, 3]}
    spec = spec_of(base, model={"moca": moca}, optim={"samples": 16})
    assert isinstance(events_of(spec, tmp_path / "whole")[-1], Finished)
    polls = iter(range(100))
    events_of(spec, tmp_path / "parts", stop_requested=lambda: "x" if next(polls) == 1 else None)
    assert isinstance(events_of(spec, tmp_path / "parts")[-1], Finished)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    before = build_model(spec.model, spec.seed).model.state_dict()
    own = [name for name in whole if name.startswith("moca.")]
    assert {name.split(".")[2] for name in own} == ({"1", "3"} if kind != "noise" else set())
    assert all(not torch.equal(whole[name], before[name]) for name in own)


def test_a_checkpoint_with_lora_loads_and_merges(base, tmp_path):
    events_of(several(base, samples=8), tmp_path)
    loaded = load_checkpoint(newest(tmp_path))
    model, trained = loaded.model, weights(tmp_path)
    own = dict(model.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in trained.items())
    ids = torch.tensor([[7, 8, 9, 2]])
    logits = model.language(input_ids=ids).logits
    merge_lora(model.language)
    torch.testing.assert_close(model.language(input_ids=ids).logits, logits)
    plain = build_model(spec_of(base).model, 0).model.language
    assert model.language.state_dict().keys() == plain.state_dict().keys()
    assert not torch.allclose(plain(input_ids=ids).logits, logits, atol=1e-4)
