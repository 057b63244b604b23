"""`score_layers`: the report, the laws of MIR, and every decided edge case."""

import json
import math

import pytest
import torch
from golden_features import gaussian_features

from mir import MirReport, score_layers
from mir.combine import combine
from mir.errors import EmptyModalityError, MirError, NonFiniteError
from mir.layer import score_layer
from mir.report import Protocol


def distance(vision, text, variant="exact"):
    return score_layer(vision, text, layer=1, variant=variant).distance


def textbook(vision, text):
    """Steps 1 to 3 in float64, written as the definition reads."""
    vision, text = vision.double(), text.double()
    scale = 1 / text.norm(dim=1).mean()
    moments = []
    for tokens in (vision * scale, text * scale):
        norms = tokens.norm(dim=1)
        far = (norms - norms.median()).abs() > 3 * norms.std()
        kept = torch.where(far[:, None], tokens.median(dim=0).values, tokens)
        moments.append((kept.mean(dim=0), kept.T.cov()))
    (mean_v, cov_v), (mean_t, cov_t) = moments
    values, vectors = torch.linalg.eigh(cov_v)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_t @ root).clamp(min=0).sqrt().sum()
    return float((mean_v - mean_t).square().sum() + cov_v.trace() + cov_t.trace() - 2 * cross)


def test_report_adds_up_and_survives_json():
    layers = [gaussian_features(k, 300, 200, 8) for k in range(3)]
    report = score_layers(layers, protocol=Protocol(variant="exact", pairs=7, template="plain"))
    assert report.mir == pytest.approx(math.log10(sum(report.per_layer)))
    assert sum(layer.share for layer in report.layers) == pytest.approx(1)
    assert report.protocol.layers == (1, 2, 3) and report.protocol.pairs == 7
    assert report.standard_error is None and report.seconds > 0
    assert [layer.vision_tokens for layer in report.layers] == [300] * 3
    assert MirReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize("shape", [(3000, 2500, 40), (5000, 30, 40), (30, 5000, 40), (30, 25, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_equals_the_definition(shape, dtype):
    vision, text = (tokens.to(dtype) for tokens in gaussian_features(1, *shape))
    vision[:3] *= 30
    assert distance(vision, text) == pytest.approx(textbook(vision, text), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_not_computed_in(dtype):
    vision, text = (tokens.to(dtype) for tokens in gaussian_features(2, 900, 800, 16))
    assert distance(vision, text) == distance(vision.float(), text.float())


def test_autocast_does_not_reach_the_score():
    vision, text = gaussian_features(2, 900, 800, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = distance(vision, text)
    assert inside == distance(vision, text)


@pytest.mark.parametrize("variant", ["exact", "paper-accurate", "paper-fast"])
def test_inputs_are_not_modified(variant):
    vision, text = gaussian_features(3, 500, 400, 12)
    vision[:2] *= 50
    before = vision.clone(), text.clone()
    score_layer(vision, text, layer=1, variant=variant, pairs=None)
    assert torch.equal(vision, before[0]) and torch.equal(text, before[1])


def test_one_scale_for_both_modalities_changes_nothing():
    vision, text = gaussian_features(4, 700, 600, 16)
    assert distance(100 * vision, 100 * text) == pytest.approx(distance(vision, text), rel=1e-6)


def test_magnitudes_beyond_float32_squares():
    vision, text = (tokens.double() for tokens in gaussian_features(4, 700, 600, 16))
    expected = distance(vision, text)
    assert distance((1e30 * vision).float(), (1e30 * text).float()) == pytest.approx(expected)
    assert distance((1e-30 * vision).float(), (1e-30 * text).float()) == pytest.approx(expected)


def test_order_of_tokens_changes_nothing():
    vision, text = gaussian_features(5, 3000, 2000, 32)
    shuffled = distance(vision[torch.randperm(3000)], text[torch.randperm(2000)])
    assert shuffled == pytest.approx(distance(vision, text), rel=1e-7)


@pytest.mark.parametrize("count", [500, 20])
def test_identical_features_are_at_zero(count):
    tokens = torch.randn(count, 32, generator=torch.Generator().manual_seed(6))
    assert distance(tokens, tokens) == 0
    assert distance(tokens, tokens.flip(0)) == 0


def test_zero_sum_is_a_named_error():
    tokens = torch.randn(50, 4)
    with pytest.raises(MirError, match="identical in every layer"):
        score_layers([(tokens, tokens)])


def test_no_layers_is_a_named_error():
    with pytest.raises(MirError, match="no layers"):
        score_layers([])


def test_one_identical_layer_among_others_only_loses_the_mean_of_logs():
    tokens = torch.randn(50, 4)
    report = score_layers([(tokens, tokens), gaussian_features(0, 60, 50, 4)])
    assert report.per_layer[0] == 0 and math.isfinite(report.mir)
    assert set(report.aggregates) == {"median", "sum-without-massive"}


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e4])
def test_constant_dimension(constant):
    vision, text = gaussian_features(7, 800, 700, 12)
    expected = textbook(vision, text) / float(1 / text.norm(dim=1).mean()) ** 2
    padding = torch.full((1,), constant)
    wide_v, wide_t = (torch.cat([x, padding.expand(len(x), 1)], dim=1) for x in (vision, text))
    scale = float(1 / wide_t.double().norm(dim=1).mean())
    assert distance(wide_v, wide_t) == pytest.approx(textbook(wide_v, wide_t), rel=1e-5)
    if constant == 0:
        assert distance(wide_v, wide_t) == pytest.approx(expected * scale**2, rel=1e-6)


def test_constant_dimension_in_the_fast_variant_is_a_named_error():
    vision, text = gaussian_features(7, 80, 70, 4)
    vision[:, 2] = text[:, 2] = 0
    with pytest.raises(MirError, match=r"layer 1.*singular.*exact"):
        distance(vision, text, "paper-fast")


def test_massive_channel_agrees_with_the_definition():
    vision, text = gaussian_features(8, 4000, 3000, 64)
    vision[:, 9] *= 1000
    text[:, 9] *= 3000
    assert distance(vision, text) == pytest.approx(textbook(vision, text), rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("variant", ["exact", "paper-fast"])
def test_non_finite_names_layer_and_modality(value, variant):
    vision, text = gaussian_features(9, 60, 50, 4)
    broken = text.clone()
    broken[7, 2] = value
    with pytest.raises(NonFiniteError, match="layer 2: 1 of 50 text tokens"):
        score_layers([(vision, text), (vision, broken)], variant)


def test_empty_modality_one_token_and_zero_text():
    vision, text = gaussian_features(10, 60, 50, 4)
    with pytest.raises(EmptyModalityError, match="layer 1: there are no vision tokens"):
        score_layers([(vision[:0], text)])
    with pytest.raises(MirError, match="one text token has no covariance"):
        score_layers([(vision, text[:1])])
    with pytest.raises(MirError, match="all text tokens are zero"):
        score_layers([(vision, torch.zeros_like(text))])


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        (torch.randn(5, 3), "dimensions"),
        (torch.randn(5, 4, 1), "shape"),
        (torch.ones(5, 4, dtype=torch.long), "floating point"),
    ],
)
def test_wrong_shapes_and_types(vision, message):
    with pytest.raises(MirError, match=message):
        score_layers([(vision, torch.randn(5, 4))])


@pytest.mark.parametrize(
    "pairs",
    [
        (torch.zeros(60).long(), torch.zeros(49).long()),
        (torch.zeros(60), torch.zeros(50)),
        (torch.full((60,), -1), torch.zeros(50).long()),
    ],
)
def test_wrong_pairs(pairs):
    with pytest.raises(MirError, match="pair indices"):
        score_layers([gaussian_features(0, 60, 50, 4)], pairs=pairs)


def test_two_tokens_are_enough():
    assert distance(torch.tensor([[3.0, 0], [5, 0]]), torch.tensor([[0, 1.0], [0, 1]])) == (
        pytest.approx(16 + 1 + 2)
    )


def test_clean_distance_leaves_massive_tokens_out():
    vision, text = gaussian_features(11, 900, 800, 16)
    massive = torch.cat([vision, 300 * torch.randn(160, 16)])
    for variant in ("exact", "paper-accurate"):
        plain = score_layer(vision, text, layer=1, variant=variant)
        with_massive = score_layer(massive, text, layer=1, variant=variant)
        assert plain.clean_distance == plain.distance
        assert with_massive.distance > 50 * plain.distance
        assert with_massive.vision_outliers < 160
        assert with_massive.clean_distance == pytest.approx(plain.distance, rel=0.1)


def test_aggregates_are_what_their_names_say():
    report = score_layers([gaussian_features(k, 300, 200, 8, shift=k + 1.0) for k in range(3)])
    logs = [math.log10(d) for d in report.per_layer]
    assert report.aggregates["mean-of-logs"] == pytest.approx(sum(logs) / 3)
    assert report.aggregates["median"] == pytest.approx(sorted(logs)[1])
    assert report.aggregates["sum-without-massive"] == pytest.approx(report.mir)


def test_combine_keeps_layer_numbers():
    vision, text = gaussian_features(12, 60, 50, 4)
    scores = [score_layer(vision, text, layer=k) for k in (3, 7)]
    assert combine(scores, variant="exact").protocol.layers == (3, 7)
