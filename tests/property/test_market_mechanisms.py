"""Every mechanism over many ticks against a naive account of devices, and each one's own idea of fair."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.core.money import charge
from walras.market.mechanism import Mechanism
from walras.market.mechanisms.drf import Drf
from walras.market.mechanisms.fairshare import FairShare, decayed
from walras.market.mechanisms.karma import Karma, pour
from walras.market.mechanisms.posted import PostedPrice
from walras.market.mechanisms.priority import Priority
from walras.market.mechanisms.proportional import ProportionalShare
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.mechanisms.static import StaticSplit, parts
from walras.market.placement import startable
from walras.market.types import (
    AgentFacts,
    Bid,
    Device,
    JobClass,
    Lease,
    Memory,
    Outcome,
    Package,
    Reason,
    Rules,
    Share,
    Snapshot,
)

CREDIT = 1_000_000
HOUR = 3_600_000
CLASSES: tuple[JobClass, ...] = ("latency", "standard", "batch")
OTHERS = sorted(set(MECHANISMS) - {"auction"})
WORK_CONSERVING = ("fifo", "priority", "drf", "fairshare", "finishtime")
PRICED = ("posted", "proportional")


class World:
    """A pool with agents that bid at random; it does what outcomes say and believes none of them."""

    def __init__(self, seed: int, mechanism: Mechanism) -> None:
        self.random, self.mechanism = random.Random(seed), mechanism
        self.now, self.made, self.price, self.memory = 1_000_000, 0, 0, Memory()
        self.rules = Rules(quantum_ms=3_000, notice_ms=2_000)
        memories = self.random.choices((16_000, 80_000), k=self.random.randint(1, 4))
        self.devices = tuple(Device(f"d{i}", "n", "m", i, memory) for i, memory in enumerate(memories))
        self.facts = {f"a{i}": AgentFacts(weight=self.random.randint(1, 3)) for i in range(4)}
        self.funds = dict.fromkeys(self.facts, CREDIT // 20)
        self.leases: dict[str, Lease] = {}
        self.bids: dict[str, Bid] = {}
        self.seen: Counter[str] = Counter()

    def run(self, steps: int) -> World:
        for _ in range(steps):
            self.step()
        return self

    def step(self) -> None:
        self.now += self.rules.tick_ms
        for lease in list(self.leases.values()):
            drained = lease.drains_at_ms is not None and lease.drains_at_ms <= self.now
            if drained or (lease.state == "active" and self.random.random() < 0.05):
                del self.leases[lease.id]
        for lease in list(self.leases.values()):
            if lease.state == "reserved" and startable(lease, self.leases.values(), self.devices):
                end_ms = self.now + lease.term_ms
                self.leases[lease.id] = replace(lease, state="active", start_ms=self.now, end_ms=end_ms)
        self.check_devices()
        for _ in range(self.random.randint(0, 3)):
            bid = self.new_bid()
            self.bids[bid.id] = bid
            if bid.job_class == "latency":
                snapshot = self.snapshot()
                outcome = self.mechanism.express(snapshot, bid.id)
                assert [*(a.bid for a in outcome.awards), *(r.bid for r in outcome.refusals)] == [bid.id]
                assert outcome.memory == snapshot.memory and not outcome.renewals
                self.apply(snapshot, outcome)
        snapshot = self.snapshot()
        outcome = self.mechanism.clear(snapshot)
        assert outcome == self.mechanism.clear(snapshot)
        decided = [*(award.bid for award in outcome.awards), *(each.bid for each in outcome.refusals)]
        assert sorted(decided) == sorted(bid.id for bid in snapshot.bids)
        horizon = self.now + self.rules.notice_ms + self.rules.tick_ms
        due = {each.id for each in snapshot.leases if each.state == "active" and each.end_ms <= horizon}
        renewed = {renewal.lease for renewal in outcome.renewals}
        ended = {displacement.lease for displacement in outcome.displacements}
        assert renewed | ended >= due >= renewed and not renewed & ended
        self.apply(snapshot, outcome)
        self.memory, self.price = outcome.memory, outcome.price_micros
        self.check_nothing_idle(outcome)
        for bid_id in [bid_id for bid_id in self.bids if self.random.random() < 0.1]:
            del self.bids[bid_id]

    def new_bid(self) -> Bid:
        self.made += 1
        chance = self.random
        packages = tuple(
            Package(
                devices=chance.choice((1, 1, 1, 2, 5)),
                milli_gpu=chance.choice((100, 250, 330, 500, 810, 1000)),
                memory_mib=chance.choice((0, 0, 2_000, 15_000, 40_000)),
                term_ms=chance.choice((4_000, 10_000, 60_000)),
                price_micros=chance.randint(0, 2 * CREDIT),
                eligible=chance.choice((None, None, frozenset({"d0", "d1"}))),
            )
            for _ in range(chance.choice((1, 1, 2)))
        )
        return Bid(
            id=f"b{self.made}",
            agent=chance.choice(sorted(self.funds)),
            job_class=chance.choice(CLASSES),
            packages=packages,
            restart_cost_micros=0,
            submitted_ms=self.now,
            funds_micros=0,
            deadline_ms=chance.choice((None, None, self.now + 3_000)),
            priority=chance.choice((0, 0, 5)),
        )

    def snapshot(self) -> Snapshot:
        return Snapshot(
            now_ms=self.now,
            rules=self.rules,
            devices=self.devices,
            leases=tuple(replace(each, funds_micros=self.funds[each.agent]) for each in self.leases.values()),
            bids=tuple(replace(each, funds_micros=self.funds[each.agent]) for each in self.bids.values()),
            price_micros=self.price,
            agents=self.facts,
            memory=self.memory,
        )

    def apply(self, snapshot: Snapshot, outcome: Outcome) -> None:
        spent: Counter[str] = Counter()
        for renewal in outcome.renewals:
            lease = self.leases[renewal.lease]
            assert renewal.price_micros <= lease.max_price_micros and renewal.end_ms > lease.end_ms
            spent[lease.agent] += charge(renewal.price_micros, lease.total_milli, lease.term_ms)
            price = renewal.price_micros
            self.leases[lease.id] = replace(lease, end_ms=renewal.end_ms, price_micros=price)
        for displacement in outcome.displacements:
            lease = self.leases[displacement.lease]
            assert lease.state == "active" and displacement.drains_at_ms >= self.now + self.rules.notice_ms
            drains_at_ms = displacement.drains_at_ms
            self.leases[lease.id] = replace(lease, state="draining", drains_at_ms=drains_at_ms)
            self.seen[f"drain {displacement.reason}"] += 1
        for award in outcome.awards:
            bid = self.bids.pop(award.bid)
            package = bid.packages[award.package]
            assert award.price_micros <= package.price_micros
            assert len({share.device for share in award.shares}) == len(award.shares) == package.devices
            for share in award.shares:
                assert share.milli == package.milli_gpu and share.memory_mib >= package.memory_mib
                assert package.eligible is None or share.device in package.eligible
            spent[bid.agent] += award.cost_micros
            self.seen["award now" if award.starts_now else "award later"] += 1
            lease_id = f"l{bid.id}"
            self.leases[lease_id] = Lease(
                id=lease_id,
                bid=bid.id,
                agent=bid.agent,
                job_class=bid.job_class,
                shares=award.shares,
                price_micros=award.price_micros,
                max_price_micros=package.price_micros,
                restart_cost_micros=0,
                term_ms=award.term_ms,
                start_ms=self.now,
                end_ms=self.now + award.term_ms,
                funds_micros=0,
                state="active" if award.starts_now else "reserved",
                priority=bid.priority,
            )
        assert all(micros <= self.funds[agent] for agent, micros in spent.items())
        for refusal in outcome.refusals:
            self.seen[f"refuse {refusal.explanation.reason}"] += 1
        self.check_devices()

    def used(self, device: str, *states: str) -> tuple[int, int]:
        shares = [
            share
            for lease in self.leases.values()
            for share in lease.shares
            if lease.state in states and share.device == device
        ]
        return sum(share.milli for share in shares), sum(share.memory_mib for share in shares)

    def check_devices(self) -> None:
        for device in self.devices:
            for states in (("active", "draining"), ("active", "reserved")):
                milli, memory = self.used(device.id, *states)
                assert milli <= device.milli and memory <= device.memory_mib

    def check_nothing_idle(self, outcome: Outcome) -> None:
        """What was refused for want of room alone finds none."""
        for refusal in outcome.refusals:
            if refusal.explanation.reason is Reason.NO_CAPACITY and not isinstance(
                self.mechanism, StaticSplit
            ):
                assert not self.fits(self.bids[refusal.bid].packages[refusal.explanation.package])

    def fits(self, package: Package) -> bool:
        fitting = 0
        for device in self.devices:
            milli, memory = self.used(device.id, "active", "reserved")
            needed = package.memory_mib or device.memory_mib * package.milli_gpu // device.milli
            allowed = package.eligible is None or device.id in package.eligible
            enough = package.milli_gpu <= device.milli - milli and needed <= device.memory_mib - memory
            fitting += allowed and enough
        return fitting >= package.devices


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("seed", range(4))
def test_no_device_is_oversold_and_every_wish_is_answered(name: str, seed: int) -> None:
    World(seed, MECHANISMS[name]).run(40)


@pytest.mark.parametrize("name", WORK_CONSERVING)
def test_those_that_promise_to_leave_nothing_idle_refuse_for_want_of_room_alone(name: str) -> None:
    seen = World(7, MECHANISMS[name]).run(60).seen
    assert seen["refuse NoCapacity"] and seen["award now"]
    assert not {key for key in seen if key.startswith("refuse")} - {
        "refuse NoCapacity",
        "refuse TooLarge",
        "refuse NoDevice",
        "refuse Expired",
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_posted_price_that_would_win_wins(seed: int) -> None:
    world, checked = World(seed, PostedPrice()), 0
    for _ in range(30):
        world.step()
        for _ in range(3):
            bid = world.new_bid()
            world.bids[bid.id] = bid
        snapshot = replace(world.snapshot(), price_micros=CREDIT)
        for refusal in PostedPrice().clear(snapshot).refusals:
            why = refusal.explanation
            if why.winning_price_micros is not None:
                checked += 1
                bid = next(each for each in snapshot.bids if each.id == refusal.bid)
                packages = list(bid.packages)
                packages[why.package] = replace(packages[why.package], price_micros=why.winning_price_micros)
                raised = replace(bid, packages=tuple(packages))
                bids = tuple(raised if each.id == bid.id else each for each in snapshot.bids)
                outcome = PostedPrice().clear(replace(snapshot, bids=bids))
                assert bid.id in {award.bid for award in outcome.awards}
    assert checked


def pool(
    milli: int, memory_mib: int, bids: list[Bid], facts: dict[str, AgentFacts] | None = None
) -> Snapshot:
    """One large device, so that nothing is lost to fragments."""
    device = Device("d0", "n", "m", 0, memory_mib, milli)
    return Snapshot(1_000_000, Rules(), (device,), (), tuple(bids), 0, agents=facts or {})


def task(agent: str, number: int, milli: int, memory_mib: int, price: int = CREDIT) -> Bid:
    package = Package(1, milli, memory_mib, 60_000, price)
    return Bid(f"{agent}-{number:02}", agent, "batch", (package,), 0, 0, 10 * CREDIT)


TASKS = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 3_000), st.integers(1, 12)), min_size=2, max_size=4
)


def count(outcome: Outcome) -> Counter[str]:
    return Counter(award.bid.split("-")[0] for award in outcome.awards)


@given(TASKS)
@settings(max_examples=100, deadline=None)
def test_drf_gives_everybody_what_an_equal_part_would_and_nobody_wants_anothers(
    shapes: list[tuple[int, int, int]],
) -> None:
    """Sharing incentive and envy-freeness, each up to what indivisible tasks leave over."""
    milli, memory = 1_000, 10_000
    agents = {f"a{i}": shape for i, shape in enumerate(shapes)}
    bids = [task(agent, n, each[0], each[1]) for agent, each in agents.items() for n in range(each[2])]
    won = count(Drf().clear(pool(milli, memory, bids)))
    step = {agent: max(Fraction(m, milli), Fraction(g, memory)) for agent, (m, g, _) in agents.items()}
    for agent, (m, g, wanted) in agents.items():
        equal_part = min(Fraction(1, len(agents)), wanted * step[agent])
        assert won[agent] * step[agent] + max(step.values()) >= equal_part
        for other, (other_m, other_g, _) in agents.items():
            left = max(0, won[other] - 1)
            as_good = min(left * other_m // m, left * other_g // g, wanted)
            assert other == agent or as_good <= won[agent] + 1


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(5, 40))
@settings(max_examples=50, deadline=None)
def test_drf_shares_by_weight(weights: list[int], size: int) -> None:
    facts = {f"a{i}": AgentFacts(weight=weight) for i, weight in enumerate(weights)}
    bids = [task(agent, n, size, 1) for agent in facts for n in range(1000 // size + 1)]
    won = count(Drf().clear(pool(1_000, 80_000, bids, facts)))
    for agent, facts_of in facts.items():
        for other, facts_of_other in facts.items():
            assert Fraction(won[agent] - 1, facts_of.weight) <= Fraction(won[other], facts_of_other.weight)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12)), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_under_a_static_split_nobody_exceeds_its_part(agents: list[tuple[int, int]], seed: int) -> None:
    chance = random.Random(seed)
    facts = {f"a{i}": AgentFacts(weight=weight) for i, (weight, _) in enumerate(agents)}
    bids = [
        task(f"a{i}", n, chance.choice((100, 250, 500, 1000)), chance.choice((1, 500)))
        for i, (_, wanted) in enumerate(agents)
        for n in range(wanted)
    ]
    devices = tuple(Device(f"d{i}", "n", "m", i, 8_000) for i in range(chance.randint(1, 4)))
    snapshot = replace(pool(1, 1, bids, facts), devices=devices)
    owned = parts(snapshot)
    assert sum(shape.milli for part in owned.values() for shape in part.values()) == 1000 * len(devices)
    total = sum(weight for weight, _ in agents)
    for agent, part in owned.items():
        fair = Fraction(1000 * len(devices) * facts[agent].weight, total)
        assert abs(sum(shape.milli for shape in part.values()) - fair) < 1
    used: Counter[tuple[str, str]] = Counter()
    memory: Counter[tuple[str, str]] = Counter()
    for award in StaticSplit().clear(snapshot).awards:
        for share in award.shares:
            used[award.bid.split("-")[0], share.device] += share.milli
            memory[award.bid.split("-")[0], share.device] += share.memory_mib
    for (agent, device), milli in used.items():
        assert (
            milli <= owned[agent][device].milli and memory[agent, device] <= owned[agent][device].memory_mib
        )


def lease(agent: str, milli: int, *, start_ms: int = 0, end_ms: int = 10**9, device: str = "d0") -> Lease:
    return Lease(
        id=f"l-{agent}-{milli}",
        bid="b",
        agent=agent,
        job_class="batch",
        shares=(Share(device, milli, 1),),
        price_micros=0,
        max_price_micros=CREDIT,
        restart_cost_micros=0,
        term_ms=60_000,
        start_ms=start_ms,
        end_ms=end_ms,
        funds_micros=10 * CREDIT,
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 10**6), st.integers(1, 3)), min_size=2, max_size=5
    ),
    st.integers(1, 2_000),
)
@settings(max_examples=100, deadline=None)
def test_karma_neither_makes_nor_loses_credits_but_for_what_belongs_to_nobody(
    agents: list[tuple[int, int, int]], elapsed_ms: int
) -> None:
    """What borrowers pay goes to donors; only what is nobody's guarantee is given out and used up."""
    facts = {f"a{i}": AgentFacts(weight=weight) for i, (*_, weight) in enumerate(agents)}
    held = {f"a{i}": milli for i, (milli, *_) in enumerate(agents)}
    before = {f"a{i}": credits for i, (_, credits, _) in enumerate(agents)}
    milli = 2_000
    snapshot = replace(
        pool(milli, 80_000, [], facts),
        leases=tuple(lease(agent, amount) for agent, amount in held.items() if amount),
        memory=Memory("karma", 1_000_000 - elapsed_ms, before),
    )
    after = Karma().clear(snapshot).memory.amounts
    weights = sum(weight for *_, weight in agents)
    # The naive model: parts by weight, half of them guaranteed; guarantees as the mechanism rounds them.
    guaranteed = {}
    fair = Karma()._guaranteed(snapshot)
    for agent, fact in facts.items():
        guaranteed[agent] = fair[agent]
        assert abs(fair[agent] - Fraction(milli * fact.weight, 2 * weights)) <= 1
    over = {agent: (held[agent] - guaranteed[agent]) * elapsed_ms for agent in facts}
    paid = sum(min(before[agent], max(0, amount)) for agent, amount in over.items())
    lent = sum(max(0, -amount) for amount in over.values())
    free = (milli - sum(guaranteed.values())) * elapsed_ms
    assert sum(after.values()) == sum(before.values()) - paid + min(paid, lent) + free
    for agent, amount in over.items():
        assert after[agent] >= 0
        if amount <= 0:
            assert after[agent] >= before[agent]
        if not any(each > 0 for each in over.values()):
            assert after[agent] - before[agent] <= free


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 50), st.integers(0, 50))), st.data()
)
def test_what_is_poured_raises_the_lowest_first(
    bowls: dict[str, tuple[int, int]], data: st.DataObject
) -> None:
    levels = {name: level for name, (level, _) in bowls.items()}
    rooms = {name: room for name, (_, room) in bowls.items()}
    amount = data.draw(st.integers(0, sum(rooms.values())))
    parts = pour(amount, levels, rooms)
    assert sum(parts.values()) == amount and all(0 <= parts[name] <= rooms[name] for name in bowls)
    for low in bowls:
        for high in bowls:
            if parts[high] and parts[low] < rooms[low]:
                assert levels[high] + parts[high] <= levels[low] + parts[low] + 1


@given(st.integers(0, 10**15), st.integers(0, 10**8), st.integers(1, 10**8))
def test_usage_halves_in_a_half_life(amount: int, elapsed_ms: int, half_life_ms: int) -> None:
    exact = amount * 2.0 ** (-elapsed_ms / half_life_ms)
    assert abs(decayed(amount, elapsed_ms, half_life_ms) - exact) <= 45 + exact * 1e-9
    assert decayed(amount, half_life_ms, half_life_ms) == amount // 2


@given(st.lists(st.integers(0, 3_600_000), min_size=2, max_size=5, unique=True))
@settings(max_examples=50, deadline=None)
def test_fair_share_serves_who_used_least_first(used_ms: list[int]) -> None:
    """One device for one: it goes to the agent with the least usage, whatever the order of arrival."""
    usage = {f"a{i}": milli_ms * 1000 for i, milli_ms in enumerate(used_ms)}
    bids = [task(agent, n, 1000, 1) for agent in usage for n in range(2)]
    snapshot = replace(pool(1000, 80_000, bids), memory=Memory("fairshare", 1_000_000, usage))
    assert list(count(FairShare().clear(snapshot))) == [min(usage, key=lambda agent: usage[agent])]


def test_over_time_fair_share_evens_usage_out_by_weight() -> None:
    facts = {"a": AgentFacts(weight=2), "b": AgentFacts(weight=1), "c": AgentFacts(weight=1)}
    held = by_time(FairShare(half_life_ms=HOUR), facts, ticks=1_200)
    total = sum(held.values())
    for agent, facts_of in facts.items():
        assert abs(Fraction(held[agent], total) - Fraction(facts_of.weight, 4)) < Fraction(2, 100)


def test_over_time_finish_times_are_fair_to_those_of_one_device_between_three() -> None:
    """Nobody starves, which drf does not promise where one device is all there is."""
    facts = {agent: AgentFacts() for agent in "abc"}
    held = by_time(MECHANISMS["finishtime"], facts, ticks=1_200)
    for amount in held.values():
        assert abs(Fraction(amount, sum(held.values())) - Fraction(1, 3)) < Fraction(3, 100)


def by_time(mechanism: Mechanism, facts: dict[str, AgentFacts], ticks: int) -> Counter[str]:
    """Ticks under lease by agent, when each always has one bid for the one device, for terms of 5 s."""
    now, memory, holder, held = 1_000_000, Memory(), "", Counter[str]()
    current: Lease | None = None
    waiting = dict.fromkeys(facts, now)
    for _ in range(ticks):
        now += 1_000
        if current and current.drains_at_ms is not None and current.drains_at_ms <= now:
            waiting[current.agent], current, holder = now, None, ""
        bids = [
            Bid(f"{agent}-bid", agent, "batch", (Package(1, 1000, 1, 5_000, CREDIT),), 0, since, CREDIT)
            for agent, since in waiting.items()
            if agent != holder
        ]
        device = Device("d0", "n", "m", 0, 80_000)
        leases = (current,) if current else ()
        snapshot = Snapshot(now, Rules(), (device,), leases, tuple(bids), 0, agents=facts, memory=memory)
        outcome = mechanism.clear(snapshot)
        memory = outcome.memory
        for renewal in outcome.renewals:
            assert current is not None
            current = replace(current, end_ms=renewal.end_ms)
        for displacement in outcome.displacements:
            assert current is not None
            current = replace(current, state="draining", drains_at_ms=displacement.drains_at_ms)
        for award in outcome.awards:
            if award.starts_now:
                holder = award.bid.split("-")[0]
                current = replace(lease(holder, 1000, start_ms=now, end_ms=now + 5_000), term_ms=5_000)
        held[holder] += 1
    del held[""]
    return held


RATES = st.lists(st.integers(1, 50), min_size=2, max_size=4)


@given(RATES, st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_under_proportional_share_spend_buys_its_part_and_nobody_spends_more(
    rates: list[int], tasks_in_ten: int
) -> None:
    """Everybody wants the whole pool and would pay anything: parts are as spend rates, up to one task."""
    size = 10 * tasks_in_ten
    facts = {f"a{i}": AgentFacts(spend_micros_per_hour=rate * CREDIT) for i, rate in enumerate(rates)}
    bids = [task(agent, n, size, 1, 10**4 * CREDIT) for agent in facts for n in range(1000 // size + 1)]
    outcome = ProportionalShare().clear(pool(1000, 80_000, bids, facts))
    won = count(outcome)
    for agent, facts_of in facts.items():
        assert facts_of.spend_micros_per_hour is not None
        part = Fraction(1000 * facts_of.spend_micros_per_hour, sum(rates) * CREDIT)
        # Parts are whole milli-GPU, so the lowest price may leave one more for each.
        assert part - size - 1 <= won[agent] * size <= part + len(rates)
        assert won[agent] * size * outcome.price_micros <= 1000 * facts_of.spend_micros_per_hour


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_nobody_pays_more_than_its_bid_under_proportional_share(offers: list[tuple[int, int]]) -> None:
    facts = {f"a{i}": AgentFacts(spend_micros_per_hour=rate * CREDIT) for i, (rate, _) in enumerate(offers)}
    bids = [task(f"a{i}", n, 100, 1, most * CREDIT) for i, (_, most) in enumerate(offers) for n in range(8)]
    outcome = ProportionalShare().clear(pool(1000, 80_000, bids, facts))
    prices = {bid.id: bid.packages[0].price_micros for bid in bids}
    assert all(outcome.price_micros == award.price_micros <= prices[award.bid] for award in outcome.awards)
    losing = [prices[each.bid] for each in outcome.refusals if each.explanation.reason is Reason.OUTBID]
    assert all(price < outcome.price_micros for price in losing)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(100, 30_000)), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_a_posted_price_moves_with_demand_and_at_most_five_percent_a_minute(
    ticks: list[tuple[int, int]],
) -> None:
    device, memory, price, now = Device("d0", "n", "m", 0, 80_000, 1000), Memory(), CREDIT, 1_000_000
    history = [(now, price)]
    for wanted, elapsed_ms in ticks:
        now += elapsed_ms
        bids = (task("a", 0, 1000, 1, 100 * CREDIT),) * (wanted // 1000)
        bids = tuple(replace(bid, id=f"b{i}", funds_micros=10**12) for i, bid in enumerate(bids))
        snapshot = Snapshot(now, Rules(), (device,), (), bids, price, memory=memory)
        outcome = PostedPrice().clear(snapshot)
        if len(bids) > 1:
            assert outcome.price_micros >= price
        if not bids:
            assert outcome.price_micros <= price
        if len(bids) == 1:
            assert outcome.price_micros == price
        memory, price = outcome.memory, outcome.price_micros
        history.append((now, price))
    for at_ms, earlier in history:
        for later_ms, later in history:
            minutes = max(1, -(-(later_ms - at_ms) // 60_000))
            if later_ms >= at_ms:
                assert (
                    Fraction(95, 100) ** minutes <= Fraction(later, earlier) <= Fraction(105, 100) ** minutes
                )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(CLASSES)), min_size=2, max_size=8), st.integers()
)
@settings(max_examples=50, deadline=None)
def test_displacement_by_priority_ends_with_the_highest_running(
    levels: list[tuple[int, JobClass]], seed: int
) -> None:
    chance = random.Random(seed)
    bids = {}
    for number, (priority, job_class) in enumerate(levels):
        bids[f"b{number}"] = replace(
            task(f"a{number}", 0, 500, 1), id=f"b{number}", priority=priority, job_class=job_class
        )
    running: dict[str, Lease] = {}
    waiting, displaced, moved = list(bids), 0, True
    while moved:
        moved = False
        for name in chance.sample(waiting, len(waiting)):
            bid = bids[name]
            snapshot = replace(pool(1000, 80_000, [bid]), leases=tuple(running.values()))
            for award in Priority().express(snapshot, name).awards:
                moved = True
                waiting.remove(name)
                for victim in award.displaces:
                    assert level(bids[victim]) > level(bid)
                    del running[victim]
                    waiting.append(victim)
                    displaced += 1
                    assert displaced < 100
                held = replace(lease(bid.agent, 500), id=name, priority=bid.priority)
                running[name] = replace(held, job_class=bid.job_class)
    best = sorted(level(bid) for bid in bids.values())[:2]
    assert sorted(level(bids[name]) for name in running) == best


def level(bid: Bid) -> tuple[int, int]:
    return (-bid.priority, CLASSES.index(bid.job_class))
