"""MoCa on decoders of several families: identity at first, checkpointing, generation, removal."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mir.moca import KINDS, Moca

SMALL = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": None,
    "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "llama": {"model_type": "llama", **SMALL},
    "qwen3": {"model_type": "qwen3", **SMALL, "head_dim": 8},
    "gemma2": {"model_type": "gemma2", **SMALL, "head_dim": 8},
    "gemma3": {"model_type": "gemma3_text", **SMALL, "head_dim": 8},
    "mixtral": {"model_type": "mixtral", **SMALL, "num_local_experts": 4},
    "olmoe": {"model_type": "olmoe", **SMALL, "num_experts": 4, "num_experts_per_tok": 2},
}
MASK = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]).bool()


@pytest.fixture(params=FAMILIES)
def decoder(request):
    torch.manual_seed(0)
    settings = dict(FAMILIES[request.param])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def attach(decoder, **settings):
    settings.setdefault("init_std", 0.3)
    generator = torch.Generator().manual_seed(2)
    return Moca.attach(decoder.get_decoder().layers, 16, generator=generator, **settings)


def embeds():
    return torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["scale-shift", "scale-only", "shift-only"])
def test_without_spread_the_output_is_the_same_to_the_last_bit(decoder, kind):
    before = decoder(inputs_embeds=embeds()).logits
    moca = attach(decoder, kind=kind, init_std=0.0)
    with moca.positions(MASK):
        assert torch.equal(decoder(inputs_embeds=embeds()).logits, before)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_acts_on_chosen_layers_and_is_removed_without_a_trace(decoder, kind):
    decoder.train()
    before = decoder(inputs_embeds=embeds()).logits
    moca = attach(decoder, kind=kind, layers=[2])
    with moca.positions(MASK):
        assert not torch.allclose(decoder(inputs_embeds=embeds()).logits, before, atol=1e-5)
    moca.remove()
    with moca.positions(MASK):
        assert torch.equal(decoder(inputs_embeds=embeds()).logits, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(decoder, kind, reentrant):
    moca = attach(decoder, kind=kind)
    decoder.train()
    found = []
    for again in (False, True):
        if again:
            decoder.activation_checkpointing_enable({"use_reentrant": reentrant})
        inputs = embeds().requires_grad_()
        moca.zero_grad()
        torch.manual_seed(7)  # of the kind 'noise'
        with moca.positions(MASK):
            out = decoder(inputs_embeds=inputs, use_cache=False).logits
        out.square().sum().backward()
        found.append([inputs.grad, *(p.grad for p in moca.parameters())])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_generating_with_a_cache_equals_running_the_whole_sequence(decoder):
    moca = attach(decoder)
    prompt, steps = embeds(), 4
    with torch.no_grad(), moca.positions(MASK):
        cached = decoder.generate(
            inputs_embeds=prompt, attention_mask=torch.ones(2, 6), max_new_tokens=steps,
            do_sample=False,
        )  # fmt: skip
    whole, mask, tokens = prompt, MASK, []
    for _ in range(steps):
        with torch.no_grad(), moca.positions(mask):
            logits = decoder(inputs_embeds=whole, use_cache=False).logits
        tokens.append(logits[:, -1].argmax(-1))
        word = decoder.get_input_embeddings()(tokens[-1])[:, None]
        whole = torch.cat([whole, word.detach()], dim=1)
        mask = torch.cat([mask, torch.zeros(2, 1, dtype=torch.bool)], dim=1)
    assert torch.equal(cached, torch.stack(tokens, dim=1))
