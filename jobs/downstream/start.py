"""Which checkpoint a job begins from, and what made it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from jobs.checkpoint import open_checkpoint
from jobs.spec import JobSpec
from jobs.spec.downstream import FinetuneSpec
from mir.errors import ConfigError, DataError

_CHECKPOINTS = "checkpoints"


def find_checkpoint(start: str) -> Path:
    """`start` itself, or the newest complete checkpoint in it or in its folder `checkpoints`.

    Raises DataError where there is none.
    """
    given = Path(start).expanduser()
    places = [given / _CHECKPOINTS, given]
    found = [path for place in places for path in sorted(place.glob("samples-*"), reverse=True)]
    for path in (given, *found):
        try:
            open_checkpoint(path)
        except DataError:
            continue
        return path.resolve()
    raise DataError(
        f"start: {start!r} is no complete checkpoint and holds none: name a folder like "
        "samples-000000001024, or a job's folder with its checkpoints"
    )


def finetune_job(spec: FinetuneSpec) -> JobSpec:
    """The training job of a fine-tune. Raises DataError for a bad start, ConfigError otherwise."""
    path = find_checkpoint(spec.start)
    try:
        return spec.job(str(path), open_checkpoint(path)[1])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{place}: {first['input']!r}: {first['msg']}") from error


def first_job(spec: JobSpec) -> JobSpec:
    """The pre-training job behind a job that began from a checkpoint, however often."""
    while spec.start is not None:
        spec = open_checkpoint(Path(spec.start))[1]
    return spec
