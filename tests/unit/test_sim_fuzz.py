"""Faults in virtual time, and that the search finds a market that breaks its promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from click.testing import CliRunner
from support.simulated import agent, job, played, world

from walras.cli.main import main
from walras.market.mechanisms.fifo import Fifo
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.types import Award, Outcome, Snapshot
from walras.sim.world import fuzz, market
from walras.sim.world.faults import Fault, Faults


def test_a_node_that_fails_ends_its_leases_at_once_and_serves_again_when_it_returns() -> None:
    pool = world("auction", 1, [agent("a")], [job("j", "a", 0, 100, checkpoint_ms=10_000)])
    Faults(pool, (Fault(35_500, "node", "node0", 20_000),), Random(1), price_max_micros=1)
    spent = []
    pool.noted = lambda: spent.append(pool.bank.spent("a"))
    (run,) = played(pool)
    assert run.evictions == 1
    # Begun at 1 s: 34.5 s ran, 30 are saved; it is back at 55.5 s and begins at the next tick.
    assert run.lost_milli_ms == 4_500 * 1000
    assert run.done_ms == 56_000 + 70_000
    # Not a micro for the time in which there was no device.
    assert pool.bank.spent("a") == sum(100_000 * ms // 3_600_000 for ms in (34_500, 60_000, 10_000))


def test_a_provider_that_vanishes_takes_its_nodes_for_good() -> None:
    pool = world("fifo", 16, [agent("a")], [job("j", "a", 0, 1)])
    Faults(pool, (Fault(5_000, "provider", "provider1"),), Random(1), price_max_micros=1)
    pool.run()
    assert {device.node for device in pool.market.devices} == {"node0"}


@pytest.mark.parametrize("jump_ms", [-30_000, 45_000])
def test_a_clock_that_jumps_neither_runs_back_nor_costs_work(jump_ms: int) -> None:
    pool = world("auction", 1, [agent("a")], [job("j", "a", 0, 100)])
    Faults(pool, (Fault(20_000, "clock", for_ms=jump_ms),), Random(1), price_max_micros=1)
    times: list[int] = []
    pool.noted = lambda: times.append(pool.at_ms)
    (run,) = played(pool)
    assert times == sorted(times)
    assert (run.evictions, run.done_ms) == (0, 101_000)


class Twice(Fifo):
    """Gives what it gives first a second time."""

    def clear(self, snapshot: Snapshot) -> Outcome:
        outcome = super().clear(snapshot)
        if outcome.awards and outcome.refusals:
            again = replace(outcome.awards[0], bid=outcome.refusals[0].bid)
            return replace(outcome, awards=(*outcome.awards, again), refusals=outcome.refusals[1:])
        return outcome


class Dear(Fifo):
    """Lets winners pay a micro more than they bid."""

    def clear(self, snapshot: Snapshot) -> Outcome:
        outcome = super().clear(snapshot)

        def dearer(award: Award) -> Award:
            return replace(award, price_micros=award.max_price_micros + 1)

        return replace(outcome, awards=tuple(map(dearer, outcome.awards)))


@pytest.mark.parametrize(
    ("broken", "said"), [(Twice, "oversold"), (Dear, "and bid"), (Fifo, "bids most and waits")]
)
def test_a_mechanism_that_breaks_a_promise_is_found(
    broken: Callable[[], Fifo], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market, "MECHANISMS", {"auction": broken(), "fifo": broken()})
    found = [fuzz.play(seed) for seed in range(120) if fuzz.drawn(seed).mechanism in ("auction", "fifo")]
    assert any(each is not None and said in each for each in found)


def test_a_seed_is_played_again_line_by_line() -> None:
    first: list[str] = []
    second: list[str] = []
    assert fuzz.play(11, first.append) is None
    assert fuzz.play(11, second.append) is None
    assert len(first) > 10 and first == second


def test_seeds_draw_every_mechanism_and_every_fault() -> None:
    options = [fuzz.drawn(seed) for seed in range(200)]
    assert len({each.mechanism for each in options}) == 10
    counts = Counter(
        name
        for each in options
        for name in ("node_failures", "vanishing", "clock_jumps", "rogue_acts", "patient")
        if getattr(each, name)
    )
    assert min(counts.values()) > 10


def test_the_command_tells_the_options_first_and_exits_1_for_a_broken_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fine = CliRunner().invoke(main, ["sim", "fuzz", "--seeds", "2"])
    assert fine.exit_code == 0 and fine.stdout == "2 seeds from 0 on broke no promise\n"
    monkeypatch.setattr(market, "MECHANISMS", dict.fromkeys(MECHANISMS, Dear()))
    found = CliRunner().invoke(main, ["sim", "fuzz", "--seeds", "50"])
    assert found.exit_code == 1
    assert found.stdout.startswith("seed=") and "AuditError" in found.stdout.splitlines()[-1]
