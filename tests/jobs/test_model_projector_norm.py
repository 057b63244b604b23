"""The projector between two norms: what no learning rate and no scale of features can change."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_zoo import DECODERS, spec

from jobs.model.build import build_model
from jobs.model.projectors import Normalised, make_projector
from jobs.spec import ModelSpec


def normalised(words_KD: torch.Tensor) -> Normalised:
    torch.manual_seed(0)
    words = torch.nn.Embedding.from_pretrained(words_KD)
    return Normalised(make_projector("mlp2x_gelu", 6, words_KD.shape[1]), words)


@given(st.floats(1.0, 1e3), st.floats(-5, 5))  # below 1 the norm's own epsilon would show
def test_scale_and_offset_of_features_change_nothing(scale, offset):
    projector = normalised(torch.randn(20, 8, generator=torch.Generator().manual_seed(1)))
    features_BVF = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(2))
    moved = projector(scale * features_BVF + offset)
    assert torch.allclose(moved, projector(features_BVF), atol=1e-3)


@given(st.floats(1e-3, 1e6))
def test_vision_tokens_have_the_mean_length_of_words(blow_up):
    words_KD = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    projector = normalised(words_KD)
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.mul_(blow_up)
    lengths = projector(torch.randn(2, 3, 6)).norm(dim=-1)
    assert torch.allclose(lengths, words_KD.norm(dim=-1).mean().expand(2, 3), rtol=1e-4)


def test_the_embedded_model_takes_it_and_only_the_inner_projector_learns():
    spec = ModelSpec(projector="pixel-shuffle", projector_norm=True)
    plain, model = (build_model(s, 0).model for s in (ModelSpec(projector="pixel-shuffle"), spec))
    assert model.trainable_counts() == plain.trainable_counts()
    features_BVF = model.encode(torch.zeros(1, 3, 64, 64))
    words_KD = model.language.get_input_embeddings().weight
    length = model.projector(features_BVF).norm(dim=-1)
    assert torch.allclose(length, words_KD.norm(dim=-1).mean().expand_as(length), rtol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
def test_vision_tokens_are_as_long_as_words_are_for_the_model(decoder):
    """Gemma multiplies its embeddings on the way out, and takes vision tokens as they are."""
    model = build_model(spec(decoder=decoder, projector_norm=True), seed=0).model
    ids = torch.arange(400)[None]
    tokens = model.sequence(torch.randn(1, 16, 16), ids, torch.ones_like(ids, dtype=torch.bool))
    lengths = tokens.embeds.norm(dim=-1)
    words = lengths[tokens.text_mask].mean()
    torch.testing.assert_close(lengths[tokens.vision_mask], words.expand(16), rtol=1e-4, atol=0)
