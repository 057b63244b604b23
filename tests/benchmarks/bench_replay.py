"""What do search and stopping save on recorded curves? Writes a table and a picture.

    python tests/benchmarks/bench_replay.py infra/curves/real-cpu.json --trials 16 \
        --out infra/benchmarks/replay.md --picture infra/pictures/replay.png

Every policy runs 20 times (seeds 0 to 19) under the controller as it is, with simulated jobs that
have the curves of the table and fresh noise of the size of each standard error.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from orchestrator.budget import unit
from orchestrator.commands.replay import policy_of, read_table
from orchestrator.replay.compare import Policy
from orchestrator.replay.run import replay
from orchestrator.views.replay import cells, replay_picture

POLICIES = {
    "random, no stopping": ("random", "none"),
    "TPE, median": ("tpe", "median"),
    "TPE, hyperband": ("tpe", "hyperband"),
    "GP, no stopping": ("gp", "none"),
    "GP, median": ("gp", "median"),
    "random, ASHA": ("random", "successive-halving"),
}


def main() -> None:
    """Replay every policy and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--append", action="store_true", help="keep what the page already holds")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    table, began, policies = read_table(args.table), time.process_time(), []
    for name, (sampler, stop) in POLICIES.items():
        spec = policy_of(table, sampler, stop, args.trials, ["stop.infeasible_patience=0"])
        outcomes = [replay(table, spec, seed, args.at_once) for seed in range(args.seeds)]
        policies.append(Policy(name, tuple(outcomes)))
        print(" | ".join(cells(policies[-1])), flush=True)
    hours = unit(table.spec.resources)
    if args.picture:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        replay_picture(policies, hours, "MIR", args.picture)
    if args.out:
        head = ("policy", "best MIR, median (quartiles)", f"{hours} used", "saved")
        rows = [[*head, f"{hours} to within 1 % of the best recorded"], ["---"] * 5]
        rows += [cells(policy) for policy in policies]
        kind = "recorded" if args.table.endswith(".json") else "made-up"
        text = (
            f"Command: `{' '.join(['python', *sys.argv])}` ({time.process_time() - began:.0f} s of "
            f"one core, Python {platform.python_version()}): {len(table.trials)} {kind} curves, "
            f"{args.trials} trials a replay, {args.at_once} at once, {args.seeds} seeds.\n\n"
        )
        text += "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
        before = args.out.read_text(encoding="utf-8") + "\n" if args.append else ""
        args.out.write_text(before + text, encoding="utf-8")


if __name__ == "__main__":
    main()
