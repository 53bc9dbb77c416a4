"""Inference beside training under every policy: a line for each, means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Final

from walras.core.errors import NotFound
from walras.core.money import HOUR_MS
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.strategies.registry import STRATEGIES
from walras.market.types import Rules
from walras.sim.sharing.load import mixed
from walras.sim.sharing.published import read
from walras.sim.world.figures import Figures
from walras.sim.world.recorder import Recorder
from walras.sim.world.workload import Workload
from walras.sim.world.world import World, devices

# A mechanism, and behind a colon how agents with requests bid if that is not their worth.
POLICIES: Final = ("auction", "auction:slo", "priority", "fifo", "drf", "fairshare", "karma", "static")
OURS: Final = ("auction", "auction:slo")
# Of those that leave nothing idle which somebody asks for.
CONSERVING: Final = ("priority", "fifo", "drf", "fairshare", "karma")
# Who has to go has so long to save, under every policy that takes leases away, and no time for sure before.
RULES: Final = Rules(notice_ms=750, quantum_ms=0)
SAMPLE_MS: Final = 10_000

_COLUMNS: Final = (
    ("gpu_wait_p99_s", "p99 s to GPU", 2),
    ("slo_pct", "SLO met %", 1),
    ("request_p99_s", "p99 s a request", 1),
    ("goodput_pct", "training %", 1),
    ("allocation_pct", "leased %", 1),
    ("at_work_pct", "at work %", 1),
    ("jain", "Jain", 3),
    ("evictions", "evictions", 0),
    ("lost_pct", "lost %", 2),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One policy: means over seeds of the metrics of `walras sim run`, with `at_work_pct`, `serving_pct` (of
    the pool's time, what requests did) and `lost_pct` (and what went with jobs' leases)."""

    policy: str
    metrics: dict[str, float]

    def line(self) -> str:
        """The row as text, under `HEADER`."""
        shown = (f"{self.metrics[name]:>{len(title)}.{digits}f}" for name, title, digits in _COLUMNS)
        return f"{self.policy:<12} {'  '.join(shown)}"


HEADER: Final = f"{'policy':<12} {'  '.join(title for _, title, _ in _COLUMNS)}"


def rows(
    data: Path,
    *,
    policies: Sequence[str] = (),
    gpus: int = 64,
    minutes: int = 60,
    seeds: int = 1,
    checkpoint_ms: int = 0,
) -> Iterator[Row]:
    """One row at a time; of all policies where none is named.

    data: the folder with the traces. checkpoint_ms: how often jobs save; 0 saves on notice.

    Raises NotFound for a trace or policy that is not there, Invalid for a trace that cannot be read.
    """
    chosen = policies or POLICIES
    for policy in chosen:
        _check(policy)
    traces, span_ms = read(data), minutes * 60_000
    loads = [mixed(traces, gpus, span_ms, seed, checkpoint_ms=checkpoint_ms) for seed in range(seeds)]
    for policy in chosen:
        found = [play(load, policy, gpus) for load in loads]
        yield Row(policy, {name: fmean(each[name] for each in found) for name in found[0]})


def play(load: Workload, policy: str, gpus: int) -> dict[str, float]:
    """The metrics of one run."""
    mechanism, _, strategy = policy.partition(":")
    world = World(
        bidding(load, strategy),
        mechanism,
        devices(gpus),
        rules=RULES,
        until_ms=load.span_ms + load.span_ms // 4,
    )
    recorder = Recorder(world, SAMPLE_MS)
    world.noted = recorder.note
    world.run()
    figures = Figures(world, recorder)
    metrics, offered = figures.metrics(), max(1, recorder.offered_milli_ms)
    serving = sum(figures.useful_milli_ms[stream.agent] for stream in load.streams)
    return metrics | {
        "at_work_pct": 100 * metrics["utilisation"],
        "serving_pct": 100 * serving / offered,
        "lost_pct": 100 * HOUR_MS * 1000 * metrics["lost_gpu_h"] / offered,
    }


def bidding(load: Workload, strategy: str) -> Workload:
    """The same, with agents that serve bidding by that strategy, if one is named."""
    serve = {stream.agent for stream in load.streams} if strategy else set()
    agents = [replace(each, strategy=strategy) if each.name in serve else each for each in load.agents]
    return replace(load, agents=tuple(agents))


def summary(found: Iterable[Row]) -> Iterator[str]:
    """What training keeps under ours of what it does under the best of the others that leave nothing idle."""
    done = {row.policy: row.metrics["goodput_pct"] for row in found}
    rivals = [name for name in CONSERVING if name in done]
    if not rivals:
        return
    best = max(rivals, key=lambda name: done[name])
    for ours in OURS:
        if ours in done and done[best]:
            percent = 100 * done[ours] / done[best]
            yield f"under {ours} training does {percent:.1f} % of what it does under {best}"


def _check(policy: str) -> None:
    mechanism, colon, strategy = policy.partition(":")
    if mechanism not in MECHANISMS:
        raise NotFound(f'there is no policy "{policy}"; there are {", ".join((*POLICIES, *MECHANISMS))}')
    if colon and strategy not in STRATEGIES:
        raise NotFound(f'"{policy}" names no strategy; there are {", ".join(STRATEGIES)}')
