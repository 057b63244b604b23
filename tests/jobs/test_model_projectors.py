"""Projectors by name: the list of the specification and what can be built are the same."""

import pytest
import torch

from jobs.model.projectors import FAMILIES, PROJECTORS, make_projector
from jobs.model.resampler import grid_positions
from jobs.spec.model import PROJECTORS as NAMED
from jobs.spec.model import projector_number


def test_every_name_of_the_specification_can_be_built():
    for known in NAMED:
        name = known.replace("{n}", "5").replace("{q}", "6")
        assert make_projector(name, 3, 8)(torch.zeros(2, 16, 3)).shape[-1] == 8
    assert set(FAMILIES) == {known for known in NAMED if "{" in known}
    assert {projector_number(name)[0] for name in PROJECTORS} | set(FAMILIES) == set(NAMED)


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_an_mlp_has_as_many_linear_layers_as_its_name_says(depth):
    projector = make_projector(f"mlp{depth}x_gelu", 5, 7)
    assert sum(isinstance(layer, torch.nn.Linear) for layer in projector) == depth
    assert projector(torch.zeros(2, 3, 5)).shape == (2, 3, 7)


@pytest.mark.parametrize("tokens", [1, 9, 12, 17])
def test_a_resampler_gives_its_number_of_tokens_whatever_the_encoder_gives(tokens):
    torch.manual_seed(0)
    resampler = make_projector("resampler4", 6, 10)
    features = torch.randn(3, tokens, 6)
    joined = resampler(features)
    assert joined.shape == (3, 4, 10)
    alone = torch.cat([resampler(one[None]) for one in features])
    torch.testing.assert_close(joined, alone)


def test_a_resampler_sees_every_token_and_where_it_stands():
    torch.manual_seed(0)
    resampler = make_projector("resampler2", 6, 128)
    assert resampler.heads == 2
    features = torch.randn(1, 9, 6, requires_grad=True)
    resampler(features).square().sum().backward()
    assert bool((features.grad.abs().sum(-1) > 0).all())
    assert not torch.allclose(resampler(features), resampler(features.flip(1)), atol=1e-6)
    assert all(p.grad is not None for p in resampler.parameters())


def test_grid_positions_tell_rows_from_columns():
    grid = grid_positions(16, 8).reshape(4, 4, 8)
    assert torch.equal(grid[2, 0, :4], grid[2, 3, :4])
    assert torch.equal(grid[0, 2, 4:], grid[3, 2, 4:])
    assert len({tuple(row.tolist()) for row in grid.reshape(16, 8)}) == 16
    line = grid_positions(17, 8)
    assert line.shape == (17, 8) and len({tuple(row.tolist()) for row in line}) == 17
