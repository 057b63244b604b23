"""A checkpoint as a folder: how it is laid out, written, found and opened.

One folder each, `samples-000000001024`, in the job's `checkpoints` folder:

    weights.safetensors     trained parameters in float32, by name
    optimizer.safetensors   AdamW moments (`exp_avg/<name>`, `exp_avg_sq/<name>`) and every rank's
                            random state (`random/<rank>/<device>`); fp16's loss scale
    state.json              how far the run had come, the job's identity, the sources and digests
                            of the frozen parts, file sizes
    job.json                the whole JobSpec

A folder is written under a name that starts with a dot and renamed when all of it is on the disk,
so a killed save leaves the previous checkpoint usable.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from jobs.checkpoint.frozen import FrozenPart
from jobs.checkpoint.policy import Progress, kept
from jobs.files import sync
from jobs.spec import CheckpointSpec, JobSpec
from mir.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, OPTIMIZER, STATE, JOB = (
    "weights.safetensors",
    "optimizer.safetensors",
    "state.json",
    "job.json",
)
_PREFIX = "samples-"
_WEIGHT = "weight/"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk. frozen: the parts that it names and does not hold."""

    path: Path
    progress: Progress
    frozen: Mapping[str, FrozenPart] = field(default_factory=dict)

    def weights(self) -> dict[str, Tensor]:
        """Trained parameters by name, float32 on the CPU."""
        return _load(self.path / WEIGHTS)

    def tensors(self) -> dict[str, Tensor]:
        """Weights (`weight/<name>`), moments and random states."""
        weights = {_WEIGHT + name: value for name, value in self.weights().items()}
        return {**weights, **_load(self.path / OPTIMIZER)}


def identity(spec: JobSpec) -> str:
    """Digest of what decides the course of training.

    How DeepSpeed shards it, how often it is scored and saved, and where features are kept are left
    out: a run may be resumed with another micro-batch, ZeRO stage, cadence or cache.
    """
    parts = {name: spec.to_json()[name] for name in ("model", "data", "optim", "seed")}
    for name in ("feature_cache", "feature_cache_gib"):
        del parts["model"][name]
    if spec.start is not None:
        parts["start"] = spec.start
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def save(
    folder: Path,
    spec: JobSpec,
    progress: Progress,
    tensors: Mapping[str, Tensor],
    frozen: Mapping[str, FrozenPart] | None = None,
) -> Checkpoint:
    """Write a checkpoint below `folder` and remove those that the policy does not keep.

    tensors: as `Checkpoint.tensors` gives them. frozen: the parts that do not learn.
    Raises OSError, e.g. when the disk is full; then nothing is left behind and older checkpoints
    are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{_PREFIX}{progress.samples:012d}"
    building = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    try:
        _write(building, spec, progress, tensors, frozen or {})
        if final.exists():
            _remove(final)
        building.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    _prune(folder, spec.checkpoint)
    return Checkpoint(path=final, progress=progress, frozen=frozen or {})


def newest(folder: Path, spec: JobSpec) -> Checkpoint | None:
    """The complete checkpoint of this job with the most samples, None if there is none.

    Unfinished and damaged ones are passed over with a warning in the log. Raises DataError if the
    newest belongs to another job.
    """
    for path in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        state = _read_state(path)
        if state is None:
            _log.warning("%s: not a complete checkpoint, trying an older one", path)
            continue
        made_by = _identity_of(path, state)
        if made_by != identity(spec):
            raise DataError(
                f"{path}: made by another job (identity {made_by}, this job is "
                f"{identity(spec)}): choose another folder, or remove it to start anew"
            )
        return _checkpoint(path, state)
    return None


def _identity_of(path: Path, state: Mapping[str, Any]) -> str:
    """The identity of the job that made a checkpoint, as today's schema reads that job.

    The digest that was written down knows nothing of fields that came later; their defaults mean
    what was before. It stands where the job can no longer be read.
    """
    try:
        return identity(JobSpec.model_validate_json((path / JOB).read_text(encoding="utf-8")))
    except ValidationError:
        return str(state["identity"])


def open_checkpoint(path: Path) -> tuple[Checkpoint, JobSpec]:
    """A checkpoint by its folder, with the job that made it. Raises DataError if it is none."""
    state = _read_state(path)
    if state is None:
        raise DataError(f"{path}: not a complete checkpoint: name a folder like {_PREFIX}000001024")
    spec = JobSpec.model_validate_json((path / JOB).read_text(encoding="utf-8"))
    return _checkpoint(path, state), spec


def _checkpoint(path: Path, state: Mapping[str, Any]) -> Checkpoint:
    frozen = {part: FrozenPart(**values) for part, values in state.get("frozen", {}).items()}
    return Checkpoint(path=path, progress=Progress(**state["progress"]), frozen=frozen)


def _write(
    folder: Path,
    spec: JobSpec,
    progress: Progress,
    tensors: Mapping[str, Tensor],
    frozen: Mapping[str, FrozenPart],
) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    weights = {k.removeprefix(_WEIGHT): v for k, v in tensors.items() if k.startswith(_WEIGHT)}
    rest = {k: v for k, v in tensors.items() if not k.startswith(_WEIGHT)}
    save_file(weights, folder / WEIGHTS)
    save_file(rest, folder / OPTIMIZER)
    (folder / JOB).write_text(json.dumps(spec.to_json(), indent=1), encoding="utf-8")
    sizes = {name: (folder / name).stat().st_size for name in (WEIGHTS, OPTIMIZER, JOB)}
    state = {
        "identity": identity(spec),
        "progress": asdict(progress),
        "frozen": {part: asdict(values) for part, values in frozen.items()},
        "sizes": sizes,
    }
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    for file in folder.iterdir():
        sync(file)
    sync(folder)


def _read_state(path: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        complete = all((path / n).stat().st_size == size for n, size in state["sizes"].items())
    except (OSError, ValueError, KeyError):
        return None
    return state if complete else None


def _load(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(file)
    return tensors


def _prune(folder: Path, policy: CheckpointSpec) -> None:
    """Remove what the policy does not keep, and what is no checkpoint at all."""
    states = {path: _read_state(path) for path in folder.glob(f"{_PREFIX}*")}
    found = {path: Progress(**state["progress"]) for path, state in states.items() if state}
    stays = kept(found.values(), policy)
    for path in states:
        if path not in found or found[path].samples not in stays:
            _remove(path)
    for leftover in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove(path: Path) -> None:
    """Rename first: a half-removed folder must not look like a checkpoint."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}.removed")
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
