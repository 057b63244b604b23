"""The option `--memory`: a way of keeping tokens by name, or the most that they may take."""

from __future__ import annotations

import re
from typing import cast, get_args

from mir.errors import ConfigError
from mir.memory import Memory

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(MB|MiB|GB|GiB)")
_UNITS = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


def choose_memory(text: str) -> Memory | int:
    """A way of keeping tokens by name, or the most bytes that they may take, as `4GiB`.

    Raises ConfigError for anything else.
    """
    size = _SIZE.fullmatch(text)
    if size is not None:
        return int(float(size[1]) * _UNITS[size[2]])
    for name in get_args(Memory):
        if name == text:
            return cast("Memory", name)
    names = ", ".join(get_args(Memory))
    raise ConfigError(f"{text!r} is not one of {names}, nor a size such as 4GiB or 500MB")


def size_text(size: int) -> str:
    """Bytes as `choose_memory` reads them."""
    return f"{size / 2**30:g}GiB" if size >= 2**30 else f"{size / 2**20:g}MiB"
