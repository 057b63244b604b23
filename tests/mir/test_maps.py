"""The optimal map carries one Gaussian's covariance to the other's, and back."""

from itertools import islice

import pytest
import torch

from mir import exact, score_layers
from mir.blocks import SquareLengths
from mir.exact import ACCURACY
from mir.frechet import Gaussian, measure, psd_factor
from mir.maps import optimal_maps


def covariance(seed, size=60, rank=None, channel=1.0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, rank or 2 * size, generator=generator, dtype=torch.float64)
    root *= torch.logspace(0, -1, size, dtype=torch.float64)[:, None]
    root[size // 2] *= channel
    return root @ root.T


def gaussian(cov, order=None):
    ordered = cov if order is None else cov[order][:, order]
    factor, lower = psd_factor(ordered)
    return Gaussian(torch.zeros(len(cov)), factor, ordered.diagonal(), lower, 0.0, order)


def candidates(p, q):
    """(T_p, T_q) of every candidate, in float64."""
    found = optimal_maps(p, q, measure(p, q, vectors=True))
    return [
        [m.to(torch.float64).factor_DK @ m.to(torch.float64).factor_DK.T for m in c] for c in found
    ]


def misses(p, q):
    """By what share of the distance each candidate misses the trace of the root."""
    distance = measure(p, q)
    root = float(distance.roots_K.sum())
    return [
        max(
            abs(float((carried @ own_cov(own)).trace()) - root) / distance.value
            for carried, own in zip(maps, (p, q), strict=True)
        )
        for maps in candidates(p, q)
    ]


def own_cov(g):
    """The covariance in the dimensions' own order."""
    back = torch.arange(len(g.factor_DR)) if g.order_D is None else g.order_D.argsort()
    return (g.factor_DR @ g.factor_DR.T)[back][:, back]


@pytest.mark.parametrize("turned", [False, True])
def test_map_and_inverse_of_full_rank(turned):
    cov_p, cov_q = covariance(0), covariance(1)
    order = cov_p.diagonal().argsort(descending=True) if turned else None
    p, q = gaussian(cov_p, order), gaussian(cov_q, order)
    for (to_q, to_p), share in zip(candidates(p, q), (0.05, 1e-3, 1e-6), strict=False):
        torch.testing.assert_close(to_q @ cov_p @ to_q, cov_q, rtol=share, atol=100 * share)
        torch.testing.assert_close(to_p @ cov_q @ to_p, cov_p, rtol=share, atol=100 * share)


@pytest.mark.parametrize("channel", [1.0, 30.0, 1000.0, 1e5])
@pytest.mark.parametrize("turned", [False, True])
def test_a_massive_channel_in_one_modality_or_both(channel, turned):
    """Some candidate other than the last, which leaves small directions out, is good enough."""
    for other in (1.0, 1.001 * channel):
        cov_p, cov_q = covariance(0, channel=channel), covariance(1, channel=other)
        order = cov_p.diagonal().argsort(descending=True) if turned else None
        assert min(misses(gaussian(cov_p, order), gaussian(cov_q, order))[:-1]) < ACCURACY


def test_the_cheap_maps_are_seen_to_fail_where_they_do():
    """One direction of a thousand times the others' spread, in no channel of its own."""
    generator = torch.Generator().manual_seed(2)
    turn = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64)).Q
    spread = torch.ones(60, dtype=torch.float64)
    spread[0] = 1e3
    cov_p = turn @ (spread[:, None] * covariance(0) * spread) @ turn.T
    p, q = gaussian(cov_p), gaussian(cov_p + 0.5 * torch.eye(60, dtype=torch.float64))
    *cheap, svd, _ = misses(p, q)
    assert all(miss > 1 for miss in cheap) and svd < ACCURACY


@pytest.mark.parametrize("channel", [1.0, 1000.0])
def test_every_precision_gives_one_standard_error(channel, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    index = torch.arange(40).repeat_interleave(30)
    offsets = torch.randn(2, 40, 96, generator=generator)
    layer = [
        0.4 * offset[index] + torch.randn(1200, 96, generator=generator) + shift
        for offset, shift in zip(offsets, (0.3, 0.0), strict=True)
    ]
    for tokens in layer:
        tokens[:, 7] *= channel
    errors = []
    for place in range(3):

        def only(*three, place=place):
            return islice(optimal_maps(*three), place, place + 1)

        monkeypatch.setattr(exact, "optimal_maps", only)
        if place < len(list(candidates_of(layer))):
            errors.append(score_layers([tuple(layer)], pairs=(index, index)).standard_error)
    assert errors == pytest.approx([errors[-1]] * len(errors), rel=0.03)


def candidates_of(layer):
    """The candidates that this machine makes for a layer."""
    p, q = (gaussian(tokens.double().T.cov()) for tokens in layer)
    return optimal_maps(p, q, measure(p, q, vectors=True))


@pytest.mark.parametrize(("rank_p", "rank_q"), [(5, 5), (5, 60), (60, 5)])
def test_maps_of_singular_covariances_have_the_trace_of_the_root(rank_p, rank_q):
    p, q = gaussian(covariance(0, rank=rank_p)), gaussian(covariance(1, rank=rank_q))
    assert misses(p, q) == [pytest.approx(0, abs=1e-6)]


def test_nothing_is_carried_from_a_point():
    p, q = gaussian(torch.zeros(4, 4, dtype=torch.float64)), gaussian(covariance(0, 4))
    ((to_q, to_p),) = candidates(p, q)
    assert not to_q.any() and not to_p.any()
    rows = torch.randn(3, 4)
    assert SquareLengths(torch.zeros(4, 0), "full")(rows).tolist() == [0, 0, 0]
