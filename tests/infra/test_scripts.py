"""The two commands stop with one clear line when something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The little of a clone that the scripts read before anything is installed."""
    (tmp_path / "infra").mkdir()
    for name in ("lib.sh", "quickstart", "check", "constraints.txt"):
        shutil.copy(ROOT / "infra" / name, tmp_path / "infra" / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(clone: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "VIRTUAL_ENV"))}
    return subprocess.run(
        ["bash", f"infra/{script}"],
        cwd=clone, capture_output=True, text=True, timeout=120, check=False,
        env=clean | environment,
    )  # fmt: skip


def shadow(clone: Path, name: str, body: str) -> str:
    """A PATH in which one program is replaced by a script of ours."""
    folder = clone / "shadow"
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("script", ["quickstart", "check"])
def test_a_missing_python_is_named_with_the_remedy(clone: Path, script: str):
    for name in ("python3.11", "python3", "python"):
        path = shadow(clone, name, "exit 1")
    done = run(clone, script, PATH=path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "mirsweep: Python 3.11 is needed and was not found. Install it, or name it: "
        f"PYTHON=/path/to/python3.11 bash infra/{script}"
    ]
    assert not (clone / ".venv").exists()


def test_a_full_disk_is_seen_before_anything_is_made(clone: Path):
    path = shadow(clone, "df", "echo head; echo disk 9 9 2097152 9% /")
    done = run(clone, "quickstart", PATH=path, PYTHON=sys.executable)
    assert done.returncode == 1
    assert done.stderr.startswith("mirsweep: 6 GiB of free disk space are needed here, 2 GiB")
    assert not (clone / ".venv").exists()


def test_no_network_is_one_line_and_the_next_run_tries_again(clone: Path):
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    config = {"PIP_CONFIG_FILE": os.devnull, "PYTHON": sys.executable}
    for _ in range(2):
        done = run(clone, "check", **nowhere, **config)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "could not be installed: no network" in done.stderr
        assert ".venv/install.log" in done.stderr
