"""The model: what it sees, what learns, and what its loss means."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_job import make_world, spec_of

from jobs.data.batch import Batch
from jobs.model.build import build_model
from jobs.model.projectors import PROJECTORS, PixelShuffle
from mir.errors import ConfigError


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def built(base):
    return build_model(spec_of(base).model, seed=3)


def batch_of(rows, seed=0):
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows])
    pixels = torch.randn(len(rows), 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Batch(pixel_values=pixels, caption_ids=ids, caption_mask=mask)


def test_the_sequence_is_prefix_picture_text(built):
    model = built.model
    batch = batch_of([[7, 8, 2], [9, 2]])
    tokens = model.sequence(model.encode(batch.pixel_values), batch.caption_ids, batch.caption_mask)
    assert tokens.embeds.shape == (2, 1 + 4 + 3, 24)
    assert tokens.vision_mask.tolist() == [[False] + [True] * 4 + [False] * 3] * 2
    assert tokens.text_mask[:, 5:].tolist() == batch.caption_mask.tolist()
    assert not tokens.text_mask[:, :5].any()
    embed = model.language.get_input_embeddings()
    assert torch.equal(tokens.embeds[:, 0], embed(torch.tensor([1, 1])))


def test_the_loss_is_that_of_the_language_model_with_labels_on_the_caption(built):
    model = built.model
    batch = batch_of([[7, 8, 12, 2]])
    tokens = model.sequence(model.encode(batch.pixel_values), batch.caption_ids, batch.caption_mask)
    logits = model.language(inputs_embeds=tokens.embeds).logits
    expected = F.cross_entropy(logits[0, 4:-1], batch.caption_ids[0])
    torch.testing.assert_close(model(batch), expected)


def test_every_sample_weighs_the_same_and_padding_nothing(built):
    model = built.model
    rows = [[7, 8, 9, 10, 11, 2], [12, 2], [13, 14, 2]]
    whole = batch_of(rows)
    losses = model.per_sample_loss(whole)
    torch.testing.assert_close(model(whole), losses.mean())
    for i, row in enumerate(rows):
        alone = Batch(
            pixel_values=whole.pixel_values[i : i + 1],
            caption_ids=torch.tensor([row]),
            caption_mask=torch.ones(1, len(row), dtype=torch.bool),
        )
        torch.testing.assert_close(model.per_sample_loss(alone)[0], losses[i])


@pytest.mark.parametrize(
    ("trainable", "parts"),
    [
        ("projector", {"projector", "moca"}),
        ("projector+language", {"projector", "moca", "language"}),
        ("everything", {"projector", "moca", "language", "vision"}),
    ],
)
def test_what_learns_gets_gradients_and_the_rest_stays_frozen(base, trainable, parts):
    spec = spec_of(base, model={"trainable": trainable, "moca": {}}).model
    model = build_model(spec, seed=0).model
    assert set(model.trainable_counts()) == parts
    model.train()
    assert {name for name, part in model.named_children() if part.training} == parts
    model(batch_of([[7, 8, 2]])).backward()
    for name, part in model.named_children():
        moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
        assert moved == (name in parts), name


def test_fresh_moca_changes_nothing_before_the_first_step(base):
    batch = batch_of([[7, 8, 2], [9, 10, 2]])
    bare = build_model(spec_of(base).model, seed=5).model
    calibrated = build_model(spec_of(base, model={"moca": {}}).model, seed=5).model
    assert torch.equal(bare(batch), calibrated(batch))


def test_building_is_deterministic_and_leaves_the_callers_random_state(base):
    spec = spec_of(base, model={"moca": {"init_std": 0.1}}).model
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = build_model(spec, seed=1).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second = build_model(spec, seed=1).model.state_dict()
    other = build_model(spec, seed=2).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["projector.0.weight"], other["projector.0.weight"])


def test_select_layer_takes_an_inner_layer(base, built):
    inner = build_model(spec_of(base, model={"select_layer": -2}).model, seed=3).model
    pixels = batch_of([[2]]).pixel_values
    states = inner.vision.encoder(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert torch.equal(inner.encode(pixels), states[-2][:, 1:])
    last = built.model.vision.encoder(pixel_values=pixels).last_hidden_state
    assert torch.equal(built.model.encode(pixels), last[:, 1:])


@pytest.mark.parametrize(("name", "linears"), [("linear", 1), ("mlp2x_gelu", 2), ("mlp3x_gelu", 3)])
def test_projectors_map_widths(name, linears):
    projector = PROJECTORS[name](5, 7)
    assert projector(torch.zeros(2, 3, 5)).shape == (2, 3, 7)
    assert sum(isinstance(layer, torch.nn.Linear) for layer in projector) == linears


def test_pixel_shuffle_joins_neighbours_of_the_grid():
    """A 4 x 4 grid whose features are the token numbers: the first joined token is its corner."""
    grid = torch.arange(16.0).reshape(1, 16, 1)
    joined = PixelShuffle()(grid)
    assert joined.tolist()[0] == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert PROJECTORS["pixel-shuffle"](5, 7)(torch.zeros(2, 16, 5)).shape == (2, 4, 7)


@pytest.mark.parametrize("tokens", [9, 12])
def test_pixel_shuffle_refuses_what_is_no_even_square(tokens):
    with pytest.raises(ConfigError, match=f"square grid of even side.* gives {tokens} tokens"):
        PixelShuffle()(torch.zeros(1, tokens, 3))


@pytest.mark.parametrize("field", ["vision", "language"])
def test_a_model_that_is_not_there_is_named(base, field, tmp_path):
    spec = spec_of(base, model={field: str(tmp_path / "nothing")}).model
    with pytest.raises(ConfigError, match=rf"model.{field}: .*nothing"):
        build_model(spec, seed=0)
