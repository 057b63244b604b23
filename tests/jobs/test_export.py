"""Exported models are loaded by transformers and say what the checkpoint's own model says."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_job import CHAT, WORDS, events_of, make_world, spec_of
from transformers import (
    AutoProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from jobs.export.calibration import acting_layers
from jobs.export.load import load_exported
from jobs.export.run import _Probe, export_checkpoint
from jobs.load import load_checkpoint
from jobs.real.efficientnet import EfficientNetLite
from mir.errors import ConfigError, DataError
from mir.moca import Moca

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The tiny world with a CLIP, a SigLIP and a Qwen2 whose vocabulary has rows to spare."""
    folder = tmp_path_factory.mktemp("world")
    base = make_world(folder)
    CLIPVisionModel(CLIPVisionConfig(**TINY)).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(
        size={"height": 16, "width": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder / "clip")
    SiglipVisionModel(SiglipVisionConfig(**TINY)).save_pretrained(folder / "siglip")
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / "siglip")
    qwen = Qwen2Config(
        vocab_size=64, hidden_size=24, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen2ForCausalLM(qwen).save_pretrained(folder / "qwen")
    for file in (folder / "llama").glob("token*"):
        (folder / "qwen" / file.name).write_bytes(file.read_bytes())
    assert CHAT and (folder / "qwen" / "tokenizer.json").is_file()
    torch.manual_seed(0)
    EfficientNetLite().save_pretrained(folder / "efficientnet")
    return folder, base


def checkpoint_of(world, name, **model):
    """A checkpoint after two steps at a high rate, so that everything has moved."""
    folder, base = world
    for part in ("vision", "language"):
        if part in model:
            model[part] = str(folder / model[part])
    spec = spec_of(base, model=model, optim={"samples": 8}, score={"every_samples": 100})
    events_of(spec, folder / name)
    return folder / name / "checkpoints" / "samples-000000000008"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("clip-llama", {"vision": "clip", "language": "llama", "select_layer": -2}),
        ("clip-keep", {"vision": "clip", "language": "llama", "class_token": "keep"}),
        ("siglip-qwen", {"vision": "siglip", "language": "qwen", "select_layer": -2,
                         "trainable": "everything"}),
        ("clip-lora", {"vision": "clip", "language": "qwen",
                       "trainable": {"lora": {"rank": 2}}}),
    ],
)  # fmt: skip
def test_transformers_alone_gives_the_same_logits(world, tmp_path, name, model):
    checkpoint = checkpoint_of(world, name, **model)
    done = export_checkpoint(checkpoint, tmp_path / "out")
    assert (done.form, done.why, done.moca_layers) == ("llava", "", ())
    assert done.difference <= 1e-4
    ours = load_checkpoint(checkpoint)
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    picture = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB")
    inputs = processor(images=picture, text="<s><image>a red circle", return_tensors="pt")
    text = torch.tensor([ours.tokenizer("a red circle", add_special_tokens=False)["input_ids"]])
    pixels = ours.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        tokens = ours.model.sequence(ours.model.encode(pixels), text, torch.ones_like(text) > 0)
        own = ours.model.language(inputs_embeds=tokens.embeds).logits
        logits = theirs.eval()(**inputs).logits
    assert inputs["input_ids"].shape[1] == tokens.embeds.shape[1]
    torch.testing.assert_close(logits[..., : own.shape[-1]], own, atol=1e-4, rtol=0)
    message = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a red circle"}]}
    ]
    assert processor.apply_chat_template(message) == "<s><image>a red circle"
    out = theirs.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert out.shape[1] <= inputs["input_ids"].shape[1] + 3
    assert theirs.config.image_token_index not in out[0, inputs["input_ids"].shape[1] :]


def test_moca_stands_in_an_extra_file_and_is_attached_from_outside(world, tmp_path):
    moca = {"init_std": 0.3, "layers": [1, 3]}
    checkpoint = checkpoint_of(world, "moca", vision="clip", language="llama", moca=moca)
    done = export_checkpoint(checkpoint, tmp_path / "out")
    assert (done.form, done.moca_layers) == ("llava", (1, 3))
    assert done.difference <= 1e-4
    kept = load_file(tmp_path / "out" / "moca.safetensors")
    assert sorted(kept) == [f"layers.{n}.{part}" for n in (1, 3) for part in ("scale", "shift")]
    assert "load_exported" in (tmp_path / "out" / "README.md").read_text()
    found = load_exported(tmp_path / "out")
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.tensor([[1, *[found.model.config.image_token_index] * 4, 7, 8, 9]])
    pixels = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        calibrated = found.model(input_ids=ids, pixel_values=pixels).logits
        without = plain(input_ids=ids, pixel_values=pixels).logits
        text_only = [m(input_ids=ids[:, 5:]).logits for m in (found.model, plain)]
    assert (calibrated[:, -1] - without[:, -1]).abs().max() > 1e-3
    assert torch.equal(*text_only)
    assert found.model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=2).shape[1] <= 10


def test_calibrations_that_do_nothing_are_left_out():
    layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))
    still = Moca.attach(layers, 4, init_std=0.0)
    assert acting_layers(still) == []
    with torch.no_grad():
        still.layers["2"].shift[1] = 0.5
    assert acting_layers(still) == [2]
    assert acting_layers(Moca.attach(layers, 4, kind="noise", init_std=1.0)) == []
    assert acting_layers(Moca.attach(layers, 4, kind="layernorm")) == [1, 2, 3]
    assert acting_layers(None) == []


@pytest.mark.parametrize(
    ("name", "model", "why"),
    [
        ("vit", {"moca": {"init_std": 0.3}}, "CLIP and SigLIP encoders"),
        ("linear", {"vision": "clip", "projector": "linear"}, "no projector 'linear'"),
        ("final", {"vision": "siglip"}, "before its final norm"),
        ("normed", {"vision": "clip", "projector_norm": True}, "no norms around its projector"),
        ("grid", {"vision": "efficientnet", "projector": "mlp2x_gelu"}, "not 'efficientnet-lite0'"),
    ],
)
def test_what_llava_cannot_be_goes_into_a_folder_of_our_own(world, tmp_path, name, model, why):
    checkpoint = checkpoint_of(world, name, trainable="everything", **model)
    done = export_checkpoint(checkpoint, tmp_path / "out")
    assert done.form == "mirsweep"
    assert why in done.why and why in (tmp_path / "out" / "README.md").read_text()
    assert done.difference <= 1e-6
    ours, again = load_checkpoint(checkpoint).model.state_dict(), load_exported(tmp_path / "out")
    state = again.model.state_dict()
    assert ours.keys() == state.keys()
    assert all(torch.equal(state[key], value) for key, value in ours.items())
    assert again.tokenizer.get_vocab().keys() >= set(WORDS)


def test_the_embedded_world_is_exported(tmp_path):
    scenes = {"kind": "scenes", "style": "short", "size": 16}
    from jobs.spec import JobSpec

    spec = JobSpec.model_validate(
        {
            "model": {"projector": "pixel-shuffle"},
            "data": {"sources": {"a": scenes}, "validation": scenes, "validation_samples": 4},
            "optim": {"samples": 4, "global_batch": 4},
            "score": {"pairs": 4},
        }
    )
    events_of(spec, tmp_path / "run")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    done = export_checkpoint(checkpoint, tmp_path / "out")
    assert (done.form, done.samples) == ("mirsweep", 4)
    assert done.difference <= 1e-6


def test_a_folder_that_holds_something_and_one_that_holds_nothing_are_refused(tmp_path):
    (tmp_path / "mine").write_text("keep me")
    with pytest.raises(ConfigError, match="holds something already"):
        export_checkpoint(tmp_path / "any", tmp_path)
    with pytest.raises(DataError, match="no exported model"):
        load_exported(tmp_path)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("stop-llava", {"vision": "clip", "moca": {"init_std": 0.3}}),
        ("stop-ours", {"vision": "clip", "projector": "linear"}),
    ],
)
def test_an_export_that_is_killed_does_not_look_finished(world, tmp_path, monkeypatch, name, model):
    """Whether while it is written, when it is checked, or between one file and the next."""
    checkpoint, out, moved = checkpoint_of(world, name, **model), tmp_path / "out", []
    difference, rename = _Probe.difference, Path.rename

    def checked(probe, folder):
        require_refused(out)
        with pytest.raises(ConfigError, match="was cut off: remove it"):
            export_checkpoint(checkpoint, out)
        return difference(probe, folder)

    def watched(path, target):
        require_refused(out)
        moved.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(_Probe, "difference", checked)
    monkeypatch.setattr(Path, "rename", watched)
    done = export_checkpoint(checkpoint, out)
    assert done.folder == out
    assert {entry.name for entry in out.iterdir()} <= set(moved)
    assert load_exported(out).tokenizer.get_vocab().keys() >= set(WORDS)


def require_refused(folder):
    with pytest.raises(DataError, match="no exported model"):
        load_exported(folder)


def test_an_export_that_came_out_otherwise_is_removed(world, tmp_path, monkeypatch):
    checkpoint = checkpoint_of(world, "wrong", vision="clip", language="llama")
    monkeypatch.setattr("jobs.export.run._Probe.difference", lambda *_: 0.5)
    with pytest.raises(Exception, match="logits differ"):
        export_checkpoint(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
