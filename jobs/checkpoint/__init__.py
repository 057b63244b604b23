"""Checkpoints that do not depend on the ZeRO stage or the number of ranks."""

from jobs.checkpoint.folder import (
    JOB,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    Checkpoint,
    identity,
    newest,
    open_checkpoint,
    save,
)
from jobs.checkpoint.frozen import (
    FrozenPart,
    frozen_beside,
    frozen_parts,
    require_same_frozen,
)
from jobs.checkpoint.policy import Progress

__all__ = [
    "JOB",
    "OPTIMIZER",
    "STATE",
    "WEIGHTS",
    "Checkpoint",
    "FrozenPart",
    "Progress",
    "frozen_beside",
    "frozen_parts",
    "identity",
    "newest",
    "open_checkpoint",
    "require_same_frozen",
    "save",
]
