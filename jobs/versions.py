"""What code a job ran on, for the tracker."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("mirsweep", "torch", "transformers", "deepspeed", "safetensors", "numpy", "pillow")


@cache
def versions() -> dict[str, str]:
    """Version by package name, and `commit` where the code is a git checkout.

    A commit ends in '+changes' if files differ from it. Packages that are not installed, such as
    mirsweep itself when it is run from a folder, are left out.
    """
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _commit(Path(__file__).resolve().parent.parent)
    return {**found, "commit": commit} if commit else found


def _commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        return None
    return f"{head}+changes" if _git(root, "status", "--porcelain", "-uno") else head


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
