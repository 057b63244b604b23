"""MoCa on a tiny Llama: what it changes, what it leaves alone, training and checkpoints."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaModel

from mir.errors import ConfigError, MirsweepError
from mir.moca import KINDS, Moca

SIZE = 16


@pytest.fixture
def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=SIZE,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=30,
    )
    return LlamaModel(config).train()


@pytest.fixture
def embeds():
    return torch.randn(2, 7, SIZE, generator=torch.Generator().manual_seed(1))


MASK = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0]]).bool()


def attach(llama, **settings):
    settings.setdefault("generator", torch.Generator().manual_seed(2))
    settings.setdefault("init_std", 0.3)
    return Moca.attach(llama.layers, SIZE, **settings)


def output(llama, embeds):
    return llama(inputs_embeds=embeds).last_hidden_state


class Plain(nn.Module):
    """A decoder layer that returns what it gets, as a tensor or as a tuple."""

    def __init__(self, as_tuple):
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, hidden):
        return (hidden, "cache") if self.as_tuple else hidden


@pytest.mark.parametrize("as_tuple", [False, True])
def test_vision_positions_are_scaled_and_shifted_and_no_others(as_tuple, embeds):
    layer = Plain(as_tuple)
    moca = Moca.attach([layer], SIZE, init_std=0.5)
    with moca.positions(MASK):
        result = layer(embeds)
    hidden = result[0] if as_tuple else result
    calibration = moca.layers["1"]
    expected = calibration.scale * embeds[MASK] + calibration.shift
    torch.testing.assert_close(hidden[MASK], expected)
    assert torch.equal(hidden[~MASK], embeds[~MASK])
    assert not as_tuple or result[1] == "cache"


def test_starts_as_identity_without_spread(llama, embeds):
    before = output(llama, embeds)
    for kind in ("scale-shift", "scale-only", "shift-only"):
        moca = attach(llama, kind=kind, init_std=0.0)
        with moca.positions(MASK):
            torch.testing.assert_close(output(llama, embeds), before)
        moca.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_changes_nothing_outside_positions_after_removal_or_without_vision(kind, llama, embeds):
    before = output(llama, embeds)
    moca = attach(llama, kind=kind)
    assert torch.equal(output(llama, embeds), before)
    with moca.positions(None):
        assert torch.equal(output(llama, embeds), before)
    with moca.positions(torch.zeros_like(MASK)):
        assert torch.equal(output(llama, embeds), before)
    with moca.positions(MASK):
        assert not torch.allclose(output(llama, embeds), before, atol=1e-3)
    moca.remove()
    with moca.positions(MASK):
        assert torch.equal(output(llama, embeds), before)
    assert not any(layer._forward_hooks for layer in llama.layers)


def test_single_token_decoding_passes_untouched(llama, embeds):
    before = output(llama, embeds[:, :1])
    with attach(llama).positions(MASK):
        assert torch.equal(output(llama, embeds[:, :1]), before)


def test_wrong_batch_and_wrong_mask_are_refused(llama, embeds):
    moca = attach(llama)
    with moca.positions(MASK[:1]), pytest.raises(MirsweepError, match="1 sequences"):
        output(llama, embeds)
    with pytest.raises(MirsweepError, match=r"\[B, T\]"), moca.positions(MASK[0]):
        pass


def test_positions_nest_and_are_restored_after_an_error(llama, embeds):
    moca = attach(llama)
    with moca.positions(MASK):
        inside = output(llama, embeds)
        with moca.positions(None):
            outside = output(llama, embeds)
        assert torch.equal(output(llama, embeds), inside)
    with pytest.raises(KeyError), moca.positions(MASK):
        raise KeyError
    assert torch.equal(output(llama, embeds), outside)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("scale-shift", {"scale", "shift"}),
        ("scale-only", {"scale"}),
        ("shift-only", {"shift"}),
        ("layernorm", {"scale", "shift"}),
        ("noise", set()),
    ],
)
def test_parameters_and_gradients(kind, names, llama, embeds):
    moca = attach(llama, kind=kind)
    assert {name.rsplit(".", 1)[1] for name, _ in moca.named_parameters()} == names
    with moca.positions(MASK):
        output(llama, embeds).square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in moca.parameters())


def test_layernorm_gives_vision_tokens_one_norm_of_the_same_size(embeds):
    layer = Plain(False)
    moca = Moca.attach([layer], SIZE, kind="layernorm")
    uneven = embeds * torch.arange(1, 8)[:, None]
    with moca.positions(MASK):
        hidden = layer(uneven)
    deviations = hidden.std(dim=-1, correction=0)
    for row, mask in zip(deviations, MASK, strict=True):
        torch.testing.assert_close(row[mask], row[mask][:1].expand(3), rtol=1e-4, atol=0)
    before = uneven.var(dim=-1, correction=0)
    expected = (before * MASK).sum(dim=1).div(3).sqrt()
    torch.testing.assert_close(deviations[0, 1], expected[0], rtol=1e-4, atol=0)


def test_noise_only_while_training(llama, embeds):
    moca = attach(llama, kind="noise")
    before = output(llama, embeds)
    with moca.positions(MASK):
        assert not torch.equal(output(llama, embeds), output(llama, embeds))
        moca.eval()
        assert torch.equal(output(llama, embeds), before)


def test_computed_in_float32_and_cast_back(embeds):
    layer = Plain(False)
    moca = Moca.attach([layer], SIZE, init_std=0.1, generator=torch.Generator().manual_seed(0))
    half = embeds.bfloat16()
    with moca.positions(MASK):
        hidden = layer(half)
    assert hidden.dtype == torch.bfloat16
    calibration = moca.layers["1"]
    expected = calibration.scale * half[MASK].float() + calibration.shift
    assert torch.equal(hidden[MASK], expected.bfloat16())


def test_state_round_trip_and_generator(llama):
    first, second = attach(llama), attach(llama)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    other = attach(llama, init_std=0.0)
    other.load_state_dict(first.state_dict())
    for a, b in zip(first.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert "layers.1.scale" in first.state_dict()


def test_some_layers_only(llama):
    moca = attach(llama, layers=[3, 1])
    assert list(moca.layers) == ["1", "3"]
    assert [len(layer._forward_hooks) for layer in llama.layers] == [1, 0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [0]}, "decoder layers 1 to 3"),
        ({"layers": [4]}, "decoder layers 1 to 3"),
        ({"layers": []}, "decoder layers 1 to 3"),
        ({"kind": "scale"}, "scale-shift, scale-only"),
        ({"init_std": -1.0}, "0 or more"),
        ({"kind": "noise", "init_std": 0.0}, "above 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message, llama):
    with pytest.raises(ConfigError, match=message):
        attach(llama, **settings)
    assert not any(layer._forward_hooks for layer in llama.layers)


def gradients(moca, run, masks):
    moca.zero_grad()
    losses = []
    for mask in masks:
        with moca.positions(mask):
            losses.append(run().square().sum())
    sum(losses).backward()
    return [p.grad.clone() for p in moca.parameters()]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_transformers_layers_have_the_same_gradient(reentrant, llama, embeds):
    moca = attach(llama)
    embeds.requires_grad_()
    plain = gradients(moca, lambda: output(llama, embeds), [MASK])
    llama.config.use_cache = False
    llama.activation_checkpointing_enable({"use_reentrant": reentrant})
    checkpointed = gradients(moca, lambda: output(llama, embeds), [MASK])
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture
def stack(embeds):
    """Layers that are checkpointed as a whole, hooks included, as DeepSpeed does."""
    torch.manual_seed(3)
    layers = [nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh()) for _ in range(3)]
    moca = Moca.attach(layers, SIZE, init_std=0.3)

    def run(reentrant=None):
        hidden = embeds.clone().requires_grad_()
        for layer in layers:
            if reentrant is None:
                hidden = layer(hidden)
            else:
                hidden = checkpoint(layer, hidden, use_reentrant=reentrant)
        return hidden

    return moca, run


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_hooks_see_the_same_mask(reentrant, stack):
    moca, run = stack
    plain = gradients(moca, run, [MASK])
    for _ in range(2):
        checkpointed = gradients(moca, lambda: run(reentrant), [MASK])
        with torch.no_grad(), moca.positions(MASK.flip(0)):
            run()
        for a, b in zip(plain, checkpointed, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("reentrant", [False, True])
def test_two_masks_before_one_recomputing_backward_are_refused(reentrant, stack):
    moca, run = stack
    with pytest.raises(MirsweepError, match="Keep moca"):
        gradients(moca, lambda: run(reentrant), [MASK, MASK.flip(0)])
    with moca.positions(MASK):
        run(reentrant).sum().backward()
        run(reentrant).sum().backward()
