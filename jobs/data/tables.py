"""Hugging Face's datasets: folders saved to disk, and parquet files.

The `datasets` library keeps both as Arrow files that are mapped into memory, parquet after a
conversion into its cache folder, so that any row is read without reading its neighbours.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from jobs.data.errors import BadSample
from jobs.data.images import decode_image
from jobs.data.listing import check_caption
from jobs.data.sample import Sample, Source
from jobs.data.store import (
    Folder,
    filesystem,
    find_files,
    folder_of,
    is_pattern,
    local_path,
    name_of,
    open_folder,
    told,
)  # fmt: skip
from jobs.files import remove_abandoned, written_whole
from jobs.spec import SourceSpec
from mir.errors import ConfigError, DataError


class TableSource:
    """Rows of a table; a picture is bytes, or a path below the image folder."""

    def __init__(self, table: Any, fields: tuple[str, str], images: Folder, name: str) -> None:
        """table: a datasets.Dataset. fields: its columns of picture and caption."""
        self._image, self._caption = fields
        self._rows = table.select_columns(list(fields))
        self._captions = table.select_columns([self._caption])
        self._images, self._name = images, name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Raises BadSample for a picture or caption that cannot be used."""
        key = self._key(index)
        row = self._rows[index]
        text = check_caption(row[self._caption], key)
        return Sample(image=self._picture(row[self._image], key), caption=text, key=key)

    def caption(self, index: int) -> str:
        """The caption alone. Raises BadSample."""
        key = self._key(index)
        return check_caption(self._captions[index][self._caption], key)

    def _key(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"no sample {index} of {len(self)}")
        return f"{self._name}[{index}]"

    def _picture(self, cell: Any, key: str) -> Any:
        if isinstance(cell, dict):
            cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        if isinstance(cell, bytes):
            return decode_image(cell, key)
        if not isinstance(cell, str) or not cell:
            raise BadSample("no image in the row", key)
        return self._images.picture(cell, key)


def open_saved(spec: SourceSpec, field: str) -> Source:
    """A folder of `save_to_disk`. Raises ConfigError, and DataError where it cannot be read."""
    assert spec.path is not None
    local = local_path(spec.path)
    if local is not None:
        if not local.is_dir():
            raise ConfigError(f"{field}.path: {spec.path!r} is no folder: check the path")
        return _open_folder(local, spec, field)
    # Arrow maps the copies, so they last as long as the source, and no longer, even if killed.
    with tempfile.TemporaryDirectory(prefix="mirsweep-") as copy:
        _fetch_folder(spec.path, Path(copy), f"{field}.path")
        return _open_folder(Path(copy), spec, field)


def _open_folder(folder: Path, spec: SourceSpec, field: str) -> Source:
    import datasets

    assert spec.path is not None
    _refuse_foreign_files(folder, spec.path)
    table = _loaded(spec.path, lambda: datasets.load_from_disk(str(folder)))
    if isinstance(table, datasets.DatasetDict):
        if spec.split not in table:
            raise ConfigError(
                f"{field}.split: {spec.split!r} is not in {spec.path}; it has: {', '.join(table)}"
            )
        table = table[spec.split]
    return _source(table, spec, spec.path, field)


def _fetch_folder(path: str, copy: Path, field: str) -> None:
    """Copy what a saved data set consists of; each key must stay below the folder as a path."""
    system, inner = filesystem(path, field)
    keys = [key for key in told(system.find, inner, field) if key.endswith((".json", ".arrow"))]
    if not keys:
        raise ConfigError(f"{field}: {path!r} is no folder of a saved data set: check the path")
    for key in keys:
        target = copy / key.removeprefix(inner).lstrip("/")
        if not target.resolve().is_relative_to(copy.resolve()):
            raise DataError(f"{path}: names {key!r}, which lies outside it")
        target.parent.mkdir(parents=True, exist_ok=True)
        told(partial(system.get_file, lpath=str(target)), key, field)


def open_parquet(spec: SourceSpec, field: str) -> Source:
    """Parquet files. Raises ConfigError, and DataError where they cannot be read."""
    assert spec.path is not None
    import datasets

    system, files = find_files(spec.path, ".parquet", f"{field}.path")
    name = name_of(files[0])
    if local_path(spec.path) is None:
        cache = Path(datasets.config.HF_DATASETS_CACHE) / "mirsweep"
        files = [told(lambda f: _fetched(system, f, cache), f, f"{field}.path") for f in files]
    table = _loaded(
        spec.path, lambda: datasets.load_dataset("parquet", data_files=files, split="train")
    )
    whole = name != name_of(spec.path) and not is_pattern(spec.path)
    return _source(table, spec, spec.path if whole else folder_of(spec.path), field)


def _fetched(system: Any, path: str, cache: Path) -> str:
    """A copy of a remote file; `datasets` itself would refuse to fetch in Hugging Face's offline
    mode, which has nothing to do with the user's own store."""
    identity = f"{system.unstrip_protocol(path)} {system.ukey(path)}"
    target = cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.parquet"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        remove_abandoned(cache)
        with (
            written_whole(target) as part,
            system.open(path, "rb") as remote,
            part.open("wb") as copy,
        ):
            shutil.copyfileobj(remote, copy)
    return str(target)


def _source(table: Any, spec: SourceSpec, folder: str, field: str) -> TableSource:
    import datasets

    fields = (spec.image_field or "image", spec.caption_field or "caption")
    for option, column in zip(("image_field", "caption_field"), fields, strict=True):
        if column not in table.column_names:
            raise ConfigError(
                f"{field}.{option}: no column {column!r} in {spec.path}; "
                f"it has: {', '.join(table.column_names)}"
            )
    kind = getattr(table.features[fields[1]], "dtype", "list")
    if kind not in ("string", "large_string"):
        raise ConfigError(
            f"{field}.caption_field: column {fields[1]!r} of {spec.path} holds {kind}, not text: "
            "name another column"
        )
    if isinstance(table.features[fields[0]], datasets.Image):
        table = table.cast_column(fields[0], datasets.Image(decode=False))
    assert spec.path is not None
    images = open_folder(spec.images or folder, f"{field}.images")
    # Arrow trusts what it maps: offsets in a broken file would point anywhere.
    columns = table.select_columns(list(fields)).data
    _loaded(spec.path, lambda: columns.validate(full=True))
    return TableSource(table, fields, images, name_of(spec.path.rstrip("/")))


def _loaded(path: str, load: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it says stands in our one line
    try:
        return load()
    except Exception as error:  # datasets and Arrow have many of their own
        cause = error.__cause__ or error
        text = " ".join(str(cause).split())[:300]
        raise DataError(
            f"{path}: cannot be read ({type(cause).__name__}: {text}): write it again"
        ) from error


def _refuse_foreign_files(folder: Path, path: str) -> None:
    """A saved data set names its splits and files; they must lie in its folder.

    path: what the user calls the folder.
    """
    for listing in (*folder.rglob("dataset_dict.json"), *folder.rglob("state.json")):
        place = f"{path}: {listing.relative_to(folder)}"
        try:
            told = json.loads(listing.read_text(encoding="utf-8"))
            names = [str(name) for name in told.get("splits") or []]
            names += [str(entry["filename"]) for entry in told.get("_data_files") or []]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataError(f"{place}: not what save_to_disk writes ({error})") from error
        for name in names:
            if not (listing.parent / name).resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{place}: names {name!r}, which lies outside it")
