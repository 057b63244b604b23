"""Why a name cannot be scored, in one line with what to do: transformers says it in many ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mir.errors import DataError, MirsweepError
from orchestrator.failures import one_line

_NO_PICTURES = re.compile(r"Unrecognized configuration class <class '(?:\w+\.)*(\w+)Config'>")


def require_folder(name: str) -> None:
    """A hub name has one slash at most; anything else that does not exist is a misspelt path.

    Raises DataError for such a path, and for a folder without a model's config.
    """
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
            raise DataError(f"{name}: there is no such folder; correct the path or give a hub name")
        return
    if (folder / "config.json").is_file():
        return
    trials = sorted(path.parent for path in folder.glob("trials/*/checkpoints"))
    if trials:
        raise DataError(f"{name}: is a study; give one of its trials, such as {trials[-1]}")
    raise DataError(
        f"{name}: cannot be loaded as the config of an image-text model: there is no config.json "
        "in it; the folder must hold an image-text model with its processor, or a checkpoint of "
        "mirsweep"
    )


@contextmanager
def in_one_line(name: str, what: str) -> Iterator[None]:
    """Turn the many errors of loading into one line with a remedy."""
    from safetensors import SafetensorError

    try:
        yield
    except MirsweepError:
        raise
    except SafetensorError as error:
        raise DataError(
            f"{_damaged(name) or name}: the weights are damaged or cut off "
            f"({_first_line(error)}); copy or download them again"
        ) from error
    except (
        OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError,
    ) as error:  # fmt: skip
        reason = _first_line(error)
        remedy = _remedy(name, str(error))
        raise DataError(f"{name}: cannot be loaded as {what}: {reason}; {remedy}") from error


def _damaged(name: str) -> Path | None:
    """The first file of weights in the folder that cannot be opened."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(Path(name).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                continue
        except SafetensorError:
            return path
    return None


def _first_line(error: Exception) -> str:
    text_only = _NO_PICTURES.search(str(error))
    if text_only is not None:
        return f"{text_only[1]} is a kind of model that does not read pictures beside text"
    lines = [one_line(line) for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:;") if lines else type(error).__name__


def _remedy(name: str, reason: str) -> str:
    if "trust_remote_code" in reason:
        return "it needs code of its own; add --trust-remote-code only if you trust it"
    if "pip install" in reason:
        return "install it into mirsweep's environment"
    if Path(name).is_dir():
        return "the folder must hold an image-text model with its processor"
    return (
        "give a folder of transformers, a checkpoint of mirsweep, or a hub name that is downloaded "
        "already (hf download NAME) or can be reached"
    )
