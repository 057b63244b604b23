"""Features of the golden cases, from a formula so that no arrays are stored."""

import json
from pathlib import Path

import numpy as np
import torch

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mir_reference.json").read_text())["cases"]


def features(case, layer):
    """Vision and text tokens [N, D], float32, of one layer of a golden case."""
    rng = np.random.default_rng([case["seed"], layer])
    d, outliers = case["d"], case["outliers"]
    basis = rng.standard_normal((d, d)) / np.sqrt(d)
    spectrum = np.logspace(0, -case["decay"], d)
    text = (rng.standard_normal((case["n_text"], d)) * spectrum) @ basis
    mirrored = spectrum[::-1] if case["flip"] else spectrum
    vision = (rng.standard_normal((case["n_vision"], d)) * mirrored) @ basis
    vision = vision * case["vision_scale"] + case["shift"] * rng.standard_normal(d)
    if outliers:
        vision[:outliers] *= 40
        text[-outliers:] *= 25
    return torch.tensor(vision, dtype=torch.float32), torch.tensor(text, dtype=torch.float32)


def gaussian_features(seed, vision, text, size, shift=0.5, stretch=1.5):
    """A plain pair of modalities: text standard normal, vision stretched and shifted."""
    generator = torch.Generator().manual_seed(seed)
    text_ND = torch.randn(text, size, generator=generator)
    vision_ND = stretch * torch.randn(vision, size, generator=generator) + shift
    return vision_ND, text_ND
