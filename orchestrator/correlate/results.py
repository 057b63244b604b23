"""What fine-tuning and evaluation found, kept in the study's folder.

`STUDY/correlate/<digest of the recipe>/` holds `recipe.yaml`, one `<trial>.json` a finished trial,
and the folders of trials at work. Another recipe has another folder, so results never mix.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from jobs.events import Evaluated
from jobs.features import FOLDER as FEATURES
from jobs.files import written_whole
from jobs.spec import Frozen, JobSpec
from jobs.spec.downstream import DownstreamSpec
from mir.errors import MirsweepError
from orchestrator.correlate.choose import Candidate

FOLDER = "correlate"


class Result(Frozen):
    """One trial's downstream scores. checkpoint: name of what was fine-tuned or evaluated, without
    its folder, as a study may be moved. job: which made it."""

    trial: int
    checkpoint: str
    job: JobSpec | None = None
    evaluated: Evaluated


class Results:
    """Reads and writes the results of one recipe. study: the study's folder."""

    def __init__(self, study: Path, recipe: DownstreamSpec) -> None:
        self.study = study
        text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
        new = study / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:12]
        self.folder = new if new.is_dir() else _begun(study, recipe) or new
        self._recipe = recipe

    def open(self) -> None:
        """Make the folder with the recipe in it."""
        from sweeps.recipe import dump_downstream

        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.folder / "recipe.yaml") as part:
            part.write_text(dump_downstream(self._recipe), encoding="utf-8")

    def work_folder(self, trial: int) -> Path:
        """Where a trial's fine-tune keeps its checkpoints and logs."""
        return self.folder / f"{trial:04d}"

    def get(self, candidate: Candidate) -> Result | None:
        """The result of this very checkpoint, None before there is one."""
        path = self._path(candidate.trial.number)
        if not path.exists():
            return None
        found = Result.model_validate_json(path.read_text(encoding="utf-8"))
        # Earlier versions put a digest before the name, and kept no job.
        same = Path(found.checkpoint).name == candidate.checkpoint.name
        return found if same and found.job in (None, candidate.trial.job) else None

    def put(self, candidate: Candidate, evaluated: Evaluated, *, keep: bool) -> Result:
        """Keep a result; the fine-tuned checkpoint goes unless it is to be kept."""
        number = candidate.trial.number
        result = Result(
            trial=number,
            checkpoint=candidate.checkpoint.name,
            job=candidate.trial.job,
            evaluated=evaluated,
        )
        with written_whole(self._path(number)) as part:
            part.write_text(result.model_dump_json(indent=1), encoding="utf-8")
        if not keep:
            for name in ("checkpoints", FEATURES):
                shutil.rmtree(self.work_folder(number) / name, ignore_errors=True)
        return result

    def _path(self, trial: int) -> Path:
        return self.folder / f"{trial:04d}.json"


def _begun(study: Path, recipe: DownstreamSpec) -> Path | None:
    """The folder of this very recipe from an earlier version, whose digest lacked newer fields."""
    from sweeps.recipe import load_downstream

    for path in sorted((study / FOLDER).glob("*/recipe.yaml")):
        try:
            if load_downstream(path) == recipe:
                return path.parent
        except MirsweepError:
            continue
    return None
