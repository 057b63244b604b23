"""What a job that begins with a checkpoint is, whatever learnt there and whatever learns now."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_job import events_of, make_world, spec_of

from jobs.downstream.run import run_any
from jobs.downstream.start import find_checkpoint
from jobs.events import Failed, Finished
from jobs.load import load_checkpoint
from jobs.place import Place
from jobs.spec.downstream import FinetuneSpec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LORA = {"lora": {"rank": 4, "targets": ["q_proj", "down_proj"]}}
LEARNS = {
    "lora": LORA,
    "wider lora": {"lora": {"rank": 8, "alpha": 4.0}},
    "language": {"language_until": "all"},
    "first layers": {"language_until": 2},
    "projector": {},
    "lora alone": {**LORA, "projector": False},
    "encoder": {"vision_from": 1},
}
GPT2 = {
    "model_type": "gpt2", "n_embd": 24, "n_layer": 2, "n_head": 2, "vocab_size": 32,
    "n_positions": 128, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return make_world(folder), folder


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """The checkpoint of a job by the name of what learnt in it."""
    base, _ = world
    made = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("pre")
            spec = spec_of(base, model={"trainable": LEARNS[name]}, optim={"samples": 8})
            assert isinstance(events_of(spec, made[name])[-1], Finished)
        return made[name]

    return get


def finetune(base: dict, start: Path, learns: str, folder: Path, rate: float = 1e-30, **changes):
    """The last event of a fine-tune that, at the usual rate, changes nothing."""
    values = {
        "start": str(start), "trainable": LEARNS[learns], "data": base["data"], "seed": 1,
        "optim": {"learning_rate": rate, "samples": 4, "global_batch": 4},
        "score": {**base["score"], "every_samples": 16},
    }  # fmt: skip
    spec = FinetuneSpec.model_validate({**values, **changes})
    return list(run_any(spec, Place(folder=folder)))[-1]


def logits(folder: Path) -> torch.Tensor:
    """What the checkpoint's model says of fixed features and words."""
    loaded = load_checkpoint(find_checkpoint(str(folder)))
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 4, 16, generator=generator)
    ids = torch.randint(6, 20, (2, 7), generator=generator)
    with torch.no_grad():
        tokens = loaded.model.sequence(features, ids, torch.ones_like(ids, dtype=torch.bool))
        return loaded.model.language(inputs_embeds=tokens.embeds).logits


@pytest.mark.parametrize("after", ["lora", "wider lora", "language", "first layers", "projector"])
@pytest.mark.parametrize("before", ["lora", "language", "lora alone"])
def test_it_begins_as_the_model_that_the_checkpoint_is(world, trained, tmp_path, before, after):
    base, _ = world
    folder = trained(before)
    then = logits(folder)
    for learns in (after, "encoder"):
        last = finetune(base, folder, learns, tmp_path / f"then {learns}")
        assert isinstance(last, Finished), last
        folder = tmp_path / f"then {learns}"
        torch.testing.assert_close(logits(folder), then, rtol=0, atol=1e-6)


def test_what_learns_anew_is_learnt_on_top(world, trained, tmp_path):
    base, _ = world
    start = trained("lora")
    assert isinstance(finetune(base, start, "wider lora", tmp_path, rate=1e-3), Finished)
    now, then = logits(tmp_path), logits(start)
    fresh = spec_of(base, model={"trainable": LEARNS["wider lora"]}, optim={"samples": 4})
    assert isinstance(events_of(fresh, tmp_path / "fresh")[-1], Finished)
    moved, far = (now - then).abs().max(), (now - logits(tmp_path / "fresh")).abs().max()
    assert 0 < moved < far / 2


@pytest.mark.parametrize("stage", [0, 3])
def test_tied_words_turned_layers_and_moca_come_along(tmp_path, stage):
    """GPT-2 keeps its weights as [in, out] and its words twice under one name."""
    base = make_world(tmp_path)
    language = {"random": GPT2, "tokenizer": str(tmp_path / "llama")}
    model = {"language": language, "trainable": {"lora": {"rank": 4}}, "moca": {"init_std": 0.1}}
    spec = spec_of(base, model=model, optim={"samples": 8})
    assert isinstance(events_of(spec, tmp_path / "pre")[-1], Finished)
    last = finetune(
        base, tmp_path / "pre", "language", tmp_path / "fine", deepspeed={"zero_stage": stage}
    )
    assert isinstance(last, Finished), last
    now, then = logits(tmp_path / "fine"), logits(tmp_path / "pre")
    torch.testing.assert_close(now, then, rtol=0, atol=1e-6)
    moca = [load_checkpoint(find_checkpoint(str(tmp_path / n))).model.moca for n in ("pre", "fine")]
    kept = [m.state_dict() for m in moca]
    assert kept[0] and all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())


def test_lora_is_drawn_from_the_fine_tunes_own_seed(world, trained, tmp_path):
    base, _ = world
    drawn = []
    for seed in (1, 2):
        last = finetune(base, trained("lora"), "lora", tmp_path / f"{seed}", seed=seed)
        assert isinstance(last, Finished), last
        drawn.append(load_file(find_checkpoint(str(tmp_path / f"{seed}")) / "weights.safetensors"))
    names = [name for name in drawn[0] if ".lora_A." in name]
    assert names and not any(torch.equal(drawn[0][name], drawn[1][name]) for name in names)


@pytest.mark.parametrize("after", ["projector", "language", "lora"])
def test_frozen_weights_that_were_replaced_meanwhile_are_refused(tmp_path, after):
    base = make_world(tmp_path)
    pre = tmp_path / "pre"
    spec = spec_of(base, model={"trainable": LEARNS["lora"]}, optim={"samples": 4})
    assert isinstance(events_of(spec, pre)[-1], Finished)
    file = tmp_path / "llama" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"] += 0.1
    save_file(weights, file, metadata={"format": "pt"})
    last = finetune(base, pre, after, tmp_path / "fine")
    assert isinstance(last, Failed) and last.kind == "bad-data"
    assert "was trained on frozen language weights" in last.reason


def test_a_start_of_another_model_is_refused(world, trained, tmp_path):
    base, _ = world
    start = find_checkpoint(str(trained("lora")))
    spec = spec_of(base, model={"projector": "mlp3x_gelu"}, start=str(start))
    last = events_of(spec, tmp_path)[-1]
    assert isinstance(last, Failed) and "do not fit this model" in last.reason
