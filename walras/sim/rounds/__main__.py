"""`python -m walras.sim.rounds`: the Shockwave trace under every policy, beside what was published."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from walras.core.errors import WalrasError
from walras.sim.rounds.published import COLUMNS, PUBLISHED
from walras.sim.rounds.study import gavel_study

TRACE = "shockwave/120_0.2_5_100_40_25_0,0.5,0.5_0.6,0.3,0.09,0.01_multigpu_dynamic.trace"
THROUGHPUTS = "shockwave/tacc_throughputs.json"
GPUS = 32
_ROW = "{:24} {:>10} {:>11} {:>9} {:>11} {:>12}"


def main() -> int:
    """Print a table; 1 when the data is not there or not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m walras.sim.rounds", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with shockwave/")
    parser.add_argument("--trace", default=TRACE, help="in that folder; the one of the paper without")
    parser.add_argument("--gpus", type=int, default=GPUS, help="of the cluster, 32 without")
    parser.add_argument("--seed", type=int, default=0, help="0 for the trace as it is; others shift arrivals")
    parser.add_argument("--policies", nargs="+", help="by name; all of them without")
    args = parser.parse_args()
    try:
        study = gavel_study(args.data / args.trace, args.data / THROUGHPUTS, args.gpus)
        published = PUBLISHED if (args.trace, args.gpus, args.seed) == (TRACE, GPUS, 0) else {}
        print(_ROW.format("policy", *COLUMNS))
        if published:
            print(_line("shockwave, published", published["shockwave"]))
        for policy in args.policies or study.policies:
            if policy in published:
                print(_line(f"{policy}, published", published[policy]))
            print(_line(policy, study.run(policy, seed=args.seed).metrics), flush=True)
    except WalrasError as fault:
        print(f"error: {fault.message}", file=sys.stderr)
        return 1
    return 0


def _line(name: str, metrics: Mapping[str, float]) -> str:
    makespan, jct, rho, unfair, used = (metrics[column] for column in COLUMNS)
    return _ROW.format(name, f"{makespan:.0f}", f"{jct:.0f}", f"{rho:.3f}", f"{unfair:.2f}", f"{used:.3f}")


if __name__ == "__main__":
    sys.exit(main())
