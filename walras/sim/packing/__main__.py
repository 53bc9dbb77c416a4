"""`python -m walras.sim.packing --data DIR`: the study's table, one policy on one workload a line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from walras.core.errors import WalrasError
from walras.sim.packing.study import POLICIES
from walras.sim.packing.table import HEADER, LOAD, WORKLOADS, rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m walras.sim.packing", description="The openb study.")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with openb/ and, if there is one, fgd/"
    )
    parser.add_argument("--seeds", type=int, default=10, help="runs of each (10)")
    parser.add_argument(
        "--load", type=float, default=LOAD, help="what arrives, 1.3 for 130%% of the GPUs (1.3)"
    )
    parser.add_argument("--workload", action="append", help=f"of {', '.join(WORKLOADS)}; all of them")
    parser.add_argument("--policy", action="append", help=f"of {', '.join(POLICIES)}; all of them")
    given = parser.parse_args(arguments)
    try:
        print(HEADER)
        for row in rows(
            given.data,
            workloads=given.workload or WORKLOADS,
            policies=given.policy or POLICIES,
            seeds=given.seeds,
            load=given.load,
        ):
            print(row.line(), flush=True)
    except WalrasError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
