"""The auction over many ticks against a naive account of devices, money and promises, kept apart from it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.devices.mig_profiles import geometry_of
from walras.devices.topology import Affinity
from walras.market.auction import Auction
from walras.market.mechanism import Mechanism
from walras.market.mechanisms.fifo import Fifo
from walras.market.placement import startable
from walras.market.types import (
    Award,
    Bid,
    Device,
    Escrow,
    JobClass,
    Lease,
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


class Economy:
    """A pool with agents that bid at random; it believes the market nothing and checks each outcome.

    `rich`: devices differ in speed, lie on nodes and can be cut; bids are elastic, want devices together, MIG
    instances or decay; leases are for sale; and winners may pay critical values.
    """

    def __init__(self, seed: int, mechanism: Mechanism, *, rich: bool = False) -> None:
        self.rich = rich
        self.escrows: tuple[Escrow, ...] = ()
        self.sold: dict[str, bool] = {}
        self.random = random.Random(seed)
        self.mechanism = mechanism
        self.priced = isinstance(mechanism, Auction)
        self.now = 1_000_000
        self.rules = Rules(quantum_ms=3000, notice_ms=2000, epsilon_percent=self.random.choice((1, 10, 50)))
        memories = self.random.choices((16_000, 80_000), k=self.random.randint(1, 4))
        self.devices = tuple(self._device(i, memory) for i, memory in enumerate(memories))
        if rich and self.random.random() < 0.4:
            self.rules = replace(self.rules, payments="critical")
        self.funds = {f"a{i}": self.random.randint(0, CREDIT // 10**i) for i in range(4)}
        self.leases: dict[str, Lease] = {}
        self.bids: dict[str, Bid] = {}
        self.won: dict[str, Bid] = {}
        self.price = 0
        self.made = 0
        self.seen: Counter[str] = Counter()

    def _device(self, index: int, memory: int) -> Device:
        if not self.rich:
            return Device(f"d{index}", "n", "m", index, memory)
        model = self.random.choice(("A100", "A30", ""))
        geometry = geometry_of(model)
        size = geometry.profiles[0].memory_mib if geometry else memory
        node, speed = self.random.choice("nm"), self.random.choice((1000, 1000, 500))
        return Device(f"d{index}", node, model, index, size, speed_milli=speed, mig=geometry)

    def step(self) -> None:
        self.now += self.rules.tick_ms
        for agent in self.funds:
            self.funds[agent] += self.random.randint(0, CREDIT // 500)
            if self.random.random() < 0.03:
                self.funds[agent] //= 1000
        self._end_leases()
        for _ in range(self.random.randint(0, 3)):
            bid = self._new_bid()
            self.bids[bid.id] = bid
            if bid.job_class == "latency":
                snapshot = self._snapshot()
                self._apply(snapshot, self.mechanism.express(snapshot, bid.id), express=bid.id)
        for bid_id in [bid_id for bid_id in self.bids if self.random.random() < 0.05]:
            del self.bids[bid_id]
        snapshot = self._snapshot()
        self._apply(snapshot, self.mechanism.clear(snapshot))
        self.check_devices()

    def _new_bid(self) -> Bid:
        self.made += 1
        chance = self.random
        packages = tuple(
            self._varied(
                Package(
                    devices=chance.choice((1, 1, 1, 2, 3)),
                    milli_gpu=chance.choice((100, 250, 330, 500, 810, 1000)),
                    memory_mib=chance.choice((0, 0, 2_000, 15_000, 40_000)),
                    term_ms=chance.choice((4_000, 10_000, 60_000)),
                    price_micros=chance.randint(0, 5 * CREDIT),
                    eligible=chance.choice((None, None, frozenset({"d0", "d1"}))),
                )
            )
            for _ in range(chance.choice((1, 1, 2)))
        )
        return Bid(
            id=f"b{self.made}",
            agent=chance.choice(sorted(self.funds)),
            job_class=chance.choice(CLASSES),
            packages=packages,
            restart_cost_micros=chance.choice((0, 0, 500, 20_000)),
            submitted_ms=self.now - chance.randint(0, 5000),
            funds_micros=0,
            deadline_ms=chance.choice((None, None, self.now + 3000)),
            decays_ms=self.now - 1000 if self.rich and chance.random() < 0.5 else None,
        )

    def _varied(self, package: Package) -> Package:
        if not self.rich:
            return package
        chance = self.random
        if chance.random() < 0.25:
            profile, milli = chance.choice((("1g.10gb", 142), ("3g.40gb", 428), ("7g.80gb", 1000)))
            return replace(package, mig_profile=profile, milli_gpu=milli, memory_mib=0)
        affinity = chance.choice((Affinity.ANY, Affinity.ANY, Affinity.NODE, Affinity.SPREAD))
        return replace(package, devices_min=chance.randint(0, package.devices), affinity=affinity)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            now_ms=self.now,
            rules=self.rules,
            devices=self.devices,
            leases=tuple(replace(each, funds_micros=self.funds[each.agent]) for each in self.leases.values()),
            bids=tuple(replace(each, funds_micros=self.funds[each.agent]) for each in self.bids.values()),
            price_micros=self.price,
            escrows=self.escrows,
        )

    def _end_leases(self) -> None:
        for lease in list(self.leases.values()):
            drained = lease.drains_at_ms is not None and lease.drains_at_ms <= self.now
            if drained or (lease.state == "active" and self.random.random() < 0.05):
                del self.leases[lease.id]
        for lease in list(self.leases.values()):
            if lease.state == "reserved":
                free = all(
                    self._used(share.device, ("active", "draining"))[0] + share.milli <= 1000
                    and self._used(share.device, ("active", "draining"))[1] + share.memory_mib
                    <= self._memory(share.device)
                    for share in lease.shares
                )
                starts = startable(lease, self.leases.values(), self.devices)
                # Where devices are cut, what runs is looked at for overlaps as soon as it does.
                assert starts is free or self.rich
                free = starts
                if free:
                    self.leases[lease.id] = replace(
                        lease, state="active", start_ms=self.now, end_ms=self.now + lease.term_ms
                    )
                    self.check_devices()

    def _memory(self, device: str) -> int:
        return next(each.memory_mib for each in self.devices if each.id == device)

    def _used(self, device: str, states: tuple[str, ...]) -> tuple[int, int]:
        shares = [
            share
            for lease in self.leases.values()
            if lease.state in states
            for share in lease.shares
            if share.device == device
        ]
        return sum(share.milli for share in shares), sum(share.memory_mib for share in shares)

    def check_devices(self) -> None:
        """No device is oversold now, nor when the drains are over."""
        for device in self.devices:
            for states in (("active", "draining"), ("active", "reserved")):
                milli, memory = self._used(device.id, states)
                assert milli <= device.milli
                assert memory <= device.memory_mib
            self._check_cuts(device)

    def _check_cuts(self, device: Device) -> None:
        """No memory slice is sold twice, and nothing is both cut and shared. What runs and what is reserved
        are different times."""
        for states in (("active", "draining"), ("active", "reserved")):
            here = [
                share.mig
                for lease in self.leases.values()
                if lease.state in states
                for share in lease.shares
                if share.device == device.id
            ]
            cuts = [cut for cut in here if cut is not None]
            assert len(cuts) in (0, len(here))
            slices: set[int] = set()
            for cut in cuts:
                assert device.mig is not None
                profile = device.mig[cut.profile]
                own = set(range(cut.start, cut.start + profile.memory_slices))
                assert cut.start in profile.starts and not slices & own
                slices |= own

    def _apply(self, snapshot: Snapshot, outcome: Outcome, *, express: str | None = None) -> None:
        decided = [award.bid for award in outcome.awards] + [refusal.bid for refusal in outcome.refusals]
        assert sorted(decided) == sorted([express] if express else self.bids)
        spent = dict.fromkeys(self.funds, 0)
        self._renew(snapshot, outcome, spent, express=express is not None)
        displacing = {(gone.by, gone.lease) for gone in outcome.displacements if gone.by is not None}
        assert displacing == {(award.bid, lease) for award in outcome.awards for lease in award.displaces}
        for gone in outcome.displacements:
            lease = self.leases[gone.lease]
            assert lease.state == "active"
            assert gone.drains_at_ms >= self.now + self.rules.notice_ms
            self.leases[gone.lease] = replace(lease, state="draining", drains_at_ms=gone.drains_at_ms)
            self.sold[gone.lease] = gone.reason == "resold"
            assert gone.reason != "resold" or lease.resale_micros is not None
            self.seen[f"drain {gone.reason}"] += 1
        for award in outcome.awards:
            bid = self.bids.pop(award.bid)
            package = bid.packages[award.package]
            victims = [self.leases[lease] for lease in award.displaces]
            self._check_award(bid, replace(package, price_micros=self._offered(bid, package)), award, victims)
            self._check_shares(package, award)
            spent[bid.agent] += award.price_micros * award.total_milli * award.term_ms // (1000 * HOUR)
            paid = self._compensations(bid, victims)
            assert paid == award.compensations_micros
            offered = self._offered(bid, package) * award.total_milli * award.term_ms // (1000 * HOUR)
            assert award.cost_micros + paid <= offered
            spent[bid.agent] += paid
            self.seen["award now" if award.starts_now else "award later"] += 1
            self.leases[f"l-{bid.id}"] = Lease(
                id=f"l-{bid.id}",
                bid=bid.id,
                agent=bid.agent,
                job_class=bid.job_class,
                shares=award.shares,
                price_micros=award.price_micros,
                max_price_micros=self._offered(bid, package),
                restart_cost_micros=bid.restart_cost_micros,
                term_ms=award.term_ms,
                start_ms=self.now,
                end_ms=self.now + award.term_ms,
                funds_micros=0,
                state="active" if award.starts_now else "reserved",
                resale_micros=self.random.randint(0, 5 * CREDIT)
                if self.rich and self.random.random() < 0.3
                else None,
            )
            self.check_devices()
        for agent, amount in spent.items():
            assert amount <= self.funds[agent], "nobody spends more than it has"
            self.funds[agent] -= amount
        for refusal in outcome.refusals:
            self.seen[f"refuse {refusal.explanation.reason}"] += 1
            assert refusal.explanation.message
        if express is None:
            self.price = outcome.price_micros
            self.seen["escrow"] += len(outcome.escrows)
            self.seen["escrow served"] += len(
                {each.bid for each in self.escrows} & {award.bid for award in outcome.awards}
            )
            self.escrows = outcome.escrows

    def _offered(self, bid: Bid, package: Package) -> int:
        """What its price is worth by now: all of it, but for a bid that decays."""
        if bid.decays_ms is None or bid.deadline_ms is None or self.now <= bid.decays_ms:
            return package.price_micros
        return package.price_micros * (bid.deadline_ms - self.now) // (bid.deadline_ms - bid.decays_ms)

    def _check_shares(self, package: Package, award: Award) -> None:
        devices = {share.device for share in award.shares}
        nodes = Counter(each.node for each in self.devices if each.id in devices)
        assert (package.devices_min or package.devices) <= len(devices) <= package.devices
        assert len(devices) == len(award.shares)
        assert package.affinity is not Affinity.NODE or len(nodes) == 1
        assert package.affinity is not Affinity.SPREAD or set(nodes.values()) == {1}
        for share in award.shares:
            assert package.eligible is None or share.device in package.eligible
            assert share.milli == package.milli_gpu
            assert (share.mig.profile if share.mig else "") == package.mig_profile
            whole_part = self._memory(share.device) * share.milli // 1000
            assert share.mig or share.memory_mib == (package.memory_mib or whole_part)

    def _compensations(self, bid: Bid, victims: list[Lease]) -> int:
        if any(self._is_sold(victim) for victim in victims):
            return sum(
                max(0, (victim.resale_micros or 0) - victim.price_micros)
                * victim.total_milli
                * max(0, victim.end_ms - self.now - self.rules.notice_ms)
                // (1000 * HOUR)
                for victim in victims
            )
        return sum(victim.restart_cost_micros for victim in victims if victim.agent != bid.agent)

    def _is_sold(self, lease: Lease) -> bool:
        return self.sold.get(lease.id, False)

    def _renew(self, snapshot: Snapshot, outcome: Outcome, spent: dict[str, int], *, express: bool) -> None:
        horizon = self.now + self.rules.notice_ms + self.rules.tick_ms
        touched = {renewal.lease for renewal in outcome.renewals}
        for renewal in outcome.renewals:
            lease = self.leases[renewal.lease]
            assert lease.state == "active"
            assert lease.end_ms <= horizon
            assert renewal.price_micros <= lease.max_price_micros
            spent[lease.agent] += renewal.price_micros * lease.total_milli * lease.term_ms // (1000 * HOUR)
            self.leases[lease.id] = replace(
                lease, price_micros=renewal.price_micros, end_ms=max(lease.end_ms, self.now) + lease.term_ms
            )
            assert self.leases[lease.id].end_ms == renewal.end_ms
            self.seen["renew"] += 1
        gone = {displacement.lease for displacement in outcome.displacements}
        assert not touched & gone
        active = [lease for lease in snapshot.leases if lease.state == "active"]
        due = {lease.id for lease in active if lease.end_ms <= horizon}
        assert touched <= due
        assert express or due <= touched | gone, "every lease that is due is renewed or told to go"

    def _check_award(self, bid: Bid, package: Package, award: Award, victims: list[Lease]) -> None:
        price = award.price_micros
        assert price <= package.price_micros, "a winner pays at most its bid"
        slowest = min(each.speed_milli for each in self.devices)
        # What it pays for restarts may leave less than the reserve for the lease itself.
        paid = bool(award.compensations_micros)
        assert price >= (self.rules.reserve_micros * slowest // 1000 if self.priced and not paid else 0)
        assert bid.deadline_ms is None or bid.deadline_ms > self.now
        if not victims or self._is_sold(victims[0]):
            assert all(victim.agent != bid.agent for victim in victims)
            return
        assert bid.job_class == "latency"
        hours = Fraction(package.term_ms, HOUR)
        worth = Fraction(package.price_micros) * award.total_milli / 1000 * hours
        displaced = Fraction(0)
        for victim in victims:
            assert self.now - victim.start_ms >= self.rules.quantum_ms
            if victim.job_class == "latency" or victim.agent == bid.agent:
                assert victim.max_price_micros < package.price_micros
            displaced += Fraction(victim.max_price_micros) * victim.total_milli / 1000 * hours
        restart = sum(victim.restart_cost_micros for victim in victims)
        assert worth >= displaced * (100 + self.rules.epsilon_percent) / 100 + restart


@pytest.mark.parametrize("seed", range(12))
def test_promises_hold_over_many_ticks_of_the_auction(seed: int) -> None:
    economy = Economy(seed, Auction())
    for _ in range(40):
        economy.step()
    assert economy.seen["award now"] > 0


@pytest.mark.parametrize("seed", range(12))
def test_promises_hold_for_everything_that_is_sold(seed: int) -> None:
    economy = Economy(seed, Auction(), rich=True)
    for _ in range(40):
        economy.step()
    assert economy.seen["award now"] > 0


@pytest.mark.parametrize("seed", range(4))
def test_promises_hold_over_many_ticks_of_fifo(seed: int) -> None:
    economy = Economy(seed, Fifo())
    for _ in range(60):
        economy.step()
    assert economy.seen["award now"] > 0
    assert not any(key.startswith("drain") for key in economy.seen)


def test_the_random_economies_reach_every_rule() -> None:
    seen: Counter[str] = Counter()
    for seed in range(12, 24):
        economy = Economy(seed, Auction(), rich=seed >= 18)
        for _ in range(40):
            economy.step()
        seen += economy.seen
    wanted = {"drain outbid", "drain price", "drain funds", "drain resold", "drain gang"}
    wanted |= {"award later", "renew", "escrow", "escrow served"}
    wanted |= {f"refuse {reason}" for reason in Reason if reason not in ("NoDevice", "Invalid", "OverShare")}
    assert wanted <= seen.keys(), wanted - seen.keys()


@pytest.mark.parametrize("seed", range(100, 112))
def test_the_winning_price_wins_and_none_means_no_price_does(seed: int) -> None:
    """Checked by bidding it: the snapshot is the same but for the one price."""
    economy = Economy(seed, Auction())
    for _ in range(12):
        economy.step()
    for _ in range(5):
        bid = economy._new_bid()
        economy.bids[bid.id] = bid
    snapshot = economy._snapshot()
    for refusal in Auction().clear(snapshot).refusals:
        why, bid = refusal.explanation, next(bid for bid in snapshot.bids if bid.id == refusal.bid)
        if why.winning_price_micros is not None:
            assert wins(snapshot, bid, why.package, why.winning_price_micros)
            if why.reason is Reason.OUTBID:
                assert why.winning_price_micros > bid.packages[why.package].price_micros
        elif why.reason in (Reason.NO_CAPACITY, Reason.OUTBID, Reason.BELOW_RESERVE):
            for package, offered in enumerate(bid.packages):
                amount = offered.total_milli * offered.term_ms
                affordable = bid.funds_micros * 1000 * HOUR // amount
                for price in {affordable // 2, affordable, affordable + 1, 1000 * CREDIT}:
                    assert not wins(snapshot, bid, package, price)


@pytest.mark.parametrize("seed", range(200, 212))
def test_the_winning_price_wins_whatever_is_sold(seed: int) -> None:
    """Escrows, elastic gangs, instances, resale and decay: what is said to win is bid, and wins."""
    economy = Economy(seed, Auction(), rich=True)
    for _ in range(12):
        economy.step()
    for _ in range(5):
        bid = economy._new_bid()
        economy.bids[bid.id] = bid
    snapshot = economy._snapshot()
    for refusal in Auction().clear(snapshot).refusals:
        why, bid = refusal.explanation, next(bid for bid in snapshot.bids if bid.id == refusal.bid)
        if why.winning_price_micros is not None:
            assert wins(snapshot, bid, why.package, why.winning_price_micros)
        elif why.reason is Reason.NO_CAPACITY:
            assert not any(wins(snapshot, bid, each, 1000 * CREDIT) for each in range(len(bid.packages)))


def wins(snapshot: Snapshot, bid: Bid, package: int, price: int) -> bool:
    packages = list(bid.packages)
    packages[package] = replace(packages[package], price_micros=price)
    bids = tuple(
        replace(each, packages=tuple(packages)) if each.id == bid.id else each for each in snapshot.bids
    )
    outcome = Auction().clear(replace(snapshot, bids=bids))
    return any(award.bid == bid.id for award in outcome.awards)


SHAPES = st.sampled_from((125, 250, 500, 1000))
SIMPLE_BIDS = st.lists(
    st.tuples(SHAPES, st.integers(0, 40), st.sampled_from(CLASSES), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


def simple_bid(number: int, shape: tuple[int, int, JobClass, int]) -> Bid:
    milli, price, job_class, age = shape
    package = Package(1, milli, 0, 60_000, price * CREDIT // 10)
    return Bid(f"b{number:02}", f"a{number}", job_class, (package,), 0, 1000 - age, 100 * CREDIT)


def one_device(bids: list[Bid], leases: tuple[Lease, ...] = ()) -> Snapshot:
    device = Device("d0", "n", "m", 0, 80_000)
    return Snapshot(10_000, Rules(), (device,), leases, tuple(bids), 0)


@given(SIMPLE_BIDS)
@settings(max_examples=100, deadline=None)
def test_an_empty_device_goes_to_the_highest_prices_at_the_best_losing_one(
    shapes: list[tuple[int, int, JobClass, int]],
) -> None:
    """Shares that tile the device strand nothing, so density is the price: winners by plain sorting."""
    bids = [simple_bid(number, shape) for number, shape in enumerate(shapes)]
    prices = {bid.id: bid.packages[0].price_micros for bid in bids}
    ranked = sorted(
        bids, key=lambda bid: (-prices[bid.id], bid.job_class != "latency", bid.submitted_ms, bid.id)
    )
    free, winners, losing = 1000, [], [100_000]
    for bid in ranked:
        if prices[bid.id] < 100_000:
            continue
        if bid.packages[0].milli_gpu <= free:
            free -= bid.packages[0].milli_gpu
            winners.append(bid.id)
        else:
            losing.append(prices[bid.id])
    outcome = Auction().clear(one_device(bids))
    assert [award.bid for award in outcome.awards] == winners
    assert outcome.price_micros == max(losing)
    assert all(award.price_micros == min(max(losing), prices[award.bid]) for award in outcome.awards)


@given(SIMPLE_BIDS)
@settings(max_examples=50, deadline=None)
def test_fifo_serves_in_order_of_arrival_whatever_is_offered(
    shapes: list[tuple[int, int, JobClass, int]],
) -> None:
    bids = [simple_bid(number, shape) for number, shape in enumerate(shapes)]
    free, winners = 1000, []
    for bid in sorted(bids, key=lambda bid: (bid.submitted_ms, bid.id)):
        if bid.packages[0].milli_gpu <= free:
            free -= bid.packages[0].milli_gpu
            winners.append(bid.id)
    outcome = Fifo().clear(one_device(bids))
    assert [award.bid for award in outcome.awards] == winners
    assert {award.price_micros for award in outcome.awards} <= {0}


@given(st.lists(st.tuples(SHAPES, st.integers(1, 400)), min_size=2, max_size=10), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_displacement_among_latency_bids_ends(shapes: list[tuple[int, int]], seed: int) -> None:
    """Displaced bids come back unchanged for ever; the value at the top of a chain grows by (1+e) a step."""
    chance = random.Random(seed)
    bids = [simple_bid(i, (milli, price, "latency", 0)) for i, (milli, price) in enumerate(shapes)]
    waiting, quiet, displaced = list(bids), 0, 0
    leases: dict[str, Lease] = {}
    values = {bid.id: bid.packages[0].price_micros * bid.packages[0].milli_gpu for bid in bids}
    while quiet < len(waiting) + 1 and waiting:
        bid = waiting.pop(chance.randrange(len(waiting)))
        outcome = Auction().express(one_device([bid], tuple(leases.values())), bid.id)
        if not outcome.awards:
            waiting.append(bid)
            quiet += 1
            continue
        quiet = 0
        award = outcome.awards[0]
        lost = [leases.pop(lease) for lease in award.displaces]
        displaced += len(lost)
        assert sum(values[lease.bid] for lease in lost) * 110 <= values[bid.id] * 100
        waiting += [each for each in bids if each.id in {lease.bid for lease in lost}]
        leases[bid.id] = Lease(
            id=bid.id,
            bid=bid.id,
            agent=bid.agent,
            job_class="latency",
            shares=(Share("d0", award.shares[0].milli, award.shares[0].memory_mib),),
            price_micros=award.price_micros,
            max_price_micros=bid.packages[0].price_micros,
            restart_cost_micros=0,
            term_ms=60_000,
            start_ms=0,
            end_ms=60_000,
            funds_micros=100 * CREDIT,
        )
        assert sum(lease.total_milli for lease in leases.values()) <= 1000
        assert displaced < 1000
