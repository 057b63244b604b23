"""All three variants against the published code's figures and a float64 reference."""

import pytest
from golden_features import GOLDEN, features

from mir import score_layers

KEYS = {"exact": "float64", "paper-accurate": "accurate", "paper-fast": "fast"}
MIR_TOLERANCE = {"exact": 1e-6, "paper-accurate": 2e-3, "paper-fast": 0.1}


def score(case, variant):
    return score_layers((features(case, k) for k in range(case["layers"])), variant)


@pytest.mark.parametrize("variant", KEYS)
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"case{case['seed']}")
def test_golden_mir(case, variant):
    expected = case["expected"][KEYS[variant]]["mir"]
    assert score(case, variant).mir == pytest.approx(expected, abs=MIR_TOLERANCE[variant])


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"case{case['seed']}")
def test_golden_layers_of_exact(case):
    expected = case["expected"]["float64"]["per_layer"]
    assert score(case, "exact").per_layer == pytest.approx(expected, rel=1e-6)


def test_outliers_are_counted():
    layer = score(GOLDEN[1], "exact").layers[0]
    assert (layer.vision_outliers, layer.text_outliers) == (20, 20)
