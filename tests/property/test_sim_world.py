"""The promises of the market in whole simulations, with faults; `walras sim fuzz` searches further."""

from __future__ import annotations

import pytest
from support.simulated import played

from walras.market.mechanisms.registry import MECHANISMS
from walras.sim.world import fuzz, standstill
from walras.sim.world.fuzz import play


@pytest.mark.parametrize("first", range(0, 48, 8))
def test_no_seed_breaks_a_promise(first: int) -> None:
    assert [play(seed) for seed in range(first, first + 8)] == [None] * 8


def ended(seed: int) -> object:
    """When its jobs and requests were done, and what everybody has."""
    world, _ = fuzz.world_of(fuzz.drawn(seed))
    jobs = [(run.first_ms, run.done_ms, run.evictions) for run in played(world)]
    balances = [world.bank.balance(name) for name in world.bank.weights]
    return jobs, [service.queue.latency_ms for service in world.services], balances


@pytest.mark.parametrize("first", range(48, 72, 8))
def test_a_run_with_every_clearing_is_the_same(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = [ended(seed) for seed in range(first, first + 8)]
    monkeypatch.setattr(standstill, "MOVING", frozenset(MECHANISMS))
    assert [ended(seed) for seed in range(first, first + 8)] == fewer
