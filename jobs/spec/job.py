"""The whole job and its identity."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from jobs.spec.base import Frozen
from jobs.spec.data import DataSpec
from jobs.spec.model import ModelSpec
from jobs.spec.score import ScoreSpec
from jobs.spec.training import CheckpointSpec, DeepspeedSpec, OptimSpec


class JobSpec(Frozen):
    """One run. `digest` is its identity: equal content, equal digest.

    start: folder of a checkpoint whose weights the run begins with, None for the models' own.
    """

    model: ModelSpec = ModelSpec()
    data: DataSpec
    optim: OptimSpec = OptimSpec()
    deepspeed: DeepspeedSpec = DeepspeedSpec()
    score: ScoreSpec = ScoreSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    seed: int = 0
    start: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values only; `JobSpec.model_validate` restores an equal spec."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
