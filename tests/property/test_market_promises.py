"""The market's promises against oracles from first principles; docs/concepts/promises.md has the proofs."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from support.pool import Market

from walras.devices.mig_profiles import GEOMETRIES
from walras.devices.topology import Affinity
from walras.ledger.types import Entry
from walras.market.auction import Auction
from walras.market.types import Bid, Device, JobClass, Lease, Outcome, Package, Rules, Share, Snapshot

CREDIT = 1_000_000
HOUR = 3_600_000
CLASSES: tuple[JobClass, ...] = ("latency", "standard", "batch")
A100 = GEOMETRIES["A100-80GB"]


def wild_devices(chance: random.Random, *, cuts: bool) -> tuple[Device, ...]:
    """A few devices of three nodes, and of two speeds; with `cuts` some can be cut into MIG instances."""
    return tuple(
        Device(
            id=f"d{i}",
            node=f"n{i // 2}",
            model="m",
            index=i,
            memory_mib=81_920,
            speed_milli=chance.choice((1000, 1000, 1500)),
            mig=chance.choice((None, A100)) if cuts else None,
        )
        for i in range(chance.randint(2, 5))
    )


def wild_package(chance: random.Random, *, cuts: bool) -> Package:
    devices = chance.choice((1, 1, 1, 2, 3))
    profile = chance.choice(("", "", "", "1g.10gb", "2g.20gb", "3g.40gb")) if cuts else ""
    return Package(
        devices=devices,
        milli_gpu=A100[profile].milli if profile else chance.choice((100, 250, 500, 810, 1000)),
        memory_mib=0 if profile else chance.choice((0, 0, 2_000, 15_000)),
        term_ms=chance.choice((4_000, 10_000, 60_000)),
        price_micros=chance.randint(0, 5 * CREDIT),
        eligible=chance.choice((None, None, frozenset({"d0", "d1"}))),
        devices_min=chance.choice((0, 0, 1)),
        affinity=chance.choice((Affinity.ANY, Affinity.ANY, Affinity.NODE, Affinity.SPREAD)),
        mig_profile=profile,
    )


class Wild(Market):
    """A market where agents do anything that they may."""

    def __init__(self, seed: int, *, cuts: bool = False) -> None:
        self.chance, self.cuts = random.Random(seed), cuts
        rules = Rules(quantum_ms=3000, notice_ms=2000, epsilon_percent=self.chance.choice((1, 10, 50)))
        super().__init__(wild_devices(self.chance, cuts=cuts), rules)
        self.made = 0
        self.funded: Counter[str] = Counter()
        for number in range(5):
            self.give(f"a{number}", self.chance.randint(0, CREDIT // 10**number), income=CREDIT)

    def give(self, agent: str, micros: int, *, income: int) -> None:
        self.fund(agent, micros, income_micros_per_hour=income)
        self.funded[agent] += micros

    def step(self) -> None:
        chance = self.chance
        for _ in range(chance.randint(0, 3)):
            self.made += 1
            bid = self.wild_bid(f"b{self.made:04}")
            self.want(bid, chance.choice((None, 3_000, 30_000)), stops_ms=chance.choice((None, 0)))
        for bid_id in [name for name in self.works if chance.random() < 0.04]:
            self.withdraw(bid_id)
        for held in self.held.values():
            if chance.random() < 0.02:
                asked = chance.choice((None, held.lease.price_micros, 3 * CREDIT))
                held.lease = replace(held.lease, resale_micros=asked)
        for agent in self.incomes:
            self.funded[agent] += self.incomes[agent] * self.rules.tick_ms // HOUR
        self.tick()

    def wild_bid(self, name: str) -> Bid:
        chance = self.chance
        deadline_ms = chance.choice((None, None, self.now_ms + 20_000))
        return Bid(
            id=name,
            agent=chance.choice(sorted(self.incomes)),
            job_class=chance.choice(CLASSES),
            packages=tuple(wild_package(chance, cuts=self.cuts) for _ in range(chance.choice((1, 1, 2)))),
            restart_cost_micros=chance.choice((0, 0, 500, 20_000)),
            submitted_ms=0,
            funds_micros=0,
            deadline_ms=deadline_ms,
            decays_ms=None if deadline_ms is None else chance.choice((None, self.now_ms + 2_000)),
        )


class Books:
    """What entries of the journal lead to, in plain dictionaries."""

    def __init__(self) -> None:
        self.owns: Counter[str] = Counter()
        self.aside: dict[str, tuple[str, int]] = {}

    def read(self, entry: Entry) -> None:
        if entry.kind == "transfer":
            self._move(entry.debit, entry.credit, entry.amount)
        elif entry.kind == "hold":
            self.aside[entry.hold] = (entry.debit, entry.amount)
        elif entry.kind == "capture":
            payer, amount = self.aside[entry.hold]
            assert entry.amount <= amount, "no more is paid than was set aside"
            self.aside[entry.hold] = (payer, amount - entry.amount)
            self._move(entry.debit, entry.credit, entry.amount)
        elif entry.kind == "release":
            del self.aside[entry.hold]
        if entry.kind in ("transfer", "hold") and entry.debit != "mint":
            promised = sum(amount for payer, amount in self.aside.values() if payer == entry.debit)
            assert promised <= self.owns[entry.debit], "nobody spends or promises more than it has"

    def _move(self, payer: str, payee: str, micros: int) -> None:
        assert micros >= 0
        self.owns[payer] -= micros
        self.owns[payee] += micros


@pytest.mark.parametrize("seed", range(10))
def test_money_is_conserved_and_nobody_overspends_over_thousands_of_operations(seed: int) -> None:
    """The driver checks devices and bids at every step; here the journal is read by itself, and each agent's
    balance worked out anew from prices that were locked and times that were served."""
    played, books = Wild(seed), Books()
    for _ in range(80):
        played.step()
        for entry in played.ledger.drain():
            books.read(entry)
        assert sum(books.owns.values()) == 0, "every micro that leaves an account arrives in another"
    assert books.owns["mint"] == -sum(played.funded.values())
    assert played.operations > 500
    paid: Counter[str] = Counter()
    terms: Counter[str] = Counter()
    for held in (*played.past, *played.held.values()):
        ended_ms = played.now_ms if held.ended_ms is None else held.ended_ms
        for bill in held.bills:
            if held.started_ms is None:
                continue
            served_ms = max(0, min(ended_ms, bill.until_ms) - bill.from_ms)
            exact = Fraction(bill.price_micros * held.lease.total_milli * served_ms, 1000 * HOUR)
            assert exact - 2 < bill.paid_micros <= exact
            assert bill.price_micros <= held.lease.max_price_micros
            paid[held.lease.agent] += bill.paid_micros
            terms[held.lease.agent] += 1
    assert books.owns["revenue"] == sum(paid.values())
    compensated = sum(books.owns[agent] - played.funded[agent] + paid[agent] for agent in played.incomes)
    assert compensated == 0, "what is paid beside prices goes from agent to agent"


def test_no_device_is_cut_and_shared_at_once_nor_cut_twice() -> None:
    """Checked by the driver after every outcome and every start, over markets of which half the bids are for
    instances."""
    cut = 0
    for seed in range(4):
        played = Wild(seed, cuts=True)
        for _ in range(60):
            played.step()
        leases = [held.lease for held in (*played.past, *played.held.values())]
        cut += sum(share.mig is not None for lease in leases for share in lease.shares)
    assert cut > 50


def test_the_wild_markets_reach_what_is_promised_about() -> None:
    """Displacement, resale, elastic gangs, faster devices, renewal and decay are all among them."""
    seen: Counter[str] = Counter()
    for seed in range(5):
        played = Wild(seed)
        speeds = {device.id: device.speed_milli for device in played.devices}
        for _ in range(80):
            played.step()
        for held in (*played.past, *played.held.values()):
            package = held.bid.packages[0]
            seen["elastic"] += len(held.bid.packages) == 1 and len(held.lease.shares) < package.devices
            seen["fast"] += any(speeds[share.device] > 1000 for share in held.lease.shares)
            seen["gang"] += len(held.lease.shares) > 1
            seen["renewed"] += len(held.bills) > 1
            seen["decayed"] += held.lease.max_price_micros not in {
                each.price_micros for each in held.bid.packages
            }
        seen["displaced"] += len(played.displaced)
        seen["resold"] += played.resold
    assert all(seen[each] for each in ("elastic", "fast", "gang", "renewed", "decayed", "displaced"))
    assert seen["resold"]


# One clearing


def still(seed: int) -> Snapshot:
    """Single-minded bids of agents that can pay anything; leases run, none of them is up for renewal."""
    chance = random.Random(seed)
    devices = tuple(Device(f"d{i}", f"n{i}", "m", i, 80_000) for i in range(chance.randint(1, 4)))
    leases = []
    for device in devices:
        milli = chance.choice((0, 0, 250, 500, 1000))
        if milli:
            leases.append(running(f"l-{device.id}", device.id, milli, chance.randint(0, 30), chance))
    bids = []
    for number in range(chance.randint(2, 12)):
        package = Package(
            devices=chance.choice((1, 1, 1, 2)),
            milli_gpu=chance.choice((100, 250, 330, 500, 810, 1000)),
            memory_mib=chance.choice((0, 0, 30_000)),
            term_ms=60_000,
            price_micros=chance.randint(1, 40) * CREDIT // 10,
        )
        job_class = chance.choice(CLASSES)
        bids.append(Bid(f"b{number:02}", f"a{number}", job_class, (package,), 0, number, 10**12))
    return Snapshot(100_000, Rules(), devices, tuple(leases), tuple(bids), 0, frozenset())


def running(name: str, device: str, milli: int, price: int, chance: random.Random) -> Lease:
    return Lease(
        id=name,
        bid=f"of-{name}",
        agent=f"of-{name}",
        job_class=chance.choice(CLASSES),
        shares=(Share(device, milli, 80 * milli),),
        price_micros=0,
        max_price_micros=price * CREDIT // 10,
        restart_cost_micros=chance.choice((0, 1_000)),
        term_ms=600_000,
        start_ms=0,
        end_ms=600_000,
        funds_micros=10**12,
    )


def utility(bid: Bid, outcome: Outcome) -> int:
    """What a bid's agent has of an outcome when the bid's own price is what it is worth to it."""
    for award in outcome.awards:
        if award.bid == bid.id:
            worth = bid.packages[0].price_micros * award.total_milli * award.term_ms // (1000 * HOUR)
            return worth - award.cost_micros - award.compensations_micros
    return 0


def named(snapshot: Snapshot, bid: Bid, price: int) -> Outcome:
    """The clearing in which that bid names that price."""
    package = replace(bid.packages[0], price_micros=price)
    bids = tuple(replace(each, packages=(package,)) if each.id == bid.id else each for each in snapshot.bids)
    return Auction().clear(replace(snapshot, bids=bids))


@pytest.mark.parametrize("seed", range(60))
def test_a_winner_that_names_more_still_wins(seed: int) -> None:
    """Monotonicity, on which critical payments rest: single-minded bids, one clearing, nothing to renew."""
    snapshot = still(seed)
    bids = {bid.id: bid for bid in snapshot.bids}
    chance = random.Random(seed)
    for award in Auction().clear(snapshot).awards:
        bid = bids[award.bid]
        price = bid.packages[0].price_micros
        for more in (
            price + 1,
            price * 11 // 10,
            2 * price,
            100 * CREDIT,
            chance.randint(price, 10 * CREDIT),
        ):
            again = named(snapshot, bid, more)
            assert award.bid in {each.bid for each in again.awards}


@pytest.mark.parametrize("seed", range(40))
def test_a_critical_payment_is_the_least_price_that_wins(seed: int) -> None:
    """At it the bid wins, a micro below it loses; the reserve price is the least that anybody names."""
    snapshot = critical(still(seed))
    bids = {bid.id: bid for bid in snapshot.bids}
    for award in Auction().clear(snapshot).awards:
        bid = bids[award.bid]
        if award.displaces:
            continue  # it pays restarts beside, and that much less for its lease
        assert award.price_micros <= bid.packages[0].price_micros
        assert award.bid in winners(named(snapshot, bid, award.price_micros))
        if award.price_micros > snapshot.rules.reserve_micros:
            assert award.bid not in winners(named(snapshot, bid, award.price_micros - 1))


@pytest.mark.parametrize("seed", range(20))
def test_with_critical_payments_no_lie_pays_within_one_clearing(seed: int) -> None:
    """Every bid, winner or loser, against names above and below what it is worth."""
    snapshot = critical(still(seed))
    chance = random.Random(seed)
    honest = Auction().clear(snapshot)
    for bid in snapshot.bids:
        price = bid.packages[0].price_micros
        lies = [price * percent // 100 for percent in (50, 80, 125, 200)]
        for lie in (*lies, price - 1, price + 1, chance.randint(1, 5 * CREDIT)):
            assert utility(bid, named(snapshot, bid, lie)) <= utility(bid, honest)


def critical(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, rules=replace(snapshot.rules, payments="critical"))


def winners(outcome: Outcome) -> set[str]:
    return {award.bid for award in outcome.awards}


def test_in_a_uniform_price_a_winner_can_gain_by_naming_less() -> None:
    """One price for all is not truthful: a large bid without room sets it, and who is below pays its own."""
    device = Device("d0", "n", "m", 0, 80_000)
    shares = (("first", 500, 30), ("large", 1000, 20), ("small", 500, 10))
    bids = tuple(
        Bid(name, name, "batch", (Package(1, milli, 0, 60_000, price * CREDIT // 10),), 0, 0, 10**12)
        for name, milli, price in shares
    )
    snapshot = Snapshot(0, Rules(), (device,), (), bids, 0, frozenset())
    honest = {award.bid: award.price_micros for award in Auction().clear(snapshot).awards}
    assert honest == {"first": 2 * CREDIT, "small": CREDIT}
    lying = {award.bid: award.price_micros for award in named(snapshot, bids[2], CREDIT // 2).awards}
    assert lying == {"first": 2 * CREDIT, "small": CREDIT // 2}


# Displacement


@pytest.mark.parametrize("seed", range(12))
def test_displacement_is_bounded_by_the_worth_of_what_there_is(seed: int) -> None:
    """Each displacement adds e/(1+e) of the winner's worth to what runs, and what runs is worth no more than
    the whole pool at the best price; so with bids that never change and leases that do not end it is over."""
    chance = random.Random(seed)
    devices = tuple(Device(f"d{i}", f"n{i}", "m", i, 80_000) for i in range(3))
    rules = Rules(quantum_ms=3_000, notice_ms=2_000, epsilon_percent=chance.choice((1, 10, 50)))
    played = Market(devices, rules)
    bids = []
    for number in range(25):
        milli, gang = chance.choice(((250, 1), (500, 1), (1000, 1), (1000, 2), (500, 3)))
        price = round(CREDIT * 1.5 ** chance.uniform(0, 8))
        package = Package(gang, milli, 0, HOUR, price, devices_min=chance.choice((0, 1)))
        bids.append(Bid(f"b{number:02}", f"a{number}", "latency", (package,), 0, 0, 0))
    chance.shuffle(bids)
    for bid in bids:
        played.fund(bid.agent, 10**12)
        played.want(bid)
        played.tick(chance.choice((1, 4)))
    played.tick(100)
    e = Fraction(rules.epsilon_percent, 100)
    highest = 3000 * max(bid.packages[0].price_micros for bid in bids)
    least = min(bid.packages[0].price_micros * bid.packages[0].milli_gpu for bid in bids)
    assert 0 < len(played.displaced) <= highest * (1 + e) / (e * least)
    quiet = len(played.displaced)
    played.tick(100)
    assert len(played.displaced) == quiet
    assert all(held.lease.state == "active" for held in played.held.values())


@pytest.mark.parametrize("seed", range(6))
def test_worth_grows_along_every_chain(seed: int) -> None:
    """In any market whatsoever: who displaces is worth (1+e) of all that it displaces, an hour."""
    played = Wild(seed + 50)
    for _ in range(80):
        played.step()
    worth: dict[str, int] = {}
    for held in (*played.past, *played.held.values()):
        worth[held.lease.id] = held.lease.max_price_micros * held.lease.total_milli
    steps: dict[tuple[int, str], list[str]] = {}
    for step in played.displaced:
        steps.setdefault((step.at_ms, step.by_lease), []).append(step.lease)
    for (_, winner), losers in steps.items():
        assert worth[winner] * 100 >= sum(worth[each] for each in losers) * (
            100 + played.rules.epsilon_percent
        )


# Waiting


CAP = 2 * CREDIT
TERM_MS = 20_000


def rival(number: int, chance: random.Random) -> Bid:
    """A bid below the cap."""
    price = chance.randint(CREDIT // 2, CAP - 1)
    package = Package(1, chance.choice((250, 500, 1000)), 0, TERM_MS, price)
    return Bid(f"r{number:03}", f"r{number:03}", chance.choice(CLASSES[1:]), (package,), 0, 0, 0)


def waiting(seed: int, devices: int, milli: int) -> tuple[int | None, int]:
    """How long an agent that saves up waits for such shares at the price cap, and its bound.

    Its rivals are rich and bid less than the cap, many of them for work without end. The bound: the time
    to earn a whole term at the cap, the longest lease, and the notice with four ticks: two until a lease
    that was just won begins, two until this one does.
    """
    chance = random.Random(seed)
    pool = tuple(Device(f"d{i}", f"n{i}", "m", i, 80_000) for i in range(3))
    played = Market(pool, Rules(quantum_ms=3_000, notice_ms=2_000))
    tick_ms, made = played.rules.tick_ms, 0

    def tick() -> None:
        nonlocal made
        bid, made = rival(made, chance), made + 1
        played.fund(bid.agent, 10**12)
        played.want(bid, chance.choice((None, 15_000, 60_000)))
        played.tick()

    for _ in range(20):
        tick()
    package = Package(devices, milli, 0, TERM_MS, CAP)
    needed = CAP * devices * milli * TERM_MS // (1000 * HOUR)
    income = chance.randint(1, 8) * 3600 * (CREDIT // 3600)
    had, came_ms = chance.randint(0, needed), played.now_ms
    played.fund("saver", had, income_micros_per_hour=income)
    played.want(Bid("saver", "saver", "batch", (package,), 0, 0, 0))
    saving_ms = -(-(needed - had) * HOUR // (income * tick_ms)) * tick_ms
    bound_ms = saving_ms + TERM_MS + played.rules.notice_ms + 4 * tick_ms
    while played.now_ms < came_ms + bound_ms and not played.starts("saver"):
        tick()
    starts = played.starts("saver")
    return (starts[0] - came_ms if starts else None), bound_ms


@pytest.mark.parametrize("seed", range(12))
def test_who_bids_the_cap_waits_no_longer_than_its_bound(seed: int) -> None:
    """For the least share of all, which fits wherever any lease ends."""
    waited, bound = waiting(seed, 1, 250)
    assert waited is not None and waited <= bound


def test_a_gang_at_the_cap_waits_no_longer_than_its_bound() -> None:
    """For every device of the pool at once, which only escrow gives it."""
    for seed in range(12):
        waited, bound = waiting(seed, 3, 1000)
        assert waited is not None and waited <= bound
