"""What cannot be loaded is said in one line, with field, value and remedy."""

import json
import shutil

import pytest
from model_zoo import DECODERS, spec
from tiny_job import make_world, spec_of

from jobs.model.build import build_model
from mir.errors import ConfigError


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def refusal(model_spec):
    with pytest.raises(ConfigError) as refused:
        build_model(model_spec, seed=0)
    text = str(refused.value)
    assert "\n" not in text and text.startswith("model.")
    return text


def changed(base, tmp_path, part, **config):
    """A copy of a model's folder with other fields in its config.json."""
    folder = tmp_path / part
    shutil.copytree(base["model"][part], folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


@pytest.mark.parametrize("part", ["vision", "language"])
def test_a_folder_that_is_not_there_and_a_name_that_is_nowhere(base, part, tmp_path):
    lost = refusal(spec_of(base, model={part: str(tmp_path / "none")}).model)
    assert lost.startswith(f"model.{part}: '{tmp_path}/none' cannot be loaded: there is no such")
    (tmp_path / "empty").mkdir()
    empty = refusal(spec_of(base, model={part: str(tmp_path / "empty")}).model)
    assert "no config.json: name the folder" in empty
    offline = refusal(spec_of(base, model={part: "nobody/has-this-model"}).model)
    assert f"model.{part}: 'nobody/has-this-model'" in offline
    assert "the hub was not reached: fetch it with 'hf download', or name a folder" in offline


@pytest.mark.parametrize("part", ["vision", "language"])
def test_an_unknown_architecture_and_code_of_its_own(base, part, tmp_path):
    folder = changed(base, tmp_path, part, model_type="zork")
    text = refusal(spec_of(base, model={part: str(folder)}).model)
    assert "model_type is unknown to the installed transformers: choose another" in text
    (folder / "config.json").write_text(
        json.dumps({"model_type": "zork", "auto_map": {"AutoConfig": "evil.Config"}})
    )
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    text = refusal(spec_of(base, model={part: str(folder)}).model)
    assert "code of its own, which is never run" in text
    (folder / "config.json").write_text("{broken")
    assert f"model.{part}" in refusal(spec_of(base, model={part: str(folder)}).model)


def test_a_vision_model_is_no_language_model(base):
    text = refusal(spec_of(base, model={"language": base["model"]["vision"]}).model)
    assert "another kind: model.language takes causal language models" in text


def test_weights_that_are_missing_misshapen_or_broken(base, tmp_path):
    folder = changed(base, tmp_path, "language", num_hidden_layers=4)
    text = refusal(spec_of(base, model={"language": str(folder)}).model)
    assert "lacks 9 weights of its architecture, model.layers.3." in text
    shutil.rmtree(folder)
    folder = changed(base, tmp_path, "language", intermediate_size=40)
    text = refusal(spec_of(base, model={"language": str(folder)}).model)
    assert "other shapes than its config.json says" in text
    (folder / "model.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"garbage!")
    assert "cannot be loaded" in refusal(spec_of(base, model={"language": str(folder)}).model)


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ({"random": {"model_type": "lama"}}, "random.model_type: 'lama' is unknown .*llama"),
        ({"random": {"model_type": "llama", "hidden_sise": 8}}, "hidden_sise.*mean hidden_size"),
        ({"random": {"model_type": "llama", "hidden_size": "big"}}, "hidden_size.*expected int"),
        ({"random": {"hidden_size": 8}}, "random.model_type: None is unknown"),
        ({"random": DECODERS["llama"], "tokenizer": None}, "language.tokenizer: missing"),
        ({"random": {**DECODERS["llama"], "vocab_size": 9}}, "274 tokens .* embeddings for 9"),
        ({"random": {"model_type": "clip_vision_model"}}, "takes causal language models"),
    ],
)
def test_random_weights_need_a_sound_configuration(language, message):
    import re

    text = refusal(spec(language={"tokenizer": "embedded", **language}))
    assert re.search(message, text), text


def test_pictures_of_varying_size_are_refused():
    pictures = {"model_type": "siglip2_vision_model", "hidden_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 32}  # fmt: skip
    text = refusal(spec(vision={"random": pictures}))
    assert "Siglip2VisionModel cannot encode a picture" in text


def test_a_small_convolutional_encoder_has_no_inner_layers_to_select(tmp_path):
    from safetensors.torch import save_file

    from jobs.real.efficientnet import EfficientNetLite

    save_file(EfficientNetLite().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "efficientnet-lite0"}))
    text = refusal(spec(vision=str(tmp_path), select_layer=-2))
    assert "select_layer: efficientnet-lite0 gives its last layer only: use -1" in text
    text = refusal(spec(vision=str(tmp_path), trainable={"vision_from": 99}))
    assert "vision_from: 99 is beyond the last of 16 layers" in text
    text = refusal(spec(vision=str(tmp_path), projector="pixel-shuffle"))
    assert "square grid of even side" in text
