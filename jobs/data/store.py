"""Where files lie: on this machine, or in a store that fsspec reaches.

What a user names in a recipe may be read; what a data set names inside is looked for only below
the image folder that the recipe declares.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from PIL.Image import Image

from jobs.data.errors import BadSample
from jobs.data.images import MAX_FILE, decode_image, open_image, resolve_inside
from mir.errors import ClusterError, ConfigError

# Protocol: what brings it, None for what is always there.
PROTOCOLS: dict[str, str | None] = {
    "file": None,
    "memory": None,
    "s3": "mirsweep[cloud]",
    "gs": "mirsweep[cloud]",
}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAGIC = re.compile(r"[*?\[]")
_MAX_SHARDS = 100_000


def is_url(path: str) -> bool:
    """Whether `path` names its protocol, as in s3://bucket/key."""
    return "://" in path


def is_pattern(path: str) -> bool:
    """Whether `path` stands for several files: shard-{000..012}.tar or *.parquet."""
    return bool(_MAGIC.search(path) or _RANGE.search(path))


def local_path(path: str) -> Path | None:
    """The path on this machine, None where it is in a remote store."""
    if path.startswith("file://"):
        return Path(path.removeprefix("file://"))
    return None if is_url(path) else Path(path).expanduser()


def folder_of(path: str) -> str:
    """The folder in which the file of that name lies."""
    return path.rpartition("/")[0] if is_url(path) else str(Path(path).expanduser().parent)


def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def filesystem(path: str, field: str) -> tuple[Any, str]:
    """fsspec's file system of `path` and the path in it.

    Raises ConfigError for a protocol that is unknown or whose package is missing.
    """
    import fsspec

    local = local_path(path)
    if local is not None:
        return fsspec.filesystem("file"), str(local)
    protocol = path.partition("://")[0]
    if protocol not in PROTOCOLS or "::" in path:
        raise ConfigError(
            f"{field}: {path!r} cannot be read: give a local path or one of "
            f"{', '.join(f'{name}://' for name in PROTOCOLS)}"
        )
    try:
        system = fsspec.filesystem(protocol)
    except ImportError as error:
        raise ConfigError(
            f"{field}: {path!r} needs a package that is not installed ({error}): "
            f"pip install '{PROTOCOLS[protocol]}'"
        ) from error
    return system, str(system._strip_protocol(path))


def find_files(path: str, suffix: str, field: str) -> tuple[Any, list[str]]:
    """The files that `path` stands for, by name: a file, a folder's *suffix, a pattern, a range.

    Raises ConfigError where there are none.
    """
    system, inner = filesystem(path, field)
    found: list[str] = []
    for one in _ranges(inner, path, field):
        kind = "pattern" if _MAGIC.search(one) else kind_of(system, one, field)
        if kind == "file":
            found.append(one)
        elif kind in ("pattern", "directory"):
            pattern = one if kind == "pattern" else f"{one.rstrip('/')}/*{suffix}"
            details = told(lambda p: system.glob(p, detail=True), pattern, field)
            # A link is 'other' in a listing; what it leads to, only a second look tells.
            found += sorted(
                name
                for name, info in details.items()
                if info["type"] == "file" or (info["type"] == "other" and system.isfile(name))
            )
        else:
            raise ConfigError(f"{field}: {one!r} is no file: check the path")
    if not found:
        raise ConfigError(f"{field}: {path!r} holds no {suffix} files: check the path")
    return system, found


def open_listing(path: str, field: str) -> BinaryIO:
    """The file for reading here; a remote one is first copied to a nameless temporary file.

    Raises ConfigError where it is no file.
    """
    local = local_path(path)
    if local is not None:
        if not local.is_file():
            raise ConfigError(f"{field}: {path!r} is no file: check the path")
        return local.open("rb")
    system, inner = filesystem(path, field)
    if kind_of(system, inner, field) != "file":
        raise ConfigError(f"{field}: {path!r} is no file: check the path")
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the source that reads it
    with told(system.open, inner, field) as remote:
        shutil.copyfileobj(remote, copy)
    copy.seek(0)
    return copy


def kind_of(system: Any, path: str, field: str) -> str:
    """'file', 'directory', or something else where it is neither.

    Raises ConfigError where the store does not say, e.g. for want of a password.
    """

    def kind(inner: str) -> str:
        try:
            return str(system.info(inner)["type"])
        except FileNotFoundError:
            return "nothing"

    return str(told(kind, path, field))


def told(call: Any, path: str, field: str) -> Any:
    """`call(path)`; whatever a store raises becomes a ConfigError of one line."""
    try:
        return call(path)
    except Exception as error:  # every store has errors of its own
        text = " ".join(str(error).split()) or "no reason given"
        raise ConfigError(
            f"{field}: {path!r} cannot be read ({type(error).__name__}: {text}): "
            "check the address and your access to it"
        ) from error


class OpenFile:
    """An open local file that is read at any place from any thread, and closed when forgotten."""

    def __init__(self, handle: BinaryIO) -> None:
        """The same file as `handle`, which may then be closed."""
        self._descriptor = os.dup(handle.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes at `start`; fewer where the file ends."""
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self._descriptor, size, start)):
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return b"".join(parts)


def read_range(system: Any, path: str, start: int, size: int) -> bytes:
    """`size` bytes of a file at `start`; fewer where it ends.

    Raises FileNotFoundError, and ClusterError where a store that was there no longer answers.
    """
    if "file" in _protocols(system):
        with Path(path).open("rb") as handle:
            handle.seek(start)
            return handle.read(size)
    try:
        return bytes(system.cat_file(path, start=start, end=start + size))
    except FileNotFoundError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise ClusterError(f"{path}: the store failed ({type(error).__name__}: {text})") from error


class Folder(Protocol):
    """Pictures by name; nothing outside the folder can be named."""

    def picture(self, name: str, key: str) -> Image:
        """Raises BadSample (jobs/data/images.py says when)."""
        ...


def open_folder(path: str, field: str) -> Folder:
    """The folder of a source's pictures. Raises ConfigError where there is none."""
    local = local_path(path)
    if local is not None:
        if not local.is_dir():
            raise ConfigError(f"{field}: {path!r} is no folder: check the path")
        return _LocalFolder(local.resolve())
    return _RemoteFolder(*filesystem(path, field))


class _LocalFolder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def picture(self, name: str, key: str) -> Image:
        return open_image(resolve_inside(self._root, name, key), key)


class _RemoteFolder:
    def __init__(self, system: Any, root: str) -> None:
        self._system, self._root = system, root.rstrip("/")

    def picture(self, name: str, key: str) -> Image:
        path = posixpath.normpath(posixpath.join(self._root, name))
        if not path.startswith(f"{self._root}/"):
            raise BadSample("image path leaves the image folder", key)
        try:
            data = read_range(self._system, path, 0, MAX_FILE + 1)
        except FileNotFoundError as error:
            raise BadSample("image missing", key) from error
        return decode_image(data, key)


def _protocols(system: Any) -> tuple[str, ...]:
    names = system.protocol
    return (names,) if isinstance(names, str) else tuple(names)


def _ranges(inner: str, path: str, field: str) -> list[str]:
    """`a-{00..02}.tar` as three names, zeros kept; other paths as they are."""
    names = [inner]
    while _RANGE.search(names[0]):
        found = _RANGE.search(names[0])
        assert found is not None
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) * len(names) <= _MAX_SHARDS:
            raise ConfigError(
                f"{field}: {path!r}: {{{first}..{last}}} stands for {len(numbers) * len(names):,} "
                f"files: give 1 to {_MAX_SHARDS:,}"
            )
        texts = [str(number).zfill(len(first)) for number in numbers]
        names = [_RANGE.sub(text, name, count=1) for name in names for text in texts]
    return names
