"""The formula of mir.memory is a bound: measured as resident memory of a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("threads", "passes", "dtype"),
    [(2, 4, "float32"), (1, 1, "bfloat16")],
)
def test_scoring_takes_no_more_than_the_formula_says(threads, passes, dtype):
    command = [sys.executable, str(HERE / "memory_worker.py"), str(threads), str(passes), dtype]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # Below a quarter nothing was measured: the process had room from before.
    assert 0.25 * found["bound"] < found["over"] <= found["bound"], found
