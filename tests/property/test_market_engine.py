"""The compiled engine against the readable auction, and against rules that need no auction to check."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from walras.core.money import charge
from walras.market.auction import Auction
from walras.market.engine.answers import answer, answer_one
from walras.market.engine.supports import knows
from walras.market.types import (
    Bid,
    Device,
    JobClass,
    Lease,
    LeaseState,
    Outcome,
    Package,
    Rules,
    Share,
    Snapshot,
)

CREDIT = 1_000_000
HOUR = 3_600_000
NOW = 1_000_000
STATES: tuple[LeaseState, ...] = ("reserved", "active", "draining")
CLASSES: tuple[JobClass, ...] = ("latency", "standard", "batch")


def snapshot(seed: int, *, several: bool = True, turnover: bool = False) -> Snapshot:
    """A random pool. With `turnover` leases are up for renewal and may be displaced, else none may go."""
    chance = random.Random(seed)
    devices = tuple(
        Device(f"d{i}", f"n{i // 2}", "m", i, chance.choice((16_000, 80_000)))
        for i in range(chance.randint(1, 6))
    )
    rich = chance.choice((1, 1_000)) if turnover else 1
    agents = {f"a{i}": rich * chance.randint(0, CREDIT // 10**i) for i in range(4)}
    selectors = [None, None, frozenset(device.id for device in devices if chance.random() < 0.6)]

    def package() -> Package:
        return Package(
            devices=chance.choice((1, 1, 1, 2, 3)),
            milli_gpu=chance.choice((100, 250, 330, 500, 810, 1000)),
            memory_mib=chance.choice((0, 0, 2_000, 15_000, 40_000)),
            term_ms=chance.choice((60_000, 600_000)),
            price_micros=chance.choice((50_000, 400_000, CREDIT, chance.randint(0, 4 * CREDIT))),
            eligible=chance.choice(selectors),
        )

    bids = []
    for number in range(chance.randint(0, 25)):
        agent = chance.choice(list(agents))
        count = chance.choice((1, 1, 2, 3)) if several else 1
        packages = tuple(package() for _ in range(count))
        submitted = NOW - chance.randint(0, 3)
        deadline, decays = chance.choice((None, None, None, NOW, NOW + 70)), None
        if deadline is not None and chance.random() < 0.5:
            decays = NOW - 30
        bid = Bid(
            f"b{number}", agent, chance.choice(CLASSES), packages, 0, submitted, agents[agent], deadline
        )
        bids.append(replace(bid, decays_ms=decays))
    leases = tuple(_leases(chance, devices, agents, turnover))
    price, rules = chance.choice((0, 200_000, CREDIT)), Rules(reserve_micros=chance.choice((0, 100_000)))
    return Snapshot(NOW, rules, devices, leases, tuple(bids), price, frozenset())


def _leases(
    chance: random.Random, devices: tuple[Device, ...], agents: dict[str, int], turnover: bool
) -> list[Lease]:
    leases = []
    shapes = ((250, 0), (330, 4_000), (500, 0)) if chance.random() < 0.7 else ((40, 0), (50, 1_000))
    due = chance.choice((0, 0.4, 0.9)) if turnover else 0
    known = {device.id for device in devices}
    for number in range(chance.choice((0, 4, 15, 40)) if turnover else chance.randint(0, 4)):
        places = [*known, "gone"] if turnover else [*known]
        held = chance.sample(sorted(places), min(len(places), chance.choice((1, 1, 1, 2))))
        milli, memory = chance.choice(shapes)
        agent, price = (
            chance.choice(list(agents)),
            chance.choice((100_000, 300_000, chance.randint(0, CREDIT))),
        )
        lease = Lease(
            id=f"l{number}",
            bid="b",
            agent=agent,
            job_class=chance.choice(CLASSES),
            shares=tuple(Share(device, milli, memory) for device in held),
            price_micros=price,
            max_price_micros=price,
            restart_cost_micros=chance.choice((0, 0, 500, 20_000)),
            term_ms=chance.choice((60_000, HOUR)),
            start_ms=NOW - chance.choice((1, 6_000 if turnover else 2)),
            end_ms=NOW + (chance.choice((-1, 0, 2_000)) if chance.random() < due else HOUR),
            funds_micros=agents[agent],
            state=chance.choice((*STATES, "active", "active")),
        )
        leases.append(lease)
    return leases


def decisions(outcome: Outcome) -> tuple[object, ...]:
    """What it decides, and what is said of refusals but for the words."""
    refusals = [(each.bid, replace(each.explanation, message="")) for each in outcome.refusals]
    return outcome.awards, outcome.renewals, outcome.displacements, outcome.price_micros, refusals


@given(st.integers(0, 10**9), st.booleans())
@settings(max_examples=1_000, deadline=None)
def test_the_engine_decides_what_the_auction_decides(seed: int, turnover: bool) -> None:
    """Award by award, renewal by renewal, displacement by displacement, refusal by refusal."""
    asked = snapshot(seed, turnover=turnover)
    assert knows(asked)
    assert decisions(answer(asked)) == decisions(Auction().clear(asked))


def contest(seed: int) -> Snapshot:
    """Full devices, and bids of the latency class that want them, for gangs too."""
    chance = random.Random(seed)
    devices = tuple(Device(f"d{i}", f"n{i // 4}", "m", i, 80_000) for i in range(chance.choice((4, 10))))
    leases = []
    for number in range(4 * len(devices)):
        held = chance.sample(devices, chance.choice((1, 1, 1, 2)))
        price, job_class = chance.randint(100_000, CREDIT), chance.choice(CLASSES)
        shares = tuple(Share(device.id, chance.choice((125, 250)), 10_000) for device in held)
        end = NOW + chance.choice((1_000, HOUR, HOUR))
        leases.append(
            Lease(
                *(f"l{number}", "b", f"a{chance.randint(0, 5)}", job_class, shares, price, price),
                *(chance.choice((0, 300)), 60_000, NOW - chance.choice((1, 9_000, 9_000)), end, 10**9),
            )
        )
    bids = []
    for number in range(20):
        packages = tuple(
            Package(
                *(chance.choice((1, 1, 2, 3)), chance.choice((125, 250, 500, 1000))),
                *(chance.choice((0, 20_000)), chance.choice((60_000, 600_000))),
                chance.randint(100_000, chance.choice((CREDIT, 2 * CREDIT, 3 * CREDIT))),
            )
            for _ in range(chance.choice((1, 1, 1, 2)))
        )
        job_class = chance.choice(CLASSES[:2])
        bids.append(Bid(f"b{number}", f"a{chance.randint(0, 5)}", job_class, packages, 0, NOW, 10**9))
    return Snapshot(NOW, Rules(), devices, tuple(leases), tuple(bids), CREDIT, frozenset())


@given(st.integers(0, 10**9))
@settings(max_examples=150, deadline=None)
def test_the_engine_displaces_whom_the_auction_displaces(seed: int) -> None:
    asked = contest(seed)
    assert decisions(answer(asked)) == decisions(Auction().clear(asked))


@given(st.integers(0, 10**9))
@settings(max_examples=300, deadline=None)
def test_an_arriving_bid_gets_what_the_auction_gives_it(seed: int) -> None:
    asked = snapshot(seed, turnover=True)
    for bid in asked.bids[:3]:
        assert decisions(answer_one(asked, bid.id)) == decisions(Auction().express(asked, bid.id))


@given(st.integers(0, 10**9), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_price_that_is_said_to_win_wins(seed: int, turnover: bool) -> None:
    asked = replace(snapshot(seed, turnover=turnover), explain=None)
    for refusal in answer(asked).refusals[:6]:
        why = refusal.explanation
        if why.winning_price_micros is not None:
            again = offering(asked, refusal.bid, why.package, why.winning_price_micros)
            assert refusal.bid in {award.bid for award in Auction().clear(again).awards}
    for bid in asked.bids[:2]:
        for refusal in answer_one(asked, bid.id).refusals:
            why = refusal.explanation
            if why.winning_price_micros is not None:
                again = offering(asked, bid.id, why.package, why.winning_price_micros)
                assert Auction().express(again, bid.id).awards


def offering(asked: Snapshot, bid_id: str, package: int, price: int) -> Snapshot:
    """The snapshot with another price for a package; of a bid that decays, what it names."""
    bids = []
    for bid in asked.bids:
        packages = list(bid.packages)
        if bid.id == bid_id:
            packages[package] = replace(packages[package], price_micros=price)
        bids.append(replace(bid, packages=tuple(packages)))
    return replace(asked, bids=tuple(bids))


@given(st.integers(0, 10**9))
@settings(max_examples=200, deadline=None)
def test_no_device_is_oversold_and_nobody_pays_too_much(seed: int) -> None:
    asked = snapshot(seed)
    outcome = answer(asked)
    awards, price = outcome.awards, outcome.price_micros
    bids = {bid.id: bid for bid in asked.bids}
    spent: dict[str, int] = {}
    for award in awards:
        bid = bids[award.bid]
        package = bid.packages[award.package]
        assert asked.rules.reserve_micros <= award.price_micros <= min(price, package.price_micros)
        assert len({share.device for share in award.shares}) == package.devices
        assert all(package.eligible is None or share.device in package.eligible for share in award.shares)
        cost = charge(award.max_price_micros, package.total_milli, package.term_ms)
        spent[bid.agent] = spent.get(bid.agent, 0) + cost
        assert spent[bid.agent] <= bid.funds_micros
    for device in asked.devices:
        for waits in (False, True):
            held = [
                share
                for lease in asked.leases
                for share in lease.shares
                if lease.state != ("draining" if waits else "reserved")
            ]
            held += [share for award in awards if waits or award.starts_now for share in award.shares]
            here = [share for share in held if share.device == device.id]
            begun = sum(
                share.milli for lease in asked.leases for share in lease.shares if share.device == device.id
            )
            assert sum(share.milli for share in here) <= max(device.milli, begun)
            if any(share.device == device.id for award in awards for share in award.shares):
                assert sum(share.memory_mib for share in here) <= device.memory_mib


@given(st.integers(0, 10**9), st.integers(1, 3 * CREDIT))
@settings(max_examples=200, deadline=None)
def test_a_winner_that_offers_more_still_wins(seed: int, more: int) -> None:
    """Of one package, to an agent that can pay: Lehmann, O'Callaghan and Shoham's monotonicity."""
    asked = snapshot(seed, several=False)
    rich = tuple(replace(bid, funds_micros=10**12, decays_ms=None) for bid in asked.bids)
    asked = replace(
        asked, bids=rich, leases=tuple(replace(each, funds_micros=10**12) for each in asked.leases)
    )
    for award in answer(asked).awards[-2:]:
        again = offering(asked, award.bid, 0, award.max_price_micros + more)
        assert award.bid in {each.bid for each in answer(again).awards}
