"""From a spec to an open source of samples, or to the texts of MIR's text side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobs.data.files import FileSource, Record, read_json_lines, read_llava
from jobs.data.sample import Source
from jobs.spec import SourceSpec, TextsSpec
from mir.errors import ConfigError, DataError

Opener = Callable[[SourceSpec, str], Source]


def open_source(spec: SourceSpec, field: str = "data.sources") -> Source:
    """Open a source; `field` says in messages which part of the recipe it came from.

    Raises ConfigError for missing or misplaced settings, DataError for a file that cannot be used
    or holds no sample.
    """
    source = OPENERS[spec.kind](spec, field)
    if len(source) == 0:
        raise DataError(f"{field}: {spec.path or spec.kind} holds no samples: give it at least one")
    return source


def open_texts(spec: TextsSpec) -> list[str]:
    """The unrelated texts, in a fixed order: lines of a file, or files of a folder by name.

    Raises ConfigError where there is no such file or folder, DataError where it holds no text.
    """
    if spec.source == "embedded":
        from jobs.world.texts import embedded_texts

        return list(embedded_texts())
    path = Path(spec.source).expanduser()
    if not path.exists():
        raise ConfigError(
            f"score.texts.source: {spec.source!r} does not exist: name a text file (one text a "
            "line), a folder of .txt files, or 'embedded'"
        )
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    texts = [_read_text(file) for file in files]
    lines = texts if path.is_dir() else [line for text in texts for line in text.splitlines()]
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"score.texts.source: {spec.source!r} holds no text: add some")
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}): save the file as UTF-8") from error


def _open_scenes(spec: SourceSpec, field: str) -> Source:
    from jobs.world.source import STYLES, WorldSource

    for name in ("path", "images"):
        if getattr(spec, name) is not None:
            raise ConfigError(
                f"{field}.{name}: {getattr(spec, name)!r} is not read by kind 'scenes': "
                "remove it, or use kind 'jsonl' or 'llava'"
            )
    if spec.style is None:
        raise ConfigError(f"{field}.style: missing: kind 'scenes' needs one of {', '.join(STYLES)}")
    try:
        return WorldSource(spec.style, spec.split, spec.size)
    except ConfigError as error:
        raise ConfigError(f"{field}.{error}") from error


def _opener(read: Callable[[Path], list[Record]]) -> Opener:
    def open_file(spec: SourceSpec, field: str) -> Source:
        for name in ("style", "size"):
            if getattr(spec, name) is not None:
                raise ConfigError(
                    f"{field}.{name}: {getattr(spec, name)!r} is read only by kind 'scenes': "
                    "remove it"
                )
        if spec.path is None:
            raise ConfigError(f"{field}.path: missing: kind {spec.kind!r} needs the file's path")
        path = Path(spec.path).expanduser()
        if not path.is_file():
            raise ConfigError(f"{field}.path: {spec.path!r} is no file: check the path")
        images = path.parent if spec.images is None else Path(spec.images).expanduser()
        if not images.is_dir():
            raise ConfigError(f"{field}.images: {spec.images!r} is no folder: check the path")
        return FileSource(read(path), images)

    return open_file


def _open_questions(spec: SourceSpec, field: str) -> Source:
    from jobs.world.asked import open_questions

    return open_questions(spec, field)


def _open_vqa(spec: SourceSpec, field: str) -> Source:
    from jobs.data.vqa import open_vqa

    return open_vqa(spec, field)


OPENERS: dict[str, Opener] = {
    "scenes": _open_scenes,
    "jsonl": _opener(read_json_lines),
    "llava": _opener(read_llava),
    "questions": _open_questions,
    "vqa": _open_vqa,
}
