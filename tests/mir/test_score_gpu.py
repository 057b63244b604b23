"""The score on a GPU equals that on the host."""

import pytest
import torch
from golden_features import GOLDEN, features, gaussian_features

from mir import score_layers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


def on(device, layers):
    return [(vision.to(device), text.to(device)) for vision, text in layers]


@pytest.mark.parametrize("size", [32, 400])
def test_exact_and_its_error_bar_equal_the_hosts(size):
    layers = [gaussian_features(k, 3000, 2000, size, shift=0.3) for k in range(2)]
    layers[1][0][:5] *= 40
    pairs = torch.arange(3000) * 50 // 3000, torch.arange(2000) * 50 // 2000
    host = score_layers(layers, pairs=pairs)
    gpu = score_layers(on("cuda", layers), pairs=pairs)
    assert gpu.per_layer == pytest.approx(host.per_layer, rel=1e-6)
    assert gpu.standard_error == pytest.approx(host.standard_error, rel=0.02)
    counts = [(layer.vision_outliers, layer.text_outliers) for layer in gpu.layers]
    assert counts == [(layer.vision_outliers, layer.text_outliers) for layer in host.layers]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"case{case['seed']}")
def test_golden_mir_on_the_gpu(case):
    layers = on("cuda", [features(case, k) for k in range(case["layers"])])
    assert score_layers(layers).mir == pytest.approx(case["expected"]["float64"]["mir"], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_the_gpu(dtype):
    layers = [tuple(x.to(dtype) for x in gaussian_features(2, 900, 800, 16))]
    expected = score_layers(layers).mir
    assert score_layers(on("cuda", layers)).mir == pytest.approx(expected, abs=1e-6)
