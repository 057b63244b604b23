"""What can be known to fail before anything is made: folders, data paths, the tracking server."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from jobs.spec import DataSpec, SourceSpec
from mir.errors import ConfigError
from orchestrator.ports import Capacity

_CONNECT_S = 3.0
_PORTS = {"http": 80, "https": 443}


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless the study's folder exists and can be written, or can be made."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--folder: {folder} is a file. Give the path of a folder")
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"--folder: {folder}: {there} is a file. Give the path of a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--folder: {folder}: {there} cannot be written by this user. "
            "Choose a folder of your own with --folder"
        )


def check_data(place: str, data: DataSpec) -> None:
    """Raise ConfigError that names the first file or folder of the data which does not exist."""
    sources = {f"sources.{name}": source for name, source in data.sources.items()}
    for field, source in {**sources, "validation": data.validation}.items():
        _check_source(f"{place}.{field}", source)


def _check_source(place: str, source: SourceSpec) -> None:
    for name, value in (("path", source.path), ("images", source.images)):
        if value is not None and "://" not in value and not Path(value).exists():
            raise ConfigError(
                f"{place}.{name}: {value} does not exist (looked from {Path.cwd()}). "
                "Correct the path, or run what fetches the data"
            )


def check_tracking(uri: str | None) -> None:
    """Raise ConfigError where nothing answers at the address of a tracking server."""
    parts = urlsplit(uri or "")
    if parts.scheme not in _PORTS:
        return
    try:
        address = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        socket.create_connection(address, timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tracking.uri: {uri} cannot be reached ({error}). "
            "Start the server, correct the address, or leave the field out to keep a local store"
        ) from error


def this_machine() -> Capacity:
    """Cores this process may use and NVIDIA devices present, without loading torch or Ray."""
    gpus = [d for d in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", d.name)]
    return Capacity(nodes=((float(len(os.sched_getaffinity(0))), float(len(gpus))),))
