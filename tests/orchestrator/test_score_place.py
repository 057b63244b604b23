"""What `auto` means: device, number type, batch size, memory; and what else may be asked for."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mir.capture import Batch
from mir.errors import ConfigError
from mir.memory import Free
from orchestrator.scoring.batches import Batches
from orchestrator.scoring.limits import choose_memory, size_text
from orchestrator.scoring.place import (
    choose_batch_size,
    choose_device,
    choose_dtype,
    free_memory,
)

GIB = 2**30
CPU = torch.device("cpu")
SMALL = SimpleNamespace(hidden_size=64, num_attention_heads=4)
SEVEN_B = SimpleNamespace(hidden_size=4096, num_attention_heads=32)


def test_device_auto_is_this_ranks_gpu_or_else_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    assert choose_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"--device: cuda:2 asked for, 2 CUDA devices are here"):
        choose_device("cuda:2")


def test_dtype_auto_keeps_the_stored_type_but_for_float16_on_the_cpu():
    assert choose_dtype("auto", torch.bfloat16, CPU) == torch.bfloat16
    assert choose_dtype("auto", torch.float32, CPU) == torch.float32
    assert choose_dtype("auto", torch.float16, CPU) == torch.float32
    assert choose_dtype("auto", torch.float16, torch.device("cuda:0")) == torch.float16
    assert choose_dtype("float16", torch.float32, CPU) == torch.float16


def test_batch_size_auto_fills_a_quarter_of_what_is_free_within_limits():
    assert choose_batch_size("auto", SMALL, 100, Free(device=100 * GIB, host=None), 4) == 8
    assert choose_batch_size("auto", SMALL, 100, Free(device=100 * GIB, host=GIB), 4) == 32
    assert choose_batch_size("auto", SEVEN_B, 4000, Free(device=GIB, host=GIB), 2) == 1
    one = 1376 * 4096 * 24 * 2 + 32 * 1376**2 * 4
    for fit in (1, 3, 17):
        free = Free(device=4 * fit * one, host=GIB)
        assert choose_batch_size("auto", SEVEN_B, 1376, free, 2) == fit
    assert choose_batch_size("5", SEVEN_B, 4000, Free(device=0, host=None), 2) == 5
    for wrong in ("0", "-1", "1.5", "many"):
        with pytest.raises(ConfigError, match="neither auto nor a number above 0"):
            choose_batch_size(wrong, SMALL, 100, Free(device=GIB, host=None), 4)


def test_ranks_of_one_machine_share_its_memory(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = free_memory(CPU)
    assert alone.host is None
    assert alone.device > 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU).device == pytest.approx(alone.device / 4, rel=0.2)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * GIB), ("1.5 GB", 1_500_000_000), ("500MB", 500_000_000), ("1MiB", 2**20)],
)
def test_memory_may_be_a_size(text, size):
    assert choose_memory(text) == size


@given(st.integers(1, 4000).map(lambda quarters: quarters * GIB // 4))
def test_sizes_are_written_as_they_are_read(size):
    assert choose_memory(size_text(size)) == size


def test_memory_by_name_and_what_it_is_not():
    assert [choose_memory(n) for n in ("auto", "device", "host", "passes")] == [
        "auto", "device", "host", "passes",
    ]  # fmt: skip
    for wrong in ("4", "GiB", "-4GiB", "4gib", "disk"):
        with pytest.raises(ConfigError, match="is not one of auto, device, host, passes, nor a"):
            choose_memory(wrong)


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (400, 1), (1000, 2)])
def test_made_batches_are_kept_up_to_a_limit_and_counted(keep, kept):
    made = []

    def make(numbers):
        made.append(numbers)
        mask = torch.ones(1, 2, dtype=torch.bool)
        return Batch(inputs={"x": torch.zeros(100)}, vision=mask, text=mask, pairs=numbers)

    batches = Batches(
        make, pairs=3, batch_size=1, rank=0, ranks=1, device=CPU, dtype=torch.float32, keep=keep
    )
    assert batches.tokens() == 3 * 4
    assert batches.held == 400 * kept
    assert len(list(batches)) == 3
    assert len(made) == 3 + (3 - kept)
