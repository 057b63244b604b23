"""Scores as files: a MirReport with the name of what was scored."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from jobs.files import written_whole
from mir.errors import ConfigError, DataError
from mir.report import MirReport


@dataclass(frozen=True, kw_only=True)
class Score:
    """A report and what it is a score of."""

    model: str
    report: MirReport


def write_score(score: Score, path: Path) -> None:
    """Write the report as JSON, with `model` and `fingerprint` beside its own fields."""
    data = {"model": score.model, "fingerprint": score.report.fingerprint}
    with written_whole(path) as part:
        part.write_text(json.dumps({**data, **score.report.to_json()}, indent=1) + "\n")


def read_score(path: Path) -> Score:
    """A file that `write_score` or `MirReport.to_json` wrote; DataError if it is not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Score(model=str(data.get("model", path.stem)), report=MirReport.from_json(data))
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; make it with mirsweep score --json") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a score ({error}); make it with mirsweep score --json"
        ) from error


def check_writable(option: str, path: Path | None, endings: tuple[str, ...] = ()) -> None:
    """Raise ConfigError now, not after an hour of scoring, if the file could not be written."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a folder; name a file in it")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option}: {path} may not be written to; name a file somewhere else")
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(f"{option}: {path} must end in {', '.join(endings)}")
