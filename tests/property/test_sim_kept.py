"""A pool that the compiled engine keeps against one that is decided from a whole snapshot each time."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from walras.core.errors import Invalid
from walras.market.engine.standing import Standing
from walras.market.types import Rules
from walras.sim.world import fuzz
from walras.sim.world.faults import Fault, Faults
from walras.sim.world.workload import Workload
from walras.sim.world.world import World, devices

# A run takes seconds, and each seed is a run of its own: there is nothing to make smaller.
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


def load_of(seed: int, gpus: int) -> tuple[Workload, Rules]:
    """Gangs of whole devices of all classes and with deadlines, more of them than there is room for."""
    chance = Random(seed)
    options = replace(
        fuzz.drawn(seed),
        gpus=gpus,
        jobs=chance.choice((20, 60, 90)),
        requests=chance.choice((0, 0, 200)),
        rogue_acts=0,
        patient=0,
    )
    load = fuzz._workload(options, chance)
    jobs = tuple(
        replace(
            job,
            gpus=chance.choice((1, 1, 1, 2, 4, 8)),
            gpus_min=0,
            milli=1000,
            job_class=chance.choice(("batch", "standard", "batch", "latency")),
        )
        for job in load.jobs
    )
    streams = tuple(replace(stream, milli=1000) for stream in load.streams)
    rules = Rules(
        quantum_ms=options.quantum_ms,
        notice_ms=options.notice_ms,
        tick_ms=options.tick_ms,
        epsilon_percent=options.epsilon_percent,
    )
    return replace(load, jobs=jobs, streams=streams), rules


def told(seed: int, mechanism: str, *, kept: bool, faults: bool) -> list[str]:
    """Every transition of a run, a line each, and what everybody has at its end."""
    gpus = Random(f"{seed}:gpus").choice((4, 8, 16, 24))
    load, rules = load_of(seed, gpus)
    world = World(load, mechanism, devices(gpus), rules=rules, kept=kept)
    if faults:
        failing = (Fault(20_000, "node", "node0", 30_000), Fault(40_000, "clock", for_ms=5_000))
        Faults(world, failing, Random(seed), price_max_micros=1)
    lines: list[str] = []
    world.auditor.tell, world.auditor.every = lines.append, 0
    world.run()
    assert (world.market._kept is not None) == kept
    return [*lines, *(f"{name} {world.bank.balance(name)}" for name in world.bank.weights)]


@pytest.mark.parametrize("mechanism", ["auction", "fifo"])
@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=12, deadline=None, phases=WITHOUT_SHRINKING)
def test_a_kept_pool_goes_the_way_of_one_that_is_looked_at_anew(
    mechanism: str, seed: int, faults: bool
) -> None:
    """Transition by transition, money included; with gangs for which room is kept, notices and renewals."""
    plain = told(seed, mechanism, kept=False, faults=faults)
    assert told(seed, mechanism, kept=True, faults=faults) == plain


def test_gangs_have_room_kept_for_them_in_what_is_compared() -> None:
    """Else the comparison would not be of escrows too."""
    seen = 0
    for seed in range(8):
        gpus = 8
        load, rules = load_of(seed, gpus)
        world = World(load, "auction", devices(gpus), rules=rules, kept=True)
        while world.step() is not None:
            seen += len(world.market._escrows)
    assert seen > 0


def test_a_bid_that_the_engine_does_not_know_has_the_pool_decided_plainly_from_then_on() -> None:
    """An elastic gang comes in the middle of a run."""
    load, rules = load_of(3, 8)
    middle = len(load.jobs) // 2
    jobs = [*load.jobs]
    jobs[middle] = replace(jobs[middle], gpus=4, gpus_min=2, deadline_ms=None)
    runs = []
    for kept in (False, True):
        lines: list[str] = []
        world = World(replace(load, jobs=tuple(jobs)), "auction", devices(8), rules=rules, kept=kept)
        world.auditor.tell = lines.append
        assert (world.market._kept is not None) == kept
        world.run()
        assert world.market._kept is None
        runs.append(lines)
    assert runs[0] == runs[1]


def test_only_whole_devices_that_are_alike_are_kept() -> None:
    pool = devices(4)
    Standing(pool, Rules(), ["a"], priced=True)
    with pytest.raises(Invalid, match="alike"):
        Standing((replace(pool[0], memory_mib=1), *pool[1:]), Rules(), ["a"], priced=True)
    half = tuple(replace(each, milli=500) for each in pool)
    fast = tuple(replace(each, speed_milli=2000) for each in pool)
    for odd in (half, fast):
        with pytest.raises(Invalid, match="whole"):
            Standing(odd, Rules(), ["a"], priced=True)
    with pytest.raises(Invalid, match="one price"):
        Standing(pool, Rules(payments="critical"), ["a"], priced=True)
