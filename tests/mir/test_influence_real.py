"""The error bar and the float32 products on hidden states of the embedded, trained models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_influence import jackknife
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from jobs.world.captions import image_at
from jobs.world.texts import text_at
from mir import score_layers
from mir.exact import _attempt
from mir.layer import _modality, score_layer

ASSETS = Path(__file__).parents[2] / "jobs" / "world" / "assets"
PAIRS = 40


@pytest.fixture(scope="module")
def real():
    """Layers 2, 4 and 6 of the embedded language model behind an untrained projector."""
    torch.manual_seed(0)
    language = AutoModelForCausalLM.from_pretrained(ASSETS / "language", dtype=torch.float32).eval()
    vision = AutoModel.from_pretrained(
        ASSETS / "vision", dtype=torch.float32, add_pooling_layer=False
    ).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(ASSETS / "language" / "tokenizer.json"))
    projector = torch.nn.Linear(vision.config.hidden_size, language.config.hidden_size)
    wanted = (2, 4, 6)
    states = {k: ([], []) for k in wanted}
    counts = []
    for number in range(PAIRS):
        image = np.asarray(image_at("validation", number, "detailed").convert("RGB"))
        pixels = torch.tensor(image / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None]
        ids = torch.tensor([tokenizer(text_at("validation", number)).input_ids[:60]])
        with torch.no_grad():
            image_tokens = projector(vision(pixel_values=pixels).last_hidden_state[:, 1:])
            embeds = torch.cat([image_tokens, language.get_input_embeddings()(ids)], dim=1)
            hidden = language(inputs_embeds=embeds, output_hidden_states=True).hidden_states
        split = image_tokens.shape[1]
        counts.append((split, ids.shape[1]))
        for k in wanted:
            states[k][0].append(hidden[k][0, :split])
            states[k][1].append(hidden[k][0, split:])
    pairs = tuple(
        torch.arange(PAIRS).repeat_interleave(torch.tensor(column))
        for column in zip(*counts, strict=True)
    )
    return [(torch.cat(v), torch.cat(t)) for v, t in states.values()], pairs


def test_standard_error_agrees_with_the_jackknife_on_real_states(real):
    layers, pairs = real
    report = score_layers(layers, pairs=pairs)
    assert report.standard_error == pytest.approx(jackknife(layers, pairs), rel=0.2)


def test_float32_products_suffice_for_real_states(real):
    for vision, text in real[0]:
        modalities = (_modality(vision, 1, "vision"), _modality(text, 1, "text"))
        assert _attempt(*modalities, torch.float32, False) is not None
        in_float64 = score_layer(vision.double(), text.double(), layer=1).distance
        assert score_layer(vision, text, layer=1).distance == pytest.approx(in_float64, rel=1e-6)
