"""What learns: exactly what was asked for gets a gradient, is counted and has its rate."""

import pytest
import torch
from model_zoo import DECODERS, ENCODERS, RESNET, batch_for, model_of, moved, spec
from pydantic import ValidationError

from jobs.model.build import build_model
from jobs.model.lora import merge_lora, updates
from jobs.model.names import part_of, plain_name, updated_weights
from jobs.spec import ModelSpec
from jobs.spec.trainable import LoraSpec
from mir.errors import ConfigError

LISTED = [name for name in ENCODERS if name not in ("swin", "convnext")]
LORA = {"rank": 2, "alpha": 4.0}


def learning(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def names(model, *prefixes):
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def gradients(model, encoder="vit"):
    model.train()
    model(batch_for(encoder)).backward()
    return moved(model)


@pytest.mark.parametrize("encoder", LISTED)
@pytest.mark.parametrize("layer", [-1, -2])
def test_vision_learns_from_a_layer_to_the_features(encoder, layer):
    model = (
        model_of(encoder, trainable={"vision_from": 2}, select_layer=layer) if layer == -1 else None
    )
    if model is None:
        with pytest.raises(ConfigError, match=r"vision_from: .* taken before that layer"):
            model_of(encoder, trainable={"vision_from": 2}, select_layer=layer)
        model = model_of(encoder, trainable={"vision_from": 1}, select_layer=layer)
    got = gradients(model, encoder)
    assert got == learning(model) - unfelt(model, got)
    layers = [name for name in learning(model) if ".layer" in name and name.startswith("vision")]
    trained = 1 if layer == -1 else 0
    others = 1 - trained
    assert any(f".{trained}." in name for name in layers)
    assert not any(f".{others}." in name for name in layers)
    assert not any("embedding" in name for name in learning(model))


def unfelt(model, got):
    """Key biases: softmax does not feel a constant, so their gradient is zero but for rounding."""
    return {n for n in learning(model) - got if "k_proj.bias" in n or "key.bias" in n}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_everything_of_an_encoder_is_only_what_the_features_depend_on(encoder):
    model = model_of(encoder, trainable={"vision_from": "all"}, select_layer=-2)
    got = gradients(model, encoder)
    assert got == learning(model) - unfelt(model, got)
    assert any(name.startswith("vision.") for name in got)


@pytest.mark.parametrize("decoder", DECODERS)
def test_language_learns_until_a_layer(decoder):
    model = model_of(decoder=decoder, trainable={"language_until": 1})
    first = {f"language.{n}" for n, p in model.language.named_parameters()
             if any(p is own for own in model.decoder_layers[0].parameters())}  # fmt: skip
    assert learning(model) == names(model, "projector.") | first
    got = gradients(model)
    assert got <= learning(model)
    assert names(model, "projector.") <= got and got & first
    assert model.decoder_layers[0].training and not model.decoder_layers[1].training


@pytest.mark.parametrize("decoder", DECODERS)
def test_lora_starts_as_nothing_learns_alone_and_merges_away(decoder):
    batch = batch_for()
    plain = model_of(decoder=decoder)
    model = model_of(decoder=decoder, trainable={"projector": False, "lora": LORA})
    assert torch.equal(model(batch), plain(batch))
    assert set(model.trainable_counts()) == {"lora"}
    assert gradients(model) == {n for n in learning(model) if ".lora_B." in n}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    model.eval()
    learnt = model(batch)
    assert not torch.allclose(learnt, plain(batch), atol=1e-4)
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    for other in (plain, model):
        added = dict(updates(trained, LoraSpec(**LORA), other))
        assert added.keys() == updated_weights(trained)
        weights = {plain_name(n): p for n, p in other.named_parameters()}
        assert all(update.shape == weights[name].shape for name, update in added.items())
    merge_lora(model.language)
    merged = model.state_dict()
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(merged[name], weight + added.get(name, 0), check_dtype=False)
    torch.testing.assert_close(model(batch), learnt)
    assert model.language.state_dict().keys() == plain.language.state_dict().keys()
    merge_lora(model.language)


def test_batch_norms_keep_the_statistics_of_their_pre_training():
    """They are in no checkpoint, and each rank would have its own."""
    given = spec(vision={"random": RESNET}, trainable={"vision_from": "all"})
    model = build_model(given, seed=0).model
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert any("running_mean" in name for name in before)
    model.train()
    model(batch_for("convnext")).backward()
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
    norms = [n for n, p in model.named_parameters() if "normalization" in n and p.requires_grad]
    assert norms and set(norms) <= moved(model)


def test_lora_is_drawn_from_the_seed_and_counted():
    chosen = {"lora": {**LORA, "targets": ["q_proj", "v_proj"], "dropout": 0.5}}
    first, again = (build_model(spec(trainable=chosen), seed=4).model for _ in range(2))
    other = build_model(spec(trainable=chosen), seed=5).model
    key = "language.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    a, b, c = (model.state_dict()[key] for model in (first, again, other))
    assert torch.equal(a, b) and not torch.equal(a, c)
    # q_proj 16 -> 16 and v_proj 16 -> 8 with rank 2, in two layers.
    assert first.trainable_counts()["lora"] == 2 * (2 * (16 + 16) + 2 * (16 + 8))
    dropout = first.language.get_submodule("model.layers.0.self_attn.q_proj").lora_dropout
    first.train()
    assert dropout.training and not first.decoder_layers[0].training
    first.eval()
    assert not dropout.training


def test_groups_have_the_rate_of_their_part():
    rates = {"projector": 1e-3, "vision": 2e-6, "lora": 1e-4}
    given = {"vision_from": 2, "lora": LORA, "learning_rates": rates}
    asked = spec(trainable=given, moca={"learning_rate": 0.5})
    groups = build_model(asked, seed=0).model.parameter_groups()
    found = {part: asked.learning_rate(part, 7.0) for part in groups}
    assert found == {**rates, "moca": 0.5}
    assert spec(trainable="everything", moca={}).learning_rate("language", 7.0) == 7.0
    follows = spec(trainable={"learning_rates": {"projector": 0.2}}, moca={})
    assert follows.learning_rate("moca", 7.0) == 0.2
    assert spec(moca={}).learning_rate("moca", 7.0) == 7.0


def test_every_learning_parameter_is_in_exactly_one_group():
    model = model_of(trainable={"vision_from": 1, "lora": LORA}, moca={})
    groups = model.parameter_groups()
    listed = [p for group in groups.values() for p in group]
    assert len(listed) == len({id(p) for p in listed}) == len(learning(model))
    assert {part_of(name) for name in learning(model)} == set(groups)
    assert model.trainable_counts() == {k: sum(p.numel() for p in g) for k, g in groups.items()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainable": {"vision_from": 9}}, "vision_from: 9 is beyond the last of 2 layers"),
        ({"trainable": {"language_until": 3}}, "language_until: 3 is beyond the last of 2 layers"),
        (
            {"trainable": {"lora": {"targets": ["q_proj", "wq"]}}},
            r"lora.targets: 'wq' names no linear layer of LlamaForCausalLM: choose among .*q_proj",
        ),
        (
            {"select_layer": 5},
            "select_layer: 5 is out of range: ViTModel has 2 layers: use -3 to 2",
        ),
    ],
)
def test_what_the_model_does_not_have_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        model_of(**settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainable": {"projector": False}}, "nothing learns"),
        ({"trainable": {"lora": {}, "language_until": 2}}, "keep one of them"),
        ({"trainable": {"learning_rates": {"vision": 1e-3}}}, "does not learn"),
        ({"projector": "mlp0x_gelu"}, "Known: linear, mlp{n}x_gelu"),
        ({"projector": "resampler"}, "resampler{q}"),
        ({"trainable": "language"}, "'projector', 'projector\\+language' or 'everything'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_built(settings, message):
    with pytest.raises(ValidationError, match=message):
        ModelSpec.model_validate(settings)


def test_shorthands_say_what_they_mean():
    assert ModelSpec(trainable="everything").learns.parts == ("vision", "projector", "language")
    assert ModelSpec().learns.parts == ("projector",)
    mapping = ModelSpec(trainable={"vision_from": 3, "lora": {"rank": 4}})
    assert str(mapping.trainable) == "vision from 3 + projector + lora 4"
    assert ModelSpec.model_validate(mapping.model_dump(mode="json")) == mapping
