"""Jobs, requests, money and devices of a simulated pool, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulated import agent, job, played, stream, world

from walras.core.money import MICROS
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.types import Bid, Lease, Outcome, Rules, Snapshot
from walras.sim.traces import synthetic
from walras.sim.world import standstill
from walras.sim.world.auditor import AuditError
from walras.sim.world.leases import Holding
from walras.sim.world.queue import Queue
from walras.sim.world.study import WorldStudy
from walras.sim.world.workload import Workload
from walras.sim.world.world import World, devices


def test_a_job_that_is_alone_begins_at_the_next_tick_and_takes_its_work_by_its_devices() -> None:
    alone = world("fifo", 4, [agent("a")], [job("j", "a", 10, 240, gpus=4)])
    (run,) = played(alone)
    assert (run.first_ms, run.done_ms) == (10_000, 10_000 + 60_000)


def test_an_elastic_job_takes_what_there_is_and_is_slower_by_as_much() -> None:
    jobs = [job("big", "a", 0, 400, gpus=4, gpus_min=2), job("first", "b", 0, 300)]
    small = world("fifo", 3, [agent("a"), agent("b")], jobs[::-1])
    first, big = played(small)
    assert (first.done_ms, big.done_ms) == (1_000 + 300_000, 1_000 + 200_000)


def test_an_eviction_takes_the_work_since_the_last_checkpoint_along() -> None:
    """The urgent one comes at 100 s; notice is 2 s, so the other has run 101 s, of which 90 are saved."""
    jobs = [
        job("slow", "a", 0, 300, worth=1, checkpoint_ms=30_000, restart_ms=4_000),
        job("urgent", "b", 100, 50, worth=9, job_class="latency"),
    ]
    both = world("auction", 1, [agent("a"), agent("b")], jobs)
    slow, urgent = played(both)
    assert slow.evictions == 1
    assert urgent.first_ms == 102_000
    assert urgent.done_ms == 152_000
    assert slow.lost_milli_ms == 11_000 * 1000
    assert slow.done_ms == 152_000 + 4_000 + 210_000


def test_a_job_that_waits_beyond_its_deadline_is_given_up() -> None:
    jobs = [job("long", "a", 0, 500), job("late", "b", 1, 10, deadline_ms=60_000)]
    crowded = world("fifo", 1, [agent("a"), agent("b")], jobs)
    assert [run.given_up for run in played(crowded)] == [False, True]
    assert not crowded.market.pending


def test_what_a_lease_costs_goes_through_revenue_and_comes_back_by_weight() -> None:
    """One device for ten terms of a minute at the reserve of 0.10 an hour; nobody has an income."""
    agents = [agent("a", weight=1), agent("b", weight=3)]
    pool = world("auction", 1, agents, [job("j", "a", 0, 600)])
    pool.run()
    pool.bank.pay(pool.at_ms)
    cost = 10 * (60 * MICROS // 10 // 3600)
    gained = pool.bank.balance("b") - 1000 * MICROS
    assert abs(gained - cost * 3 // 4) <= 10
    assert pool.bank.balance("a") + pool.bank.balance("b") == 2000 * MICROS


def test_income_stops_at_the_wallet_cap() -> None:
    poor = agent("a", balance_micros=0, cap_micros=MICROS, income_micros_per_hour=60 * MICROS)
    pool = world("fifo", 1, [poor], [job("j", "a", 599, 1)])
    pool.run()
    assert pool.bank.balance("a") == MICROS


def naive(arrivals: list[int], works: list[int], replicas: int) -> list[int]:
    """Each in order to the replica that is free first: the textbook's G/G/c queue."""
    free = [0] * replicas
    latencies = []
    for came, work in zip(arrivals, works, strict=True):
        at = free.index(min(free))
        free[at] = max(free[at], came) + work
        latencies.append(free[at] - came)
    return latencies


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 3_000)), min_size=1, max_size=40),
    st.integers(1, 4),
    st.lists(st.integers(0, 20_000), max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_a_queue_that_is_played_in_pieces_is_the_textbooks(
    requests: list[tuple[int, int]], replicas: int, pauses: list[int]
) -> None:
    requests.sort(key=lambda each: each[0])
    arrivals, works = [came for came, _ in requests], [work for _, work in requests]
    queue = Queue(stream("a", arrivals, works))
    for number in range(replicas):
        queue.add(number, 0)
    for until_ms in [*sorted(pauses), 10**9]:
        queue.play(until_ms)
    assert queue.latency_ms == naive(arrivals, works, replicas)
    assert not queue.waits(10**9)


def test_a_request_whose_replica_goes_is_answered_by_another_from_the_start() -> None:
    queue = Queue(stream("a", [0, 10], [100, 100]))
    queue.add(1, 0)
    queue.play(50)
    queue.remove(1, 60)
    assert queue.latency_ms == [-1, -1]
    queue.add(2, 200)
    queue.play(10_000)
    assert queue.latency_ms == [300, 390]
    assert queue.useful_ms(350) == 150


def test_a_service_has_a_replica_at_once_and_gives_it_back_when_nothing_comes() -> None:
    arrivals = list(range(0, 60_000, 100))
    pool = world("auction", 4, [agent("a", worth=5)], [], [stream("a", arrivals, [60] * len(arrivals))])
    pool.run()
    service = pool.services[0]
    assert max(service.waits_ms) == 0
    assert max(service.queue.latency_ms) < 2_000
    assert not service.replicas


def test_a_replica_has_the_place_of_a_job_when_its_notice_is_over_and_not_at_a_tick() -> None:
    load = Workload(
        (agent("a", worth=9), agent("b")),
        (job("j", "b", 0, 300, worth=1),),
        (stream("a", list(range(60_000, 90_000, 500)), [100] * 60),),
        100_000,
    )
    pool = World(load, "auction", devices(1), rules=Rules(notice_ms=750))
    assert [run.evictions for run in played(pool)] == [1]
    assert pool.services[0].waits_ms == [750]


def test_a_bid_that_is_taken_back_has_waited_too() -> None:
    """All devices are a job's. A burst needs three replicas; what then waits of it needs one."""
    burst = stream("a", list(range(30_000, 40_000, 100)), [100] * 100)
    long = job("j", "b", 0, 270, gpus=3)
    pool = world("fifo", 3, [agent("a"), agent("b")], [long], [burst], span_s=60)
    service = pool.services[0]
    while pool.now_ms < 60_000:
        pool.step()
    assert len(service.waits_ms) == 2
    assert all(5_000 <= wait_ms < 25_000 for wait_ms in service.waits_ms)
    pool.run()
    assert 55_000 < service.waits_ms[-1] < 62_000


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_mechanism_serves_a_mixed_load_and_the_books_hold(mechanism: str) -> None:
    spec = synthetic.parse("minutes=3,serving=1,training=2,job_s_min=20,job_s_max=120")
    study = WorldStudy(lambda gpus, load, chance: synthetic.source(spec, gpus, load, chance), devices(4))
    result = study.run(mechanism, seed=3, load=1.2, progress=lambda _: None)
    assert 30 < result.metrics["allocation_pct"] <= 100
    assert 0 < result.metrics["utilisation"] <= result.metrics["allocation_pct"] / 100
    assert all(len({len(column) for column in each.columns.values()}) == 1 for each in result.series.values())


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_clearing_that_is_left_out_would_have_decided_the_same(
    mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = synthetic.parse("minutes=4,serving=1,training=3,job_s_min=20,job_s_max=200")
    study = WorldStudy(lambda gpus, load, chance: synthetic.source(spec, gpus, load, chance), devices(2))
    fewer = study.run(mechanism, seed=4, load=1.5, progress=lambda _: None)
    monkeypatch.setattr(standstill, "MOVING", frozenset(MECHANISMS))
    every = study.run(mechanism, seed=4, load=1.5, progress=lambda _: None)
    assert fewer == every


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    spec = synthetic.parse("minutes=2")
    study = WorldStudy(lambda gpus, load, chance: synthetic.source(spec, gpus, load, chance), devices(4))
    runs = [study.run("auction", seed=seed, load=1.5, progress=lambda _: None) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0].metrics != runs[2].metrics


def test_the_auditor_finds_a_device_that_is_sold_twice_and_money_from_nowhere() -> None:
    pool = world("fifo", 1, [agent("a")], [job("j", "a", 0, 100)])
    while not list(pool.market.leases):
        pool.step()
    lease = next(iter(pool.market.leases)).lease
    twice = replace(lease, id="again", shares=lease.shares * 2)
    pool.market.leases._held["again"] = Holding(twice, bid_of(lease), None, 2000)  # type: ignore[arg-type]
    pool.market.leases._note(twice)
    with pytest.raises(AuditError, match="oversold"):
        pool.step()
    other = world("fifo", 1, [agent("a")], [job("j", "a", 0, 100)])
    other.step()
    other.bank.ledger.accounts["a"].credits_posted += 1
    with pytest.raises(AuditError, match="in the ledger"):
        other.run()


@pytest.mark.parametrize("how", ["one more", "one less", "another state", "other devices"])
def test_the_auditor_adds_everything_up_and_finds_what_nobody_told_it(how: str) -> None:
    """The market says which leases an event touches; here one changes and it says nothing."""
    pool = world("fifo", 2, [agent("a")], [job("j", "a", 0, 100)])
    while not list(pool.market.leases):
        pool.step()
    held, lease = pool.market.leases._held, next(iter(pool.market.leases)).lease
    if how == "one less":
        held.clear()
    elif how == "one more":
        held["again"] = Holding(replace(lease, id="again"), bid_of(lease), None, 1000)  # type: ignore[arg-type]
    else:
        shares = (replace(lease.shares[0], device="gpu1"),)
        other = replace(lease, state="draining") if how == "another state" else replace(lease, shares=shares)
        held[lease.id].lease = other
    pool.step()
    with pytest.raises(AuditError, match="nobody said so"):
        pool.auditor.close()


def bid_of(lease: Lease) -> Bid:
    return Bid(lease.bid, lease.agent, lease.job_class, (), 0, 0, 0)


def test_load_is_what_was_asked_for() -> None:
    for seed in range(3):
        source = synthetic.source(synthetic.parse("minutes=60"), 16, 1.3, Random(seed))
        assert source.work_ms == pytest.approx(1.3 * 16 * 3_600_000, rel=0.05)


def test_by_latency_a_replica_is_worth_something_only_where_requests_wait() -> None:
    """Under "slo" the first replicas are bid for at their worth, one more for headroom at little."""
    arrivals = [*range(0, 60_000, 150), *range(60_000, 150_000, 60)]
    serving = agent("a", worth=5, strategy="slo")
    pool = world("auction", 4, [serving], [], [stream("a", arrivals, [100] * len(arrivals))], span_s=150)
    bids: list[tuple[int, int]] = []
    observe = pool.market.observe

    def watch(snapshot: Snapshot, outcome: Outcome) -> None:
        observe(snapshot, outcome)
        bids.extend((snapshot.now_ms, bid.packages[0].price_micros) for bid in snapshot.bids)

    pool.market.observe = watch
    pool.run()
    first = min(now_ms for now_ms, _ in bids)
    assert {price for now_ms, price in bids if now_ms == first} == {5 * MICROS}
    later = [price for now_ms, price in bids if now_ms > first]
    assert pool.market.rules.reserve_micros <= max(later) < 5 * MICROS // 2
    assert max(pool.services[0].queue.latency_ms) < 2_000
