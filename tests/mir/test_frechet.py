"""Closed forms and laws of the distance between two Gaussians."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mir.blocks import SquareLengths, gram, lower_cross, lower_times
from mir.frechet import Gaussian, frechet_distance, measure, psd_factor

SEEDS = st.integers(0, 2**32 - 1)


def random_gaussian(seed, size, rank=None, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, rank or size, generator=generator, dtype=torch.float64)
    root *= torch.logspace(0, -spread, rank or size, dtype=torch.float64)
    return torch.randn(size, generator=generator, dtype=torch.float64), root @ root.T


def by_eigenvalues(mean_p, cov_p, mean_q, cov_q):
    """The textbook formula with the symmetric square root of one covariance."""
    values, vectors = torch.linalg.eigh(cov_p)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_q @ root).clamp(min=0).sqrt().sum()
    return float((mean_p - mean_q).square().sum() + cov_p.trace() + cov_q.trace() - 2 * cross)


def test_one_dimension():
    one = torch.ones(1, 1)
    assert float(frechet_distance(torch.zeros(1), one, torch.tensor([3.0]), one)) == 9
    four = torch.tensor([[4.0]])
    assert float(frechet_distance(torch.zeros(1), one, torch.zeros(1), four)) == pytest.approx(1)


def test_commuting_covariances():
    p, q = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 0.0, 1.0])
    expected = (p.double().sqrt() - q.double().sqrt()).square().sum()
    zero = torch.zeros(3)
    assert float(frechet_distance(zero, p.diag(), zero, q.diag())) == pytest.approx(float(expected))


@given(SEEDS, st.integers(1, 12), st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_symmetric_and_equal_to_the_textbook(seed, size, spread):
    p = random_gaussian(seed, size, spread=spread)
    q = random_gaussian(seed + 1, size, spread=spread)
    distance = float(frechet_distance(*p, *q))
    assert distance == pytest.approx(float(frechet_distance(*q, *p)), rel=1e-8, abs=1e-12)
    assert distance == pytest.approx(by_eigenvalues(*p, *q), rel=1e-5, abs=1e-6)


@given(SEEDS, st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_translation_and_rotation_change_nothing(seed, size):
    p, q = random_gaussian(seed, size), random_gaussian(seed + 1, size)
    move = torch.randn(size, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q
    turned = [(turn @ (mean + move), turn @ cov @ turn.T) for mean, cov in (p, q)]
    expected = float(frechet_distance(*p, *q))
    assert float(frechet_distance(*turned[0], *turned[1])) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_equal_gaussians_are_at_zero_even_when_rank_deficient(rank):
    p = random_gaussian(rank, 20, rank)
    assert float(frechet_distance(*p, *p)) == 0


def test_low_rank_against_full_rank():
    p, q = random_gaussian(0, 20, 3), random_gaussian(1, 20)
    assert float(frechet_distance(*p, *q)) == pytest.approx(by_eigenvalues(*p, *q), rel=1e-7)


@pytest.mark.parametrize("position", [0, 100, 199])
def test_massive_channel_does_not_drown_the_others(position):
    """The eigenvalues alone are wrong by 1e-9 of the trace here; the estimate must notice."""
    means, factors = [], []
    for seed in (0, 1):
        mean, cov = random_gaussian(seed, 200, spread=2.0)
        scale = torch.ones(200, dtype=torch.float64)
        scale[position] = 3000.0 * (seed + 1)
        factors.append(torch.linalg.cholesky(cov * scale[:, None] * scale))
        means.append(mean)
    p, q = (
        Gaussian(mean, factor, (factor @ factor.T).diagonal(), lower=True)
        for mean, factor in zip(means, factors, strict=True)
    )
    exact = torch.linalg.svdvals(factors[0].T @ factors[1]).sum()
    known = (means[0] - means[1]).square().sum() + p.trace + q.trace
    assert measure(p, q).value == pytest.approx(float(known - 2 * exact), rel=1e-8)


def test_factor_sets_constant_dimensions_aside():
    _, cov = random_gaussian(0, 6)
    cov[2], cov[:, 2] = 0, 0
    factor, lower = psd_factor(cov)
    assert not lower and factor.shape == (6, 5)
    torch.testing.assert_close(factor @ factor.T, cov, atol=1e-10, rtol=1e-9)
    assert psd_factor(torch.zeros(4, 4, dtype=torch.float64))[0].shape == (4, 0)


@pytest.mark.parametrize("size", [1, 127, 300, 1100])
def test_blocked_products_equal_whole_ones(size):
    rows = torch.randn(50, size, dtype=torch.float64)
    left, right = (torch.randn(size, size, dtype=torch.float64).tril() for _ in range(2))
    torch.testing.assert_close(gram(rows).tril(), (rows.T @ rows).tril())
    torch.testing.assert_close(lower_cross(left, right), left.T @ right)
    torch.testing.assert_close(lower_times(left, right), left @ right)
    for factor, shape in ((left, "lower"), (left.T, "upper"), (left + right.T, "full")):
        lengths = SquareLengths(factor, shape)(rows)
        torch.testing.assert_close(lengths, (rows @ factor).square().sum(dim=1))
