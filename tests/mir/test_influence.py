"""The error bar: derivatives against differences, a delete-one jackknife, and coverage."""

import math

import pytest
import torch

from mir import score_layers
from mir.layer import score_layer


def clustered(seed, pairs, tokens=20, size=12, layers=2, massive=0):
    """Layers whose tokens share a random offset and spread within a pair."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    scale = torch.logspace(0, -1, size)
    index = torch.arange(pairs).repeat_interleave(tokens)
    result = []
    for _ in range(layers):
        modalities = []
        for stretch, shift in ((1.5, 1.0), (1.0, 0.0)):
            offset = 0.5 * normal(pairs, size)[index]
            spread = (0.3 * normal(pairs, 1)).exp()[index]
            x = stretch * (offset + spread * normal(pairs * tokens, size)) * scale + shift * scale
            modalities.append(x)
        modalities[0][:massive] *= 60
        result.append(tuple(modalities))
    return result, (index, index)


def jackknife(layers, pairs):
    """Delete-one-group standard error of MIR: every pair left out once."""
    count = 1 + int(pairs[0].max())
    scores = torch.tensor(
        [
            score_layers([(v[pairs[0] != k], t[pairs[1] != k]) for v, t in layers]).mir
            for k in range(count)
        ],
        dtype=torch.float64,
    )
    return math.sqrt((count - 1) / count * float((scores - scores.mean()).square().sum()))


@pytest.mark.parametrize("seed", range(4))
def test_standard_error_agrees_with_the_jackknife(seed):
    layers, pairs = clustered(seed, pairs=40)
    report = score_layers(layers, pairs=pairs)
    assert report.standard_error == pytest.approx(jackknife(layers, pairs), rel=0.2)


def test_standard_error_agrees_with_massive_channel_and_uneven_pairs():
    layers, (index, _) = clustered(5, pairs=40)
    kept = torch.rand(len(index), generator=torch.Generator().manual_seed(0)) < 0.7
    layers = [(v[kept], t) for v, t in layers]
    for vision, text in layers:
        vision[:, 3] *= 300
        text[:, 3] *= 200
    pairs = (index[kept], index)
    report = score_layers(layers, pairs=pairs)
    assert report.standard_error == pytest.approx(jackknife(layers, pairs), rel=0.2)


@pytest.mark.parametrize("place", [1.02, 1.1])
def test_a_lone_massive_token_next_to_the_threshold_does_not_decide_the_error_bar(place):
    """As in trained models: a few tokens of massive norm make the deviation, and with it the
    3-sigma threshold, and one of a tenth of their norm happens to lie beside it."""
    layers, pairs = clustered(7, pairs=40, layers=1)
    vision, _ = layers[0]
    for token, factor in ((10, 2000.0), (430, 1900.0)):
        vision[token] *= factor / vision[token].norm()
    norms = vision.norm(dim=1)
    threshold = float(norms.median() + 3 * norms.std())
    vision[250] *= place * threshold / norms[250]
    report = score_layers(layers, pairs=pairs)
    assert report.standard_error == pytest.approx(jackknife(layers, pairs), rel=0.2)


@pytest.mark.parametrize("size", [12, 120])
def test_influence_is_the_derivative_in_a_pairs_weight(size):
    """Doubling a pair's tokens moves the distance by its influence, in first order."""
    layers, pairs = clustered(1, pairs=60, tokens=8, size=size, layers=1)
    vision, text = layers[0]
    score = score_layer(vision, text, layer=1, pairs=pairs)
    assert float(score.influence_P.sum()) == pytest.approx(0, abs=1e-5 * score.distance)
    moved = []
    for pair in range(20):
        twice = [torch.cat([x, x[pairs[0] == pair]]) for x in (vision, text)]
        moved.append(score_layer(*twice, layer=1).distance - score.distance)
    correlation = torch.corrcoef(torch.stack([torch.tensor(moved), score.influence_P[:20]]))[0, 1]
    assert correlation > 0.95


def test_influence_does_not_change_the_score():
    layers, pairs = clustered(2, pairs=30, massive=5)
    assert score_layers(layers, pairs=pairs).per_layer == pytest.approx(
        score_layers(layers).per_layer, rel=1e-9
    )


@pytest.mark.parametrize("variant", ["paper-accurate", "paper-fast"])
def test_paper_variants_have_no_error_bar(variant):
    layers, pairs = clustered(3, pairs=20)
    assert score_layers(layers, variant, pairs=pairs).standard_error is None


def test_one_pair_has_no_error_bar():
    layers, pairs = clustered(3, pairs=1, tokens=50)
    assert score_layers(layers, pairs=pairs).standard_error is None


def test_interval_covers_as_often_as_it_says():
    """80 % intervals over repeated draws of pairs, around the mean of scores of that size.

    The mean over the draws stands for the expected score at this N: the distance is biased
    upwards for small N, which the error bar does not claim to cover.
    """
    draws = [score_layers(layers, pairs=pairs) for layers, pairs in map(_draw, range(300))]
    scores = torch.tensor([draw.mir for draw in draws], dtype=torch.float64)
    errors = torch.tensor([draw.standard_error for draw in draws], dtype=torch.float64)
    covered = ((scores - scores.mean()).abs() < 1.2816 * errors).double().mean()
    assert 0.75 <= float(covered) <= 0.85
    assert float(errors.mean()) == pytest.approx(float(scores.std()), rel=0.1)


def _draw(seed):
    return clustered(5000 + seed, pairs=60, tokens=10, size=6, layers=1)


def test_distance_is_biased_upwards_for_few_pairs():
    """Why N is in the fingerprint: equal populations are further apart in small samples."""
    means = []
    for pairs in (10, 40, 160):
        scores = [clustered(seed, pairs, layers=1)[0][0] for seed in range(8)]
        same = [score_layer(v, 1.5 * t, layer=1).distance for v, t in scores]
        means.append(sum(same) / len(same))
    assert means[0] > means[1] > means[2]
