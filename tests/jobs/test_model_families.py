"""Encoders and language models of other families than the embedded pair's, from folders."""

import pytest
import torch
from tiny_job import make_world, spec_of
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTImageProcessorPil,
)

from jobs.data.batch import Batch
from jobs.model.build import build_model

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
PICTURE = {**SMALL, "image_size": 16, "patch_size": 8}
WORDS = {**SMALL, "vocab_size": 40, "num_key_value_heads": 2, "head_dim": 8}
ENCODERS = {
    "clip": lambda: CLIPModel(CLIPConfig(vision_config=PICTURE, text_config=SMALL)),
    "clip-vision": lambda: CLIPVisionModel(CLIPVisionConfig(**PICTURE)),
    "siglip-vision": lambda: SiglipVisionModel(SiglipVisionConfig(**PICTURE)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**PICTURE)),
}
LANGUAGES = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**WORDS)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**WORDS)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40)),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def trains(model):
    batch = Batch(
        pixel_values=torch.randn(2, 3, 16, 16),
        caption_ids=torch.tensor([[7, 8, 2], [9, 2, 0]]),
        caption_mask=torch.tensor([[True, True, True], [True, True, False]]),
    )
    loss = model(batch)
    loss.backward()
    first = next(model.projector.parameters())
    return bool(torch.isfinite(loss)) and float(first.grad.abs().sum()) > 0


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("layer", [-1, -2])
def test_encoders_give_their_patches(base, tmp_path, family, layer):
    ENCODERS[family]().save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    spec = spec_of(base, model={"vision": str(tmp_path), "select_layer": layer}).model
    model = build_model(spec, seed=0).model
    assert model.encode(torch.randn(2, 3, 16, 16)).shape == (2, 4, 16)
    assert trains(model)


@pytest.mark.parametrize("family", LANGUAGES)
def test_language_models_read_the_picture(base, tmp_path, family):
    LANGUAGES[family]().save_pretrained(tmp_path)
    built = build_model(spec_of(base).model, seed=0)
    built.tokenizer.save_pretrained(tmp_path)
    spec = spec_of(base, model={"language": str(tmp_path), "moca": {}}).model
    model = build_model(spec, seed=0).model
    assert len(model.decoder_layers) == 2
    assert model.final_norm is not None
    assert trains(model)
