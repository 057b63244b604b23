"""What can be known to fail before anything is made: folders, data paths, the tracking server."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from jobs.spec import DataSpec, JobSpec, SourceSpec
from jobs.spec.downstream import AnyJob, Evaluation, FinetuneSpec
from mir.errors import ConfigError, DataError
from orchestrator.eventlog import LOG_NAME
from orchestrator.ports import Capacity
from sweeps.secrets import UNREADABLE, without_password
from sweeps.spec import SweepSpec
from sweeps.storage import check_storage

_CONNECT_S = 3.0
_TRIES = 1000
_PORTS = {"http": 80, "https": 443}


def check_sweep(recipe: Path, spec: SweepSpec, folder: Path) -> None:
    """Raise ConfigError, DataError or UnreachableError for what `run` could not begin with.

    recipe: for messages. folder: of the study.
    """
    from orchestrator.fold import load_view
    from orchestrator.study_folder import require_same

    check_folder(folder)
    check_job(f"{recipe}: base.", spec.base)
    _check_choices(recipe, spec)
    check_tracking(spec.tracking.uri)
    if spec.study.storage is not None:
        check_storage(spec.study.storage)
    for field, url in (("study.storage", spec.study.storage), ("tracking.uri", spec.tracking.uri)):
        _check_database(f"{recipe}: {field}", url)
    log = folder / LOG_NAME
    if log.is_file() and log.stat().st_size:
        require_same(folder, load_view(folder).spec, spec)
        return
    for earlier in spec.study.warm_start:  # read once, when the log begins
        if not Path(earlier).is_dir():
            raise ConfigError(
                f"{recipe}: study.warm_start: {earlier} does not exist. Give the folder that "
                "`mirsweep run` printed"
            )


def _check_choices(recipe: Path, spec: SweepSpec) -> None:
    """Raise ConfigError or DataError for a source that only some of the trials would read."""
    from orchestrator.data_choices import PICTURES, data_choices

    for chosen in data_choices(spec).sources.values():
        if chosen.where:
            field = chosen.place if chosen.place == PICTURES else f"data.{chosen.place}"
            _check_source(f"{recipe}: where {chosen.where}: {field}", chosen.spec)


def _check_database(place: str, url: str | None) -> None:
    """Raise ConfigError where an SQLite file can neither be there nor be made."""
    scheme, _, path = (url or "").partition(":///")
    if scheme == "sqlite" and path and not Path(path).parent.is_dir():
        raise ConfigError(
            f"{place}: {url}: {Path(path).parent} does not exist. Make that folder, correct the "
            "path, or leave the field out to keep it in the study's folder"
        )


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless the study's folder exists and can be written, or can be made."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--folder: {folder} is a file. Give the path of a folder")
    there = existing(folder)
    if not there.is_dir():
        raise ConfigError(f"--folder: {folder}: {there} is a file. Give the path of a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--folder: {folder}: {there} cannot be written by this user. "
            "Choose a folder of your own with --folder"
        )


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_job(place: str, job: JobSpec) -> None:
    """Raise ConfigError or DataError where what the job reads cannot be used.

    place: what stands before the job's fields in messages, e.g. 'recipe.yaml: base.'.
    """
    check_data(f"{place}data", job.data)
    if job.score.images is not None:
        _check_source(f"{place}score.images", job.score.images)
    texts = job.score.texts.source
    if texts != "embedded" and not Path(texts).exists():
        raise ConfigError(
            f"{place}score.texts.source: {texts} does not exist. Name a text file (one text a "
            "line), a folder of .txt files, or 'embedded'"
        )


def check_any(place: str, spec: AnyJob) -> None:
    """The same for a job of any kind; fine-tunes and evaluations also need their start."""
    if isinstance(spec, JobSpec):
        check_job(place, spec)
        return
    if not Path(spec.start).exists():
        raise ConfigError(
            f"{place}start: {spec.start} does not exist. Name a checkpoint, or the folder of the "
            "job or trial that made it"
        )
    if isinstance(spec, FinetuneSpec):
        check_data(f"{place}data", spec.data)
    else:
        check_evaluation(place, spec)


def check_evaluation(place: str, evaluation: Evaluation) -> None:
    """Raise ConfigError or DataError where a source of an evaluation cannot be used."""
    for name in ("questions", "examples", "captions"):
        source = getattr(evaluation, name)
        if source is not None:
            _check_source(f"{place}{name}", source)


def check_data(place: str, data: DataSpec) -> None:
    """Raise ConfigError or DataError that names the first of the data which cannot be used.

    Every listing is read and one usable sample looked for in it: otherwise three trials would
    have to fail before the user hears of an empty file or a wrong image folder.
    """
    sources = {f"sources.{name}": source for name, source in data.sources.items()}
    for field, source in {**sources, "validation": data.validation}.items():
        _check_source(f"{place}.{field}", source)


def _check_source(place: str, spec: SourceSpec) -> None:
    from jobs.data.build import open_source
    from jobs.data.errors import BadSample
    from jobs.data.store import is_pattern, is_url
    from jobs.data.stream import permuted

    for name, value in (("path", spec.path), ("images", spec.images)):
        if value is None or is_url(value) or is_pattern(value):
            continue  # opening it says what is wrong
        if not Path(value).exists():
            raise ConfigError(
                f"{place}.{name}: {value} does not exist (looked from {Path.cwd()}). "
                "Correct the path, or run what fetches the data"
            )
    source = open_source(spec, place)
    tries = min(len(source), _TRIES)
    for attempt in range(tries):
        try:
            source[permuted(attempt, len(source), 0)]
            return
        except BadSample as bad:
            last = bad
    raise DataError(
        f"{place}: {spec.path or spec.kind}: none of the {tries} samples tried can be used "
        f"(the last: {last}). Mend the pictures and captions, or correct path and images"
    )


def check_tracking(uri: str | None) -> None:
    """Raise ConfigError where nothing answers at the address of a tracking server."""
    try:
        parts = urlsplit(uri or "")
        if parts.scheme not in _PORTS:
            return
        address = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        said = UNREADABLE if isinstance(error, ValueError) else error
        raise ConfigError(
            f"tracking.uri: {without_password(str(uri))} cannot be reached ({said}). "
            "Start the server, correct the address, or leave the field out to keep a local store"
        ) from error


def this_machine() -> Capacity:
    """Cores this process may use and NVIDIA devices present, without loading torch or Ray."""
    gpus = [d for d in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", d.name)]
    return Capacity(nodes=((float(len(os.sched_getaffinity(0))), float(len(gpus))),))
