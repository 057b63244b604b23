"""One, two and three ranks give one report; a rank that fails brings all down with its error."""

import pytest
import ranks_worker
import torch
import torch.multiprocessing
from hypothesis import given
from hypothesis import strategies as st

from mir.errors import ClusterError, NonFiniteError
from mir.pairs import pairs_digest, rank_batches
from mir.ranks import agree, all_or_none, score_across_ranks, world
from mir.report import MirReport
from mir.score import score_layers

WORLDS = (1, 2, 3)


@pytest.fixture(scope="module", params=WORLDS)
def found(request, tmp_path_factory):
    """What every rank of one world found, in rank order."""
    folder = tmp_path_factory.mktemp(f"world-{request.param}")
    torch.multiprocessing.spawn(
        ranks_worker.run, (request.param, str(folder)), nprocs=request.param
    )
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(request.param)]


def reference(variant="exact", dtype=torch.float32):
    layers, pairs = ranks_worker.features(dtype)
    return score_layers(layers, variant, pairs=pairs)


def assert_equal(report, expected, rel):
    report = MirReport.from_json(report)
    assert report.mir == pytest.approx(expected.mir, rel=rel)
    assert report.per_layer == pytest.approx(expected.per_layer, rel=rel)
    assert report.aggregates == pytest.approx(expected.aggregates, rel=rel)
    if expected.standard_error is None:
        assert report.standard_error is None
    else:
        assert report.standard_error == pytest.approx(expected.standard_error, rel=rel)
    counts = [(one.layer, one.vision_outliers, one.text_tokens) for one in report.layers]
    assert counts == [(one.layer, one.vision_outliers, one.text_tokens) for one in expected.layers]


@pytest.mark.parametrize("name", ["strided", "uneven", "backwards"])
@pytest.mark.parametrize("variant", ["exact", "paper-accurate"])
def test_however_pairs_are_spread_the_report_is_that_of_one_rank(found, variant, name):
    expected = reference(variant)
    for rank in found:
        assert_equal(rank[f"{variant} {name}"], expected, 1e-9)


def test_every_rank_has_the_same_report(found):
    for rank in found[1:]:
        for name in ("exact uneven", "bfloat16"):
            mine, first = dict(rank[name]), dict(found[0][name])
            assert mine == first


def test_half_precision_tokens_cross_ranks_unchanged(found):
    for rank in found:
        assert_equal(rank["bfloat16"], reference(dtype=torch.bfloat16), 1e-9)


def test_a_group_of_some_ranks_scores_alone(found):
    if len(found) < 3:
        pytest.skip("needs a rank that stays out")
    for rank in (1, 2):
        assert_equal(found[rank]["in a group of two"], reference(), 1e-9)


def test_layers_are_split_and_no_rank_sees_more_than_a_layer_at_once(found):
    ranks = len(found)
    layers, _ = ranks_worker.features()
    one_layer = sum(tokens.numel() * tokens.element_size() for tokens in layers[0])
    for rank, said in enumerate(found):
        assert said["finished layers"] == list(range(rank + 1, len(layers) + 1, ranks))
        others = one_layer - said["own"]
        assert max(said["received"], default=0) <= others
        if ranks > 1:
            assert sum(said["received"]) == others * len(said["finished layers"])


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nan", "NonFiniteError", "layer 3"),
        ("crash while reading", "ClusterError", "ZeroDivisionError: the disk is gone"),
        ("crash before", "ClusterError", "ZeroDivisionError: the forward failed"),
        ("fewer layers", "ClusterError", "give the same layers"),
        ("wrong pairs", "MirError", "pair numbers were given"),
    ],
)
def test_a_failing_rank_brings_all_down_with_its_error(found, name, kind, message):
    if len(found) == 1:
        pytest.skip("one rank has no others")
    for rank, said in enumerate(found):
        assert said[name] is not None, f"rank {rank} did not notice"
        caught, text = said[name]
        own = name.startswith("crash") and rank == len(found) - 1
        assert caught == ("ZeroDivisionError" if own else kind)
        assert message.split(": ")[-1] in text
        if name.startswith("crash") and not own:
            assert text.startswith(f"rank {len(found) - 1}: ")


def test_the_ranks_can_score_again_after_failures(found):
    for rank in found:
        assert_equal(rank["after the failures"], reference(), 1e-9)


def test_without_torch_distributed_there_is_one_rank():
    layers, pairs = ranks_worker.features()
    assert world() == (0, 1)
    assert_equal(score_across_ranks(layers, pairs).to_json(), reference(), 1e-9)


def test_alone_errors_come_as_they_are():
    layers, pairs = ranks_worker.features()
    layers[3][1][0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="layer 4"):
        score_across_ranks(layers, pairs)
    with pytest.raises(KeyError), all_or_none():
        raise KeyError("mine")
    with pytest.raises(ClusterError):
        agree(None, ClusterError("told"))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 7))
def test_batches_cover_every_pair_once_in_equally_many_forwards(pairs, size, ranks):
    plans = [list(rank_batches(pairs, size, rank, ranks)) for rank in range(ranks)]
    assert len({len(plan) for plan in plans}) == 1
    counted = [k for plan in plans for batch, counts in plan if counts for k in batch]
    assert sorted(counted) == list(range(pairs))
    for plan in plans:
        for batch, _ in plan:
            assert 1 <= len(batch) <= size
            assert all(0 <= k < pairs for k in batch)


def test_the_digest_knows_order_kind_and_boundaries():
    same = pairs_digest([b"a", b"b"], ["c"])
    assert same == pairs_digest(iter([b"a", b"b"]), ("c",))
    others = [
        pairs_digest([b"b", b"a"], ["c"]),
        pairs_digest([b"ab"], ["c"]),
        pairs_digest([b"a"], ["b", "c"]),
        pairs_digest([b"a", b"b"], ["d"]),
    ]
    assert len({same, *others}) == 5
