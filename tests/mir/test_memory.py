"""The memory plan as a pure function of what is needed and what is free."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mir.errors import MirError
from mir.memory import MARGIN, Free, Need, plan_memory, release

GIB = 2**30
# LLaVA-1.5-7B on one rank: 100 pairs of 576 + 800 tokens, 32 layers of 4096 in bfloat16.
SEVEN_B = Need(layers=32, tokens=137_600, all_tokens=137_600, size=4096, itemsize=2)


def test_the_formula_for_a_seven_billion_model():
    assert SEVEN_B.kept(32) == 32 * 137_600 * 4096 * 2
    tokens, matrices = 137_600 * (4096 * (2 * 2 + 4) + 256), 160 * 4096**2
    assert SEVEN_B.work == tokens + matrices + 49_152 * 4096 + 128 * 2**20


def test_the_papers_variants_copy_more():
    fast = replace(SEVEN_B, variant="paper-fast")
    assert fast.work - SEVEN_B.work == 137_600 * 4096 * 16
    assert fast.kept(3) == SEVEN_B.kept(3)


@pytest.mark.parametrize(
    ("device", "host", "store", "passes"),
    [
        (80, 200, "device", 1),
        (24, 200, "host", 1),
        (24, 20, "device", 3),
        (24, None, "device", 3),
        (60, None, "device", 1),
    ],
)
def test_auto_takes_the_first_that_fits(device, host, store, passes):
    free = Free(device=device * GIB, host=None if host is None else host * GIB)
    plan = plan_memory(SEVEN_B, free)
    assert (plan.store, len(plan.groups)) == (store, passes)


def test_what_is_asked_for_is_done_even_if_it_looks_too_small():
    free = Free(device=GIB, host=GIB)
    assert plan_memory(SEVEN_B, free, "device").store == "device"
    assert plan_memory(SEVEN_B, free, "host").store == "host"


def test_passes_are_at_least_two():
    free = Free(device=1000 * GIB, host=None)
    assert [group.start for group in plan_memory(SEVEN_B, free, "passes").groups] == [1, 17]


def test_a_single_layer_needs_no_second_pass():
    need = Need(layers=1, tokens=9, all_tokens=9, size=4, itemsize=4)
    plan = plan_memory(need, Free(device=GIB, host=None), "passes")
    assert plan.groups == (range(1, 2),)


def test_if_not_even_one_layer_fits_the_message_says_what_to_do():
    with pytest.raises(MirError, match="fewer pairs, fewer text tokens or more ranks"):
        plan_memory(SEVEN_B, Free(device=4 * GIB, host=None))


def test_a_limit_holds_on_the_device_and_on_the_host_whatever_is_free():
    free = Free(device=1000 * GIB, host=1000 * GIB)
    assert plan_memory(SEVEN_B, free, 60 * GIB).groups == (range(1, 33),)
    assert plan_memory(SEVEN_B, free, 35 * GIB).store == "host"
    passes = plan_memory(SEVEN_B, free, 20 * GIB)
    most = max(len(group) for group in passes.groups)
    assert passes.store == "device" and len(passes.groups) == 3
    assert SEVEN_B.kept(most) + SEVEN_B.work <= 20 * GIB < SEVEN_B.kept(32) + SEVEN_B.work
    with pytest.raises(MirError, match=r"3\.00 GiB may be used; use fewer pairs"):
        plan_memory(SEVEN_B, free, 3 * GIB)


def test_a_limit_does_not_use_more_than_is_free():
    tight = Free(device=24 * GIB, host=None)
    assert plan_memory(SEVEN_B, tight, 1000 * GIB) == plan_memory(SEVEN_B, tight, "auto")


def test_release_gives_freed_memory_back():
    if sys.platform != "linux":
        pytest.skip("no /proc/self/statm")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # Small enough for the heap; every second one stays, so the heap cannot shrink from its end.
    blocks = [bytearray(100_000) for _ in range(1000)]
    blocks[::2] = [b""] * 500
    before = resident()
    release()
    assert before - resident() > 30_000_000
    assert len(blocks) == 1000


@given(
    layers=st.integers(1, 80),
    tokens=st.integers(1, 10**6),
    ranks=st.integers(1, 8),
    size=st.sampled_from([64, 576, 4096]),
    device=st.integers(0, 200 * GIB),
    host=st.none() | st.integers(0, 500 * GIB),
    memory=st.sampled_from(["auto", "passes"]),
)
def test_groups_cover_every_layer_once_and_fit(layers, tokens, ranks, size, device, host, memory):
    need = Need(layers=layers, tokens=tokens, all_tokens=tokens * ranks, size=size, itemsize=2)
    free = Free(device=device, host=host)
    try:
        plan = plan_memory(need, free, memory)
    except MirError:
        assert need.kept(1) + need.work > device * MARGIN - 1
        return
    assert [k for group in plan.groups for k in group] == list(range(1, layers + 1))
    assert need.work <= device * MARGIN
    if plan.store == "host":
        assert need.kept(layers) <= host * MARGIN
    else:
        assert max(need.kept(len(group)) for group in plan.groups) + need.work <= device * MARGIN
