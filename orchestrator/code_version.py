"""Which code runs: the commit where the packages come from a checkout, else the release."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def code_version() -> str:
    """e.g. '0.1.0+3f2a91c04d1e', with '.dirty' where tracked files were changed."""
    try:
        release = version("mirsweep")
    except PackageNotFoundError:
        release = "0"
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return release
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{release}+{commit}" + (".dirty" if changed else "")


def _git(*command: str) -> str | None:
    """What git says about the folder of this package; None outside of a checkout of its own."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *command],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
