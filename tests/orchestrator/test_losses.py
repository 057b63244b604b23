"""Which nodes a job keeps away from, by what was lost there: without a cluster."""

from __future__ import annotations

import pytest

from orchestrator.executors.losses import Losses
from sweeps.spec import ResourceSpec

NODES = {name: {"CPU": 2.0, "memory": 1.0} for name in "abc"}


@pytest.mark.parametrize(
    ("workers", "spread", "lost", "shunned"),
    [
        (2, "strict-pack", {}, ""),
        (2, "strict-pack", {0: "a"}, "a"),
        (2, "strict-pack", {0: "ab"}, "ab"),
        (2, "strict-pack", {0: "abc"}, ""),  # anywhere rather than nowhere
        (2, "strict-pack", {1: "a"}, ""),
        (2, "strict-pack", {1: "a", 2: "a", 3: "b"}, "a"),
        (2, "strict-pack", {0: "gone"}, ""),
        (4, "pack", {0: "a"}, "a"),
        (5, "pack", {0: "a"}, ""),
        (3, "strict-spread", {0: "a"}, ""),
        (2, "strict-spread", {0: "a"}, "a"),
    ],
)
def test_a_job_keeps_away_from_where_it_was_lost_if_it_fits_elsewhere(
    workers, spread, lost, shunned
):
    losses = Losses()
    for trial, nodes in lost.items():
        losses.lost(trial, [nodes] if nodes == "gone" else nodes)
    gang = ResourceSpec(workers=workers, spread=spread)
    assert losses.shunned(0, gang, NODES) == set(shunned)


def test_a_trial_that_is_lost_twice_in_one_place_speaks_once():
    losses = Losses()
    losses.lost(1, "a")
    losses.lost(1, "a")
    assert losses.shunned(0, ResourceSpec(), NODES) == set()


def test_a_job_that_finishes_somewhere_says_that_it_is_well_there():
    losses = Losses()
    losses.lost(0, "ab")
    losses.lost(1, "a")
    losses.well("a")
    assert losses.shunned(0, ResourceSpec(), NODES) == {"b"}
    assert losses.shunned(2, ResourceSpec(), NODES) == set()
