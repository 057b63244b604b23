"""Encoders, projectors and decoders of many families, with random weights or from folders."""

import pytest
import torch
from model_zoo import (
    DECODERS,
    ENCODERS,
    EXPERTS,
    PROJECTORS,
    WITH_CLASS_TOKEN,
    batch_for,
    model_of,
    moved,
    spec,
)
from tiny_job import make_world, spec_of
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTImageProcessorPil,
)

from jobs.model.build import build_model
from mir.errors import ConfigError

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
PICTURE = {**SMALL, "image_size": 16, "patch_size": 8}
FOLDERS = {
    "clip": lambda: CLIPModel(CLIPConfig(vision_config=PICTURE, text_config=SMALL)),
    "clip-vision": lambda: CLIPVisionModel(CLIPVisionConfig(**PICTURE)),
    "siglip-vision": lambda: SiglipVisionModel(SiglipVisionConfig(**PICTURE)),
}


def combinations():
    """Every pair of an encoder, a decoder and a projector stands together in at least one."""
    return [
        (encoder, PROJECTORS[(row + column) % len(PROJECTORS)], decoder)
        for row, encoder in enumerate(ENCODERS)
        for column, decoder in enumerate(DECODERS)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(("encoder", "projector", "decoder"), combinations())
def test_any_encoder_projector_and_decoder_learn_together(encoder, projector, decoder):
    model = model_of(encoder, decoder, projector=projector)
    batch = batch_for(encoder)
    assert model.encode(batch.pixel_values).shape == (2, ENCODERS[encoder][1], model.vision.width)
    optimizer = torch.optim.AdamW(model.projector.parameters(), lr=1e-2)
    losses = []
    model.train()
    for _ in range(4):
        features = model.encode(batch.pixel_values)
        loss = model.per_sample_loss(batch, features).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert moved(model) and all(name.startswith("projector.") for name in moved(model))
    assert set(model.trainable_counts()) == {"projector"}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_class_token_is_dropped_or_stands_first(encoder):
    batch, tokens = batch_for(encoder), ENCODERS[encoder][1]
    if encoder not in WITH_CLASS_TOKEN:
        with pytest.raises(
            ConfigError, match=r"class_token: .* no class token to keep: use 'drop'"
        ):
            model_of(encoder, class_token="keep")
        return
    dropped, kept = model_of(encoder), model_of(encoder, class_token="keep")
    features = kept.encode(batch.pixel_values)
    assert features.shape[1] == kept.vision.tokens == tokens + 1
    assert torch.equal(features[:, 1:], dropped.encode(batch.pixel_values))
    whole = kept.vision.encoder(pixel_values=batch.pixel_values).last_hidden_state
    assert torch.equal(features[:, 0], whole[:, 0])


@pytest.mark.parametrize("encoder", ["clip", "siglip", "dinov2", "vit"])
@pytest.mark.parametrize("layer", [0, 1, 2, -2, -3])
def test_select_layer_is_an_entry_of_the_hidden_states(encoder, layer):
    model, pixels = model_of(encoder, select_layer=layer), batch_for(encoder).pixel_values
    states = model.vision.encoder(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert torch.equal(model.encode(pixels), states[layer][:, -16:])


@pytest.mark.parametrize("decoder", EXPERTS)
def test_a_mixture_of_experts_learns_whole(decoder):
    model = model_of(decoder=decoder, trainable="everything", moca={})
    assert set(model.trainable_counts()) == {"vision", "projector", "language", "moca"}
    model(batch_for()).backward()
    names = moved(model)
    assert any("expert" in name for name in names) and any("gate" in name for name in names)


@pytest.mark.parametrize("family", FOLDERS)
@pytest.mark.parametrize("layer", [-1, -2])
def test_encoders_from_folders_give_their_patches(base, tmp_path, family, layer):
    FOLDERS[family]().save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    spec = spec_of(base, model={"vision": str(tmp_path), "select_layer": layer}).model
    built = build_model(spec, seed=0)
    assert built.model.encode(torch.randn(2, 3, 16, 16)).shape == (2, 4, 16)
    assert built.image_processor.size == {"height": 16, "width": 16}


def test_a_language_model_from_a_folder_reads_the_picture(base, tmp_path):
    config = Qwen2Config(**SMALL, vocab_size=40, num_key_value_heads=2)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    build_model(spec_of(base).model, seed=0).tokenizer.save_pretrained(tmp_path)
    spec = spec_of(base, model={"language": str(tmp_path), "moca": {}}).model
    model = build_model(spec, seed=0).model
    assert len(model.decoder_layers) == 2
    assert model.final_norm is not None


def test_random_weights_follow_their_own_seed_and_not_the_jobs():
    first = build_model(spec("clip"), seed=0).model.state_dict()
    again = build_model(spec("clip"), seed=9).model.state_dict()
    reseeded = {"random": DECODERS["llama"], "tokenizer": "embedded", "seed": 1}
    other = build_model(spec("clip", language=reseeded), seed=9).model.state_dict()
    frozen = [name for name in first if not name.startswith("projector.")]
    assert all(torch.equal(first[name], again[name]) for name in frozen)
    assert not torch.equal(first["projector.0.weight"], again["projector.0.weight"])
    key = "language.model.embed_tokens.weight"
    assert not torch.equal(again[key], other[key])


@pytest.mark.parametrize("form", ["folder", "file"])
def test_random_weights_of_a_config_on_disk_use_what_stands_beside_it(base, form):
    folder = base["model"]
    name = "/config.json" if form == "file" else ""
    vision = {"random": folder["vision"] + name}
    language = {"random": folder["language"] + name, "tokenizer": folder["language"]}
    built = build_model(spec_of(base, model={"vision": vision, "language": language}).model, 0)
    stored = build_model(spec_of(base).model, 0)
    assert len(built.tokenizer) == len(stored.tokenizer)
    assert built.image_processor.size == {"height": 16, "width": 16}
    fresh, kept = built.model.state_dict(), stored.model.state_dict()
    assert fresh.keys() == kept.keys()
    words = "language.model.embed_tokens.weight"
    assert not torch.equal(fresh[words], kept[words])
