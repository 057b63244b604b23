"""EfficientNet-lite0: shapes, the folded batch norms, preprocessing; and the real weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from jobs.data.images import open_image
from jobs.real.efficientnet import (
    EfficientNetLite,
    ImageProcessor,
    SameConv,
    _convolutions,
    convert_state,
    load_image_processor,
    load_vision,
)
from mir.errors import ConfigError, DataError

ASSETS = Path(__file__).parents[2] / ".assets"


@pytest.fixture(scope="module")
def published():
    """A checkpoint with the published names and shapes and random numbers."""
    model = EfficientNetLite()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for place, norm, name in _convolutions():
        weight = model.get_parameter(f"{name}.weight")
        state[f"{place}.weight"] = torch.randn(weight.shape, generator=generator)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = torch.rand(len(weight), generator=generator) + 0.5
    state["_fc.weight"] = torch.zeros(1000, 1280)
    return state


def test_the_architecture_has_the_published_size():
    """4,652,008 parameters with classifier and batch norms (two numbers a channel)."""
    convolutions = [m for m in EfficientNetLite().modules() if isinstance(m, nn.Conv2d)]
    weights = sum(m.weight.numel() for m in convolutions)
    norms = 2 * sum(m.out_channels for m in convolutions)
    assert weights + norms + 1280 * 1000 + 1000 == 4_652_008


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1)])
@pytest.mark.parametrize("size", [7, 8, 13])
def test_padding_gives_the_rounded_up_size(kernel, stride, size):
    out = SameConv(2, 3, kernel, stride)(torch.zeros(1, 2, size, size))
    assert out.shape == (1, 3, -(-size // stride), -(-size // stride))


def test_the_odd_pixel_is_padded_right_and_below():
    """A 3 x 3 sum with stride 2 over an even picture starts at its first pixel."""
    conv = SameConv(1, 1, 3, 2)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)
    out = conv(torch.ones(1, 1, 4, 4))
    assert out[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]


def test_folded_batch_norms_compute_the_same(published):
    state = convert_state(published)
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    conv = SameConv(3, 32, 3, 2)
    conv.load_state_dict({"weight": state["stem.0.weight"], "bias": state["stem.0.bias"]})
    plain = SameConv(3, 32, 3, 2)
    zero = torch.zeros(32)
    plain.load_state_dict({"weight": published["_conv_stem.weight"], "bias": zero})
    parts = [published[f"_bn0.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
    expected = nn.functional.batch_norm(plain(x), *parts, eps=1e-3)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_that_does_not_fit_is_refused(published):
    with pytest.raises(DataError, match="does not fit"):
        convert_state({k: v for k, v in published.items() if k != "_bn1.bias"})
    with pytest.raises(DataError, match="does not fit"):
        convert_state({**published, "_conv_head.weight": torch.zeros(1280, 321, 1, 1)})


def test_a_folder_is_loaded_strictly(published, tmp_path):
    state = convert_state(published)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "efficientnet-lite0"}))
    model = load_vision(tmp_path)
    assert not model.training
    with torch.no_grad():
        out = model(torch.zeros(2, 3, 224, 224)).last_hidden_state
    assert out.shape == (2, 49, model.config.hidden_size)
    with pytest.raises(ConfigError, match=r"model\.select_layer"):
        model(torch.zeros(1, 3, 224, 224), output_hidden_states=True)
    del state["head.0.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="run bash infra/real-assets"):
        load_vision(tmp_path)


def test_a_folder_of_another_model_or_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="run bash infra/real-assets"):
        load_vision(tmp_path / "none")


def test_pictures_are_squared_on_white_and_scaled():
    process = ImageProcessor()
    wide = Image.new("RGB", (448, 224), (127, 255, 0))
    pixels = process(images=[wide, wide.rotate(90, expand=True)], return_tensors="pt")[
        "pixel_values"
    ]
    assert pixels.shape == (2, 3, 224, 224)
    assert pixels.dtype == torch.float32
    assert pixels[0, :, 112, 112].tolist() == [0.0, 1.0, -127 / 128]
    assert pixels[0, :, 2, 112].tolist() == [1.0, 1.0, 1.0]  # the white above
    torch.testing.assert_close(pixels[1], pixels[0].transpose(1, 2))
    with pytest.raises(ValueError, match="only 'pt'"):
        process(images=[wide], return_tensors="np")


@pytest.mark.assets
def test_the_real_encoder_tells_pictures_apart():
    """Two frogs lie nearer together than a frog and a spade: the weights mean something."""
    if not (ASSETS / "vision").is_dir():
        pytest.skip("run bash infra/real-assets first")
    names = ("animals-amphibians-frog", "animals-amphibians-frog-1", "household-tools-spade")
    pictures = [open_image(ASSETS / f"data/stamps/images/{name}.jpg", name) for name in names]
    processor = load_image_processor(ASSETS / "vision")
    with torch.no_grad():
        grid = load_vision(ASSETS / "vision")(**processor(images=pictures)).last_hidden_state
    frog, other, spade = nn.functional.normalize(grid.mean(1), dim=-1)
    assert frog @ other > frog @ spade + 0.1


@pytest.mark.assets
def test_the_real_language_model_knows_english():
    if not (ASSETS / "language").is_dir():
        pytest.skip("run bash infra/real-assets first")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(ASSETS / "language")
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "language")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
    told = model.generate(**asked, max_new_tokens=12, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(told)
