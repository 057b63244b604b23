"""Which nodes a job keeps away from, by what was lost there: without a cluster."""

from __future__ import annotations

import threading
import time

import pytest

from orchestrator.executors.losses import SETTLE_S, Losses
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
    assert losses.shunned(0, gang, NODES, NODES) == set(shunned)


def test_a_trial_that_is_lost_twice_in_one_place_speaks_once():
    losses = Losses()
    losses.lost(1, "a")
    losses.lost(1, "a")
    assert losses.shunned(0, ResourceSpec(), NODES, NODES) == set()


def test_a_job_that_finishes_somewhere_says_that_it_is_well_there():
    losses = Losses()
    losses.lost(0, "ab")
    losses.lost(1, "a")
    losses.well("a")
    assert losses.shunned(0, ResourceSpec(), NODES, NODES) == {"b"}
    assert losses.shunned(2, ResourceSpec(), NODES, NODES) == set()


@pytest.mark.parametrize(
    ("lost", "free", "shunned"),
    [
        ({0: "a"}, "bc", "a"),
        ({0: "a"}, "a", ""),  # rather there than idle beside it
        ({0: "a"}, "", ""),
        ({1: "a", 2: "a"}, "a", "a"),  # a sick one stays empty
        ({0: "b", 1: "a", 2: "a"}, "c", "ab"),
        ({0: "b", 1: "a", 2: "a"}, "ab", "a"),
        ({0: "abc", 1: "abc"}, "abc", ""),
    ],
)
def test_for_one_loss_nobody_waits_and_for_a_sick_node_everybody(lost, free, shunned):
    now = [0.0]
    losses = Losses(lambda: now[0])
    for trial, nodes in lost.items():
        losses.lost(trial, nodes)
    now[0] += SETTLE_S
    room = {name: has if name in free else {"CPU": 0.0} for name, has in NODES.items()}
    assert losses.shunned(0, ResourceSpec(), NODES, room) == set(shunned)


def test_room_that_is_given_back_elsewhere_is_waited_for_a_moment():
    now = [0.0]
    losses = Losses(lambda: now[0])
    losses.lost(0, "a")
    busy = {name: {"CPU": 0.0} for name in "bc"} | {"a": NODES["a"]}
    assert losses.shunned(0, ResourceSpec(), NODES, busy) == {"a"}
    now[0] += SETTLE_S
    assert losses.shunned(0, ResourceSpec(), NODES, busy) == set()


def test_gangs_that_are_lost_at_once_on_one_node_all_count():
    class Slow(dict):
        def get(self, *asked):
            found = super().get(*asked)
            time.sleep(0.05)  # what a thread that is put aside between two bytecodes sees
            return found

    losses = Losses()
    losses._by_node = Slow()
    threads = [threading.Thread(target=losses.lost, args=(trial, "a")) for trial in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert losses._by_node == {"a": {0, 1}}
