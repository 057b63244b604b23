"""What a report says of each layer, that inputs stay as they are, and who holds what how long."""

import weakref
from dataclasses import fields, replace

import pytest
import torch
from golden_features import gaussian_features

from mir import score_layers
from mir.errors import EmptyModalityError, MirError, NonFiniteError
from mir.report import VARIANTS, Protocol

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = {
    "variant": "paper-fast",
    "pairs": 8,
    "pairs_digest": "b",
    "template": "plain",
    "max_text_tokens": 4,
    "layers": (1,),
}


def with_outliers(dtype, shape=(300, 200, 12)):
    """Vision and text with tokens of every role: ordinary, replaced, of massive norm."""
    vision, text = gaussian_features(3, *shape)
    vision[:2] *= 900
    vision[2:8] *= 50
    text[-3:] *= 30
    return vision.to(dtype), text.to(dtype)


def test_each_layer_says_its_scale_share_and_counts():
    layers = [with_outliers(torch.float32), gaussian_features(4, 300, 200, 12)]
    report = score_layers(layers)
    total = sum(report.per_layer)
    for number, ((vision, text), layer) in enumerate(zip(layers, report.layers, strict=True), 1):
        assert layer.layer == number
        assert layer.share == pytest.approx(layer.distance / total)
        assert layer.text_scale == pytest.approx(1 / float(text.double().norm(dim=1).mean()))
        assert (layer.vision_tokens, layer.text_tokens) == (300, 200)
        for tokens, outliers in ((vision, layer.vision_outliers), (text, layer.text_outliers)):
            norms = tokens.double().norm(dim=1)
            assert outliers == int(((norms - norms.median()).abs() > 3 * norms.std()).sum())
    assert report.layers[0].vision_outliers > 0
    assert report.layers[0].text_outliers > 0
    assert report.per_layer == tuple(layer.distance for layer in report.layers)
    assert 0 < report.seconds < 60


def test_the_error_bar_is_there_where_the_pairs_are_known():
    layers, index = [gaussian_features(5, 300, 300, 12)], torch.arange(300) // 30
    assert score_layers(layers).standard_error is None
    known = score_layers(layers, pairs=(index, index)).standard_error
    assert known is not None
    assert 0 < known < 1


@pytest.mark.parametrize("shape", [(300, 200, 12), (40, 30, 48)], ids=["many", "few"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_touches_its_inputs_in_any_type(variant, dtype, shape):
    if variant == "paper-fast" and shape[0] < shape[2]:
        shape = (300, 200, 12)  # it inverts a covariance, which is singular there
    vision, text = with_outliers(dtype, shape)
    index = torch.arange(len(vision)) % 9, torch.arange(len(text)) % 9
    before = [tensor.clone() for tensor in (vision, text, *index)]
    score_layers([(vision, text)], variant, pairs=index)
    for now, then in zip((vision, text, *index), before, strict=True):
        assert torch.equal(now, then)


def test_a_generators_layer_is_let_go_before_the_next_is_made():
    alive = []

    def layers():
        for number in range(4):
            assert not any(layer() is not None for layer in alive), "an earlier layer is still held"
            vision, text = gaussian_features(number, 60, 50, 4)
            alive.append(weakref.ref(vision))
            alive.append(weakref.ref(text))
            pair = (vision, text)
            del vision, text
            yield pair
            del pair

    assert len(score_layers(layers()).layers) == 4


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda v, t: (v[:0], t), EmptyModalityError, "layer 2: there are no vision tokens"),
        (lambda v, t: (v, t[:0]), EmptyModalityError, "layer 2: there are no text tokens"),
        (lambda v, t: (v[:1], t), MirError, "layer 2: one vision token has no covariance"),
        (lambda v, t: (v, t[:1]), MirError, "layer 2: one text token has no covariance"),
        (lambda v, t: (v, t * float("nan")), NonFiniteError, "layer 2: 50 of 50 text tokens"),
        (lambda v, t: (v / 0, t), NonFiniteError, "layer 2: 60 of 60 vision tokens"),
    ],
)
def test_an_edge_case_is_named_with_its_layer_in_every_variant(variant, spoil, error, message):
    whole = gaussian_features(0, 60, 50, 4)
    with pytest.raises(error, match=message):
        score_layers([whole, spoil(*whole)], variant)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_scores_as_its_float32(variant, dtype):
    vision, text = (tokens.to(dtype) for tokens in gaussian_features(2, 300, 200, 12))
    half = score_layers([(vision, text)], variant)
    assert half.mir == score_layers([(vision.float(), text.float())], variant).mir


@pytest.mark.parametrize("field", [field.name for field in fields(Protocol)])
def test_every_part_of_the_protocol_is_in_the_fingerprint(field):
    protocol = Protocol(
        variant="exact",
        pairs=9,
        pairs_digest="a",
        template="chat",
        max_text_tokens=3,
        layers=(1, 2),
    )
    assert replace(protocol).fingerprint == protocol.fingerprint
    assert replace(protocol, **{field: OTHERS[field]}).fingerprint != protocol.fingerprint
