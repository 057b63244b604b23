"""Processes for jobs that begin with everything imported: forked from one that has it.

Where a test kills and starts processes for what their jobs leave on the disk, importing torch,
transformers and DeepSpeed anew is nine tenths of its time: 5 s of CPU for each process, not 0.5.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest

IMPORTED = [
    "jobs.run",
    "jobs.engine.deepspeed_engine",
    "deepspeed",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.vit.modeling_vit",
]


@pytest.fixture(scope="module")
def warm() -> Iterator[None]:
    """Within: every new process of `multiprocessing` is a fork of a server that ran no job."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")  # DeepSpeed looks at it when it is imported
        patch.setattr(multiprocessing, "get_context", lambda _method: context)
        yield
