"""Which tokens are outliers depends on the tokens alone, not on who adds up their norms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mir.checks import checked_norms
from mir.layer import score_layer
from mir.outliers import median_row, outlier_mask


def equal_norms(seed, tokens, size):
    """As after a final norm without gains: float32's rounding is all that tells norms apart."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, size, generator=generator) * torch.logspace(0, -1, size)
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-6)


@pytest.fixture
def threads():
    """Sets the number of threads; restores it afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("tokens", "size"), [(3, 4096), (300, 12), (4001, 576)])
def test_norms_do_not_depend_on_threads_or_on_the_other_tokens(threads, tokens, size):
    x = equal_norms(0, tokens, size)
    threads(1)
    alone = checked_norms(x, 1, "vision")
    threads(2)
    assert torch.equal(checked_norms(x, 1, "vision"), alone)
    kept = torch.arange(tokens) % 3 != 1
    assert torch.equal(checked_norms(x[kept], 1, "vision"), alone[kept])


def test_a_layer_of_equal_norms_scores_alike_on_one_and_two_threads(threads):
    vision, text = equal_norms(1, 3000, 64), equal_norms(2, 2000, 64) + 0.0
    found = []
    for count in (1, 2):
        threads(count)
        found.append(score_layer(vision, text, layer=1))
    assert found[0].vision_outliers == found[1].vision_outliers > 0
    assert found[0].distance == pytest.approx(found[1].distance, rel=1e-9)


def test_rounding_of_the_norm_itself_makes_no_outlier():
    """The same numbers in another order: equal lengths that add up differently."""
    generator = torch.Generator().manual_seed(3)
    row = torch.randn(300, generator=generator)
    shuffled = torch.stack([row[torch.randperm(300, generator=generator)] for _ in range(400)])
    norms = checked_norms(shuffled, 1, "text")
    assert norms.std() > 0
    assert not outlier_mask(norms).any()
    assert outlier_mask(torch.cat([norms, norms[:1] * (1 + 1e-10)]))[-1]


def test_float32_differences_still_count():
    norms = torch.full((1000,), 1e4, dtype=torch.float64)
    norms[7] += 1e-4
    assert outlier_mask(norms).nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("tokens", [1, 2, 7, 500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_median_is_torchs_lower_one(tokens, dtype):
    x = torch.randn(tokens, 130).to(dtype)
    x[:, 3] = x[0, 3]
    assert torch.equal(median_row(x), x.median(dim=0).values)
    assert torch.equal(median_row(x[::2]), x[::2].median(dim=0).values)


HALVES = st.one_of(st.floats(-6e4, 6e4), st.sampled_from([0.0, -0.0, 1e-8, -1e-8, -1.0]))


@given(st.lists(st.tuples(HALVES, HALVES), min_size=2, max_size=9))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_median_of_halves_is_found_in_their_bits(dtype, rows):
    x = torch.tensor(rows).to(dtype)
    found = median_row(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, x.float().median(dim=0).values)
