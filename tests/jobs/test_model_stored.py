"""Weights that lie in 16 bits are loaded so where an engine would cast them back to the same."""

import weakref
from pathlib import Path

import pytest
import torch
from model_zoo import DECODERS
from safetensors.torch import load_file
from tiny_job import events_of, make_world, spec_of
from transformers import AutoConfig, AutoModelForCausalLM

import jobs.model.language
from jobs.checkpoint import WEIGHTS, frozen_parts, open_checkpoint
from jobs.events import Finished, Scored, Step
from jobs.load import build_job
from jobs.model.stored import same_as_from_float32, sixteen_bit

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def stored_as(folder, dtype, **how):
    AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(folder, **how)


@pytest.fixture
def base(tmp_path):
    """The tiny world with a language model that lies in bfloat16."""
    world = make_world(tmp_path)
    stored_as(world["model"]["language"], torch.bfloat16)
    return world


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "engine"),
    [
        ({}, {"zero_stage": 0}),
        ({"moca": {"init_std": 0.02}, "projector_norm": True}, {"zero_stage": 2}),
        ({"trainable": {"lora": {"rank": 2, "alpha": 4.0}}}, {"zero_stage": 2}),
        ({"trainable": "projector+language"}, {"zero_stage": 0}),
        ({"trainable": "projector+language"}, {"zero_stage": 2}),
        ({"trainable": {"language_until": 2}}, {"zero_stage": 3}),
    ],
)
def test_a_run_is_bit_for_bit_that_of_weights_read_as_float32(
    base, tmp_path, monkeypatch, model, engine
):
    engine = {**engine, "precision": "bf16"}
    saved = {"every_samples": 4, "keep": 1}  # and so every step is told, whatever the clock says
    spec = spec_of(base, model=model, deepspeed=engine, checkpoint=saved)
    narrow = events_of(spec, tmp_path / "narrow")
    monkeypatch.setattr(jobs.model.language, "sixteen_bit", lambda _: None)
    wide = events_of(spec, tmp_path / "wide")
    assert isinstance(narrow[-1], Finished), narrow[-1]
    for kind, seen in (
        (Step, lambda e: (e.loss, e.grad_norm)),
        (Scored, lambda e: (e.mir["mir"], e.mir["layers"], e.guard)),
    ):
        told = [[seen(e) for e in events if isinstance(e, kind)] for events in (narrow, wide)]
        assert told[0] and told[0] == told[1]
    a, b = (tmp_path / name / "checkpoints" / f"samples-{24:012d}" for name in ("narrow", "wide"))
    assert open_checkpoint(a)[0].frozen == open_checkpoint(b)[0].frozen
    left, right = load_file(a / WEIGHTS), load_file(b / WEIGHTS)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], value) for name, value in right.items())


def test_half_the_memory_and_the_same_digest(base):
    """Of all the language model; what is made anew, and the rest of the world, is float32."""
    spec = spec_of(base)
    narrow, wide = (build_job(spec, as_stored=as_stored).model for as_stored in (True, False))
    types = {name: {p.dtype for p in part.parameters()} for name, part in narrow.named_children()}
    assert types["language"] == {torch.bfloat16}
    assert types["projector"] == types["vision"] == {torch.float32}
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    assert frozen_parts(narrow, spec) == frozen_parts(wide, spec)


def test_a_start_is_gone_on_from_in_float32(base, tmp_path):
    """What it has learnt has more digits than the folder's weights."""
    assert isinstance(events_of(spec_of(base), tmp_path / "first")[-1], Finished)
    start = str(tmp_path / "first" / "checkpoints" / f"samples-{24:012d}")
    on = build_job(spec_of(base, start=start), as_stored=True).model
    assert {p.dtype for p in on.parameters()} == {torch.float32}


def test_only_weights_that_are_all_of_one_16_bit_type_count(base):
    folder = base["model"]["language"]
    assert sixteen_bit(folder) is torch.bfloat16
    stored_as(folder, torch.float16)
    assert sixteen_bit(folder) is torch.float16
    mixed = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    mixed.get_input_embeddings().float()
    mixed.save_pretrained(folder)
    assert sixteen_bit(folder) is None
    stored_as(folder, torch.float32)
    assert sixteen_bit(folder) is None
    assert sixteen_bit("nobody/has-this") is None


def test_weights_in_several_files_are_all_looked_at(base, tmp_path):
    folder = base["model"]["language"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "parts", max_shard_size=4096)
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    assert sixteen_bit(str(tmp_path / "parts")) is torch.bfloat16
    model.lm_head.float()
    model.save_pretrained(tmp_path / "mixed", max_shard_size=4096)
    assert sixteen_bit(str(tmp_path / "mixed")) is None


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """An empty cache of the hub, which says that it cannot be reached; whether each question for a
    file was one to the cache alone."""
    import huggingface_hub

    found, download = [], huggingface_hub.hf_hub_download

    def told(*args, local_files_only, **settings):
        found.append(local_files_only)
        return download(*args, local_files_only=True, **settings)

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", told)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return found


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": 4096}])
def test_the_hub_is_not_asked_for_files_that_are_here(base, tmp_path, asked, shards):
    """It would be asked for every file by every rank of a large job, and refuse some of them."""
    assert sixteen_bit("tiny/world") is None
    assert False in asked
    asked.clear()
    place, commit = tmp_path / "hub" / "models--tiny--world", "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    model = AutoModelForCausalLM.from_pretrained(base["model"]["language"], dtype=torch.bfloat16)
    model.save_pretrained(place / "snapshots" / commit, **shards)
    assert sixteen_bit("tiny/world") is torch.bfloat16
    assert asked and all(asked)


def test_weights_that_are_read_again_are_not_held_twice(tmp_path, base, monkeypatch):
    """Gemma's embedding multiplies by what it has rounded, so it is read as float32."""
    settings = dict(DECODERS["gemma2"])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    gemma = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    gemma.save_pretrained(tmp_path / "gemma")
    for file in Path(base["model"]["language"]).glob("token*"):
        (tmp_path / "gemma" / file.name).write_bytes(file.read_bytes())
    read, before = jobs.model.language._read, []

    def watched(name, dtype):
        assert all(model() is None for model in before)
        model, info = read(name, dtype)
        before.append(weakref.ref(model))
        return model, info

    monkeypatch.setattr(jobs.model.language, "_read", watched)
    language = jobs.model.language.load_language(str(tmp_path / "gemma"), as_stored=True)
    assert {p.dtype for p in language.model.parameters()} == {torch.float32}
    assert len(before) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", DECODERS)
def test_families_are_what_an_engine_would_make_of_them_or_are_read_as_float32(
    tmp_path, family, dtype
):
    """Compared with parameters cast one by one, buffers left alone, as DeepSpeed does."""
    settings = dict(DECODERS[family])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(tmp_path)
    narrow = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    gemma = family in ("gemma2", "gemma3")  # its embedding multiplies by what it has rounded
    assert same_as_from_float32(narrow) is not gemma
    if gemma:
        return
    cast = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for parameter in cast.parameters():
        parameter.data = parameter.data.to(dtype)
    for kind in ("named_parameters", "named_buffers"):
        left, right = (dict(getattr(model, kind)()) for model in (narrow, cast))
        assert left.keys() == right.keys()
        for name, value in right.items():
            assert left[name].dtype == value.dtype, name
            assert torch.equal(left[name], value), name
