"""`scripts/differential`: compare the embedded API server with the real one, on requests from a seed."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from support import reference

from differential import every_type, known
from differential.running import Found, Outcome, Pair, pair, sides


def main() -> int:
    """0 where every difference is known, 1 where one is not, 2 without the real server."""
    parser = argparse.ArgumentParser(prog="scripts/differential", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="how many requests to compare")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="what the requests are made from")
    parser.add_argument(
        "--show", type=int, default=20, help="how many kinds of difference to print, smallest case first"
    )
    parser.add_argument(
        "--types",
        nargs="?",
        const="",
        metavar="PART",
        help="instead, objects of every built-in type, or of those with PART in their path",
    )
    parser.add_argument(
        "--rows", action="store_true", help="print also what each row of the known differences hid"
    )
    options = parser.parse_args()
    why = reference.missing("etcd", "kube-apiserver")
    if why:
        print(f"scripts/differential: {why}", file=sys.stderr)
        return 2
    if options.types is None:
        print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="differential-") as work:
        run = _run(Path(work), options) if options.types is None else _types(Path(work), options)
        return asyncio.run(run)


async def _run(work: Path, options: argparse.Namespace) -> int:
    table = known.table()
    async with pair(work, table) as servers:
        began = time.monotonic()
        seeds = (f"{options.seed}-{number}" for number in itertools.count(1))
        outcome = await servers.run(seeds, options.cases)
        took = time.monotonic() - began
        _print_rows(table, options)
        await _print(servers, outcome, options.show)
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(outcome.by_status.items()))
        print(
            f"{outcome.cases} cases in {took:.0f} s ({statuses}); {outcome.known} with a known difference, "
            f"{len(outcome.found)} scenarios with another one"
        )
    return 1 if outcome.found else 0


async def _types(work: Path, options: argparse.Namespace) -> int:
    """Every difference of a type that is not known, the first of each kind in full."""
    table, found = known.table(), []
    async with sides(work) as (theirs, ours):
        async for scenario, each in every_type.compare(theirs, ours, options.types):
            if not table.covers(each):
                found.append((scenario, each))
    counted = Counter(each.signature for _, each in found)
    for signature, count in counted.most_common(options.show):
        scenario, each = next(one for one in found if one[1].signature == signature)
        print(f"== {count} x {signature} ({scenario.seed})\n  {each}")
    _print_rows(table, options)
    print(f"{len(found)} differences that are not known")
    return 1 if found else 0


def _print_rows(table: known.Table, options: argparse.Namespace) -> None:
    if options.rows:
        print("\n".join(table.lines(options.show)), flush=True)


async def _print(servers: Pair, outcome: Outcome, most: int) -> None:
    """Differences by their signature, the most frequent first, each in its smallest case."""
    counted = Counter(found.group for found in outcome.found)
    for group, count in counted.most_common(most):
        found = next(found for found in outcome.found if found.group == group)
        print(f"== {count} x {group}")
        print(told(await servers.smallest(found)), flush=True)
    for group, count in counted.most_common()[most:]:
        print(f"== {count} x {group}")


def told(found: Found) -> str:
    """A difference with the requests that show it."""
    lines = []
    for step in found.scenario.steps:
        query = "&".join(f"{name}={value}" for name, value in step.query)
        body = step.body.decode("latin-1") if isinstance(step.body, bytes) else json.dumps(step.body)
        about = [f"{step.id}. {step.method} {step.path}{'?' + query if query else ''}"]
        about += [step.content_type] if body != "null" else []
        about += [f"accept {step.accept}"] if step.accept != "application/json" else []
        about += [f"answer {step.read} changed by"] if step.read is not None else []
        about += [body] if body != "null" else []
        lines.append("  " + " ".join(about)[:1200])
        if step.id == found.step.id:
            break
    return "\n".join([*lines, *(f"  {each}" for each in found.differences[:6])])


if __name__ == "__main__":
    sys.exit(main())
