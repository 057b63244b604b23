"""Recipes and jobs as YAML files: read, check everything at once, resolve paths, write.

Relative paths in a file are relative to the file's own folder, so a recipe means the same
wherever it is started from; they become absolute here, once. `model.vision`, `model.language` and
what a random model is made of are paths if such a file or folder exists or the name begins with
'.', '/' or '~'; otherwise they are hub names and stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from jobs.spec import Frozen, JobSpec
from jobs.spec.batch import split_batch
from jobs.spec.downstream import KINDS, AnyJob, DownstreamSpec
from mir.errors import ConfigError
from sweeps.document import Document, FieldPath, read_document
from sweeps.guard import guard_mistakes
from sweeps.mistakes import Mistake, from_pydantic, refusal
from sweeps.space import parse_space
from sweeps.spec import SweepSpec
from sweeps.start import point_mistakes

_FILES = ("warm_start", "path", "images", "source", "answers", "start")
_MODELS = ("vision", "language", "random", "tokenizer", "image_processor")
_SPLIT = {"workers", "micro_batch", "global_batch"}
_CACHE_NAMES = ("auto", "off")
_URLS = ("storage", "uri")
_SQLITE = "sqlite:///"
Spec = TypeVar("Spec", bound=Frozen)


def load_recipe(path: str | Path) -> SweepSpec:
    """Read a sweep. Raises ConfigError: file, line, field, value, remedy, in one line."""
    document = read_document(path)
    sweep, mistakes = _validate(SweepSpec, document)
    base, space = _base(document), document.data.get("space")
    if sweep is not None:
        mistakes += sweep_mistakes(sweep)
    elif base is not None and isinstance(space, dict):
        mistakes += parse_space(base, space)[1]
    if mistakes or sweep is None:
        raise refusal(document, mistakes)
    return _resolved(SweepSpec, sweep, document.folder)


def sweep_mistakes(sweep: SweepSpec) -> list[Mistake]:
    """What its fields alone do not show: where parts of a sweep do not fit each other."""
    mistakes = parse_space(sweep.base, sweep.space, sweep.resources.workers)[1]
    mistakes += guard_mistakes(sweep.study.guard) + _split_mistakes(sweep)
    return mistakes or point_mistakes(sweep)


def load_job(path: str | Path) -> JobSpec:
    """Read a job. Raises ConfigError: file, line, field, value, remedy, in one line."""
    return _load(JobSpec, read_document(path))


def load_any_job(path: str | Path) -> AnyJob:
    """Read a job of any kind: without `kind` it pre-trains. Raises ConfigError as `load_job`."""
    document = read_document(path)
    if "kind" not in document.data:
        return load_job(path)
    model = KINDS.get(str(document.data["kind"]))
    if model is None:
        text = f"{document.data['kind']!r} is refused. Known: {', '.join(KINDS)}; none to pre-train"
        raise refusal(document, [Mistake(("kind",), text)])
    return _load(model, document)


def load_downstream(path: str | Path) -> DownstreamSpec:
    """Read the one recipe of `correlate`. Raises ConfigError as `load_job` does."""
    return _load(DownstreamSpec, read_document(path))


def _load(model: type[Spec], document: Document) -> Spec:
    spec, mistakes = _validate(model, document)
    if mistakes or spec is None:
        raise refusal(document, mistakes)
    return _resolved(model, spec, document.folder)


def dump_job(spec: JobSpec) -> str:
    """YAML that `load_job` takes; every field is written, so later defaults change nothing."""
    return _dump(spec)


def dump_recipe(spec: SweepSpec) -> str:
    """YAML that `load_recipe` takes; every field is written."""
    return _dump(spec)


def dump_downstream(spec: DownstreamSpec) -> str:
    """YAML that `load_downstream` takes; every field is written."""
    return _dump(spec)


def _dump(spec: Frozen) -> str:
    data = spec.model_dump(mode="json")
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _validate(model: type[Spec], document: Document) -> tuple[Spec | None, list[Mistake]]:
    try:
        spec = model.model_validate(document.data)
    except ValidationError as error:
        return None, from_pydantic(error, model, document.data)
    return spec, _truths_for_numbers(document.data, spec.model_dump(), ())


def _split_mistakes(sweep: SweepSpec) -> list[Mistake]:
    """A batch that the ranks cannot share, where neither varies; the space checks what does."""
    space, resources = sweep.space, sweep.resources
    varied = space.get("resources"), *(space.get(name) for name in ("deepspeed", "optim"))
    if any(isinstance(part, dict) and _SPLIT & set(part) for part in varied):
        return []
    try:
        optim, engine = sweep.base.optim, sweep.base.deepspeed
        split_batch(optim.global_batch, resources.workers, engine.micro_batch)
    except ConfigError as error:
        return [Mistake(("resources", "workers"), str(error))]
    return []


def _base(document: Document) -> JobSpec | None:
    """The base alone, so that mistakes elsewhere do not hide those in the space."""
    try:
        return JobSpec.model_validate(document.data.get("base"))
    except ValidationError:
        return None


def _truths_for_numbers(given: Any, read: Any, path: FieldPath) -> list[Mistake]:
    """Where true or false stands for a number: pydantic would take them for 1 and 0."""
    if isinstance(given, bool) and not isinstance(read, bool):
        text = f"{str(given).lower()} is refused: it should be a number."
        return [Mistake(path, text)]
    pairs: list[tuple[str | int, Any, Any]] = []
    if isinstance(given, dict) and isinstance(read, dict):
        pairs = [(name, given[name], read.get(name)) for name in given]
    elif isinstance(given, list) and isinstance(read, list | tuple):
        pairs = [(i, *pair) for i, pair in enumerate(zip(given, read, strict=False))]
    return [m for name, a, b in pairs for m in _truths_for_numbers(a, b, (*path, name))]


def _resolved(model: type[Spec], spec: Spec, folder: Path) -> Spec:
    return model.model_validate(_resolve(spec.model_dump(mode="json"), "", folder))


def _resolve(value: Any, field: str, folder: Path) -> Any:
    """Make the paths among the values absolute; `field` is the name of the enclosing field."""
    if isinstance(value, dict):
        return {
            name: _resolve(inner, field if name == "choices" else name, folder)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        # The start of a fine-tune is a path; those of a study are a list of points.
        inside = "" if field == "start" else field
        return [_resolve(inner, inside, folder) for inner in value]
    if not isinstance(value, str) or value == "embedded":
        return value
    if field in _FILES and "://" in value:  # a store's address, such as s3://bucket/key
        return value
    if field in _URLS:
        return _resolve_url(value, folder)
    if field == "feature_cache":
        return value if value in _CACHE_NAMES else _absolute(value, folder)
    if field in _FILES or (field in _MODELS and _is_there(value, folder)):
        return _absolute(value, folder)
    return value


def _absolute(value: str, folder: Path) -> str:
    return str((folder / Path(value).expanduser()).resolve())


def _is_there(value: str, folder: Path) -> bool:
    return value.startswith((".", "/", "~")) or (folder / value).exists()


def _resolve_url(value: str, folder: Path) -> str:
    """Relative SQLite files would be other files in every process's own folder."""
    rest = value.removeprefix(_SQLITE)
    if rest == value or rest.startswith("/") or rest in ("", ":memory:"):
        return value
    return _SQLITE + str((folder / rest).resolve())
