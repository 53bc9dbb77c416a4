"""Pools of several models: what jobs ask of them, how fast they run there, what the figures say of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.simulated import agent, job, played, stream
from support.simulated import world as alike

from walras.core.errors import Invalid
from walras.core.money import MICROS
from walras.market.types import Outcome, Rules, Share, Snapshot
from walras.sim.world.auditor import AuditError
from walras.sim.world.figures import Figures
from walras.sim.world.fleet import Fleet, mixed
from walras.sim.world.recorder import Recorder
from walras.sim.world.workload import Job, Workload
from walras.sim.world.world import World

SPEEDS = {"V100": 1000, "K80": 200}


def world(
    mechanism: str, v100: int, k80: int, jobs: list[Job], asking: str = "speeds", reserve: int = MICROS // 10
) -> World:
    devices = mixed({name: n for name, n in (("V100", v100), ("K80", k80)) if n}, SPEEDS)
    load = Workload((agent("a"),), tuple(jobs), (), 600_000)
    return World(load, mechanism, devices, asking=asking, rules=Rules(reserve_micros=reserve))


def test_a_job_that_says_nothing_is_as_fast_as_the_pool_says_of_the_device_that_it_has() -> None:
    fast, slow = played(world("auction", 1, 1, [job("j", "a", 0, 60), job("k", "a", 0, 60)]))
    assert fast.done_ms is not None and slow.done_ms is not None
    assert fast.done_ms - (fast.first_ms or 0) == 60_000
    assert slow.done_ms - (slow.first_ms or 0) == 300_000


def test_a_job_with_speeds_of_its_own_takes_as_long_as_they_say() -> None:
    own = job("j", "a", 0, 60, speeds=(("K80", 500),))
    (run,) = played(world("auction", 1, 1, [own]))
    assert run.done_ms is not None and run.done_ms - (run.first_ms or 0) == 120_000


def test_as_a_server_does_a_bid_has_a_package_for_each_speed_priced_by_it_the_fastest_first() -> None:
    made = world("fifo", 1, 1, [])
    packages, speeds = made.fleet.offers(job("j", "a", 0, 60))
    assert speeds == (1000, 200)
    assert [package.eligible for package in packages] == [frozenset({"V100-0"}), frozenset({"K80-0"})]


def test_asked_for_by_own_speed_the_model_on_which_a_job_is_fastest_comes_first() -> None:
    fleet = Fleet(mixed({"V100": 1, "K80": 1}, SPEEDS), "own")
    packages, speeds = fleet.offers(job("j", "a", 0, 60, speeds=(("V100", 300), ("K80", 900))))
    assert speeds == (900, 300) and packages[0].eligible == frozenset({"K80-0"})


def test_asked_for_whatever_comes_a_bid_has_one_package_at_the_price_of_the_slowest() -> None:
    fleet = Fleet(mixed({"V100": 1, "K80": 1}, SPEEDS), "any")
    packages, speeds = fleet.offers(job("j", "a", 0, 60))
    assert speeds == (200,) and [package.eligible for package in packages] == [None]


def test_a_gang_over_several_models_is_as_fast_on_each_as_on_the_slowest() -> None:
    fleet = Fleet(mixed({"V100": 1, "K80": 1}, SPEEDS), "any")
    gang = job("j", "a", 0, 60, gpus=2)
    assert fleet.rate_milli(gang, (Share("V100-0", 1000, 1), Share("K80-0", 1000, 1)), 2000) == 400


def test_a_job_whose_models_the_pool_has_not_is_never_served() -> None:
    (run,) = played(world("auction", 1, 0, [job("j", "a", 0, 60, speeds=(("H200", 1000),))]))
    assert run.done_ms is None and run.first_ms is None


def test_at_a_price_two_jobs_have_the_model_each_that_it_gains_most_by() -> None:
    likes_old = job("j", "a", 0, 60, speeds=(("V100", 1000), ("K80", 900)))
    likes_new = job("k", "a", 0, 60, speeds=(("V100", 1000), ("K80", 50)))
    old, new = played(world("auction", 1, 1, [likes_old, likes_new], "own", MICROS))
    assert new.done_ms is not None and new.done_ms - (new.first_ms or 0) == 60_000
    assert old.done_ms is not None and old.done_ms - (old.first_ms or 0) == 66_667


def test_the_lease_of_a_slow_device_costs_by_its_speed() -> None:
    made = world("auction", 1, 1, [job("j", "a", 0, 60), job("k", "a", 0, 60)])
    prices: set[tuple[str, int]] = set()
    made.noted = lambda: prices.update(
        (holding.lease.shares[0].device, holding.lease.max_price_micros) for holding in made.market.leases
    )
    made.run()
    assert prices == {("V100-0", 2 * MICROS), ("K80-0", 2 * MICROS * 200 // 1000)}


def test_figures_say_of_each_model_what_was_leased_and_what_did_work() -> None:
    made = world("auction", 1, 1, [job("j", "a", 0, 60), job("k", "a", 0, 60)])
    recorder = Recorder(made, 60_000)
    made.noted = recorder.note
    made.run()
    metrics = Figures(made, recorder).metrics()
    assert metrics["utilisation_V100"] == pytest.approx(60 / 600, rel=0.01)
    assert metrics["utilisation_K80"] == pytest.approx(300 / 600, rel=0.01)
    assert metrics["utilisation"] == pytest.approx(360 / 1200, rel=0.01)
    # 120 s of work, where the pool could do 1.2 times 600 s.
    assert metrics["goodput_pct"] == pytest.approx(100 * 120 / 720, rel=0.01)
    assert metrics["allocation_pct_K80"] == pytest.approx(50, abs=0.5)


def test_finish_time_fairness_compares_with_the_same_part_of_every_model() -> None:
    made = world("auction", 1, 1, [job("j", "a", 0, 60, speeds=(("V100", 1000), ("K80", 200)))])
    made.run()
    assert made.tally.alone_ms.tolist() == [60_000 * 1000 // 600]


def test_the_auditor_finds_a_lease_on_a_device_that_was_not_asked_for() -> None:
    made = world("auction", 1, 1, [job("j", "a", 0, 60, speeds=(("V100", 1000),))])
    decided = made.auditor.decided

    def other(snapshot: Snapshot, outcome: Outcome) -> None:
        awards = tuple(
            replace(each, shares=(replace(each.shares[0], device="K80-0"),)) for each in outcome.awards
        )
        decided(snapshot, replace(outcome, awards=awards))

    made.market.observe = other
    with pytest.raises(AuditError, match="does not ask for"):
        made.run()


def test_requests_are_refused_where_devices_are_unlike() -> None:
    load = Workload((agent("a"),), (), (stream("a", [0], [10]),), 1_000)
    with pytest.raises(Invalid, match="one model"):
        World(load, "auction", mixed({"V100": 1, "K80": 1}, SPEEDS))


def test_devices_of_one_model_as_fast_as_the_reference_give_what_they_gave_without_a_name() -> None:
    jobs = [job(f"j{n}", "a", n, 20 + n, gpus=1 + n % 2) for n in range(12)]
    named = mixed({"H100": 2})
    plain = World(Workload((agent("a"),), tuple(jobs), (), 600_000), "auction", named)
    by_name = [run.done_ms for run in played(plain)]
    assert by_name == [run.done_ms for run in played(alike("auction", 2, [agent("a")], jobs))]
