"""Corners of the compiled engine that random markets seldom reach: claims in vain, many leases and bids."""

from __future__ import annotations

import numpy as np
from support.engine import bid, pool, worth

from walras.core.money import charge
from walras.market.auction import Auction
from walras.market.engine.answers import answer, answer_one
from walras.market.engine.book import Book
from walras.market.engine.clearing import Cleared, accept, clear
from walras.market.engine.express import Express
from walras.market.engine.improve import WINDOW, open_window
from walras.market.engine.jit import NONE
from walras.market.engine.leases import Leases
from walras.market.engine.terms import Terms
from walras.market.types import (
    Award,
    Bid,
    Constraint,
    Device,
    Lease,
    Outcome,
    Package,
    Rules,
    Share,
    Snapshot,
)

CREDIT = 1_000_000
NOW = 1_000_000


def package(milli: int, price: int) -> Package:
    return Package(1, milli, 0, 60_000, price)


def urgent(name: str, *packages: Package) -> Bid:
    """A bid of the latency class, of the agent that its name begins with."""
    return Bid(name, name[0], "latency", packages, 0, NOW, 100 * CREDIT)


def holding(name: str, device: str, milli: int, price: int) -> Lease:
    """A lease that may be displaced, of the agent that its name begins with."""
    share = Share(device, milli, 80 * milli)
    return Lease(
        *(name, "b", name[0], "batch", (share,), price, price, 0, 3_600_000),
        *(NOW - 60_000, NOW + 3_540_000, 100 * CREDIT),
    )


def market(bids: tuple[Bid, ...], leases: tuple[Lease, ...] = (), devices: int = 1) -> Snapshot:
    every = tuple(Device(f"d{number}", "n", "m", number, 80_000) for number in range(devices))
    return Snapshot(NOW, Rules(), every, leases, bids, 100_000)


def answered(asked: Snapshot) -> Outcome:
    """What the engine answers, in which it decides as the auction does."""
    found, plain = answer(asked), Auction().clear(asked)
    assert (found.awards, found.displacements, found.price_micros) == (
        plain.awards,
        plain.displacements,
        plain.price_micros,
    )
    assert [each.bid for each in found.refusals] == [each.bid for each in plain.refusals]
    return found


def placed(awards: tuple[Award, ...]) -> list[tuple[str, int, str, tuple[str, ...]]]:
    """Bid, package, its first device and what goes for it."""
    return [(each.bid, each.package, each.shares[0].device, each.displaces) for each in awards]


def test_room_that_came_free_too_late_goes_to_a_claim_only_where_a_lease_could_go_for_it() -> None:
    """When b takes the lease on d0, room is left over for what a was refused before."""
    asks = urgent("a", package(450, 3 * CREDIT), package(700, 150_000)), urgent("b", package(500, CREDIT))
    small, other = holding("z-small", "d0", 600, 200_000), holding("z-other", "d1", 1000, 200_000)
    alone = answered(market(asks, (small,)))
    assert placed(alone.awards) == [("b", 0, "d0", ("z-small",))]
    beside = answered(market(asks, (small, other), devices=2))
    assert placed(beside.awards) == [("b", 0, "d0", ("z-small",)), ("a", 0, "d0", ())]


def test_no_bid_of_an_agent_displaces_a_lease_of_its_own_that_is_dearer() -> None:
    """Though it would be worth enough for anybody else, and though the second of its bids offers more."""
    own = holding("a-own", "d0", 500, CREDIT * 12 // 10)

    def bids(agent: str) -> tuple[Bid, ...]:
        either = package(1000, CREDIT), package(600, 200_000)
        return urgent(f"{agent}-1", package(1000, CREDIT * 8 // 10)), urgent(f"{agent}-2", *either)

    assert answered(market(bids("a"), (own,))).awards == ()
    assert placed(answered(market(bids("b"), (own,))).awards) == [("b-1", 0, "d0", ("a-own",))]


def test_a_package_that_asks_for_nothing_is_passed_over() -> None:
    asks = urgent("a", package(0, CREDIT)), urgent("b", package(0, CREDIT), package(500, CREDIT))
    asked = market(asks)
    found = answered(asked)
    assert placed(found.awards) == [("b", 1, "d0", ())]
    assert found.refusals == Auction().clear(asked).refusals
    assert placed(answer_one(asked, "b").awards) == placed(found.awards)
    alone = answer_one(asked, "a")
    assert alone.awards == () and alone.refusals == Auction().express(asked, "a").refusals


def test_bids_that_ask_for_the_same_impossible_thing_are_told_the_same() -> None:
    found = answered(market((urgent("a", package(1001, CREDIT)), urgent("b", package(1001, CREDIT)))))
    why, again = (each.explanation for each in found.refusals)
    assert why == again and why.constraint is Constraint.MILLI_GPU and why.winning_price_micros is None


def on_device(leases: Leases, device: int) -> list[int]:
    """The leases on a device, the last first."""
    shares, found = leases.shares(), []
    at = int(shares.on_device[device])
    while at:
        found.append(int(shares.lease[at - 1]))
        at = int(shares.after[at - 1])
    return found


def test_many_leases_of_a_device_end_at_once_and_the_others_stay_known() -> None:
    book = pool(1)
    leases, small = Leases(book), book.catalogue.kind(1, 40, 0)
    for number in range(22):
        bid(book, small, 2 * CREDIT - 1000 * number, agent=1)
    held = accept(book, leases, clear(book, 0), now_ms=0)
    assert on_device(leases, 0) == held[::-1].tolist()
    leases.end(held[3:21])
    assert on_device(leases, 0) == [held[21], held[2], held[1], held[0]]
    shares, prices = leases.shares(), [2 * CREDIT - 1000 * number for number in (0, 1, 2, 21)]
    assert (shares.cheapest[0], shares.dearest[0]) == (prices[3], prices[0])
    assert (shares.value[0], book.devices.later_milli[0]) == (40 * sum(prices), 160)
    leases.end(held[2:3])
    assert on_device(leases, 0) == [held[21], held[1], held[0]]


def test_an_arriving_bid_finds_the_cheapest_of_very_many_leases() -> None:
    book = pool(70)
    leases, whole = Leases(book), book.catalogue.kind(1, 1000, 0)
    for number in range(70):
        bid(book, whole, 2 * CREDIT - 1000 * number, agent=1)
    held = accept(book, leases, clear(book, 0), now_ms=0)
    row = bid(book, whole, 9 * CREDIT, agent=2, latency=True)
    express = Express(book, leases, Terms(quantum_ms=0, epsilon_percent=10))
    assert express.decide(row, 0, now_ms=10).victims.tolist() == [held[69]]


def test_an_arriving_bid_displaces_nobody_whose_restart_it_cannot_pay() -> None:
    book = pool(1)
    leases, whole, restart = Leases(book), book.catalogue.kind(1, 1000, 0), 10_000
    bid(book, whole, CREDIT, agent=1)
    held = accept(book, leases, clear(book, 0), now_ms=0, restart=np.array([restart]))
    row = bid(book, whole, 3 * CREDIT, agent=2, latency=True)
    express, needed = Express(book, leases, Terms(0, 10)), charge(3 * CREDIT, 1000, 60_000) + restart
    book.set_funds(np.array([2]), np.array([needed - 1]))
    assert express.decide(row, 0, now_ms=10).option == NONE
    book.set_funds(np.array([2]), np.array([needed]))
    found = express.decide(row, 0, now_ms=10)
    assert (found.option, found.victims.tolist(), found.restart_costs_micros) == (row, held.tolist(), restart)


def where(cleared: Cleared) -> dict[int, int]:
    """The device of each winner, of bids for one."""
    return dict(zip(cleared.won.options.tolist(), cleared.won.devices.tolist(), strict=True))


def crowded(devices: int) -> Book:
    """For each device three bids for all of it, no two at one price."""
    book = pool(devices)
    whole = book.catalogue.kind(1, 1000, 0)
    for number in range(3 * devices):
        bid(book, whole, CREDIT - number)
    return book


def test_the_search_leaves_the_densest_winners_of_very_many_where_they_are() -> None:
    devices = WINDOW // 2 + 30
    book = crowded(devices)
    greedy, found = clear(book, 0), clear(book, 0, improve_steps=3)
    assert found.won.options[:30].tolist() == greedy.won.options[:30].tolist()
    assert found.won.devices[:30].tolist() == greedy.won.devices[:30].tolist()
    # No packing is better than that in which the dearest win.
    assert worth(book, found) == worth(book, greedy)
    assert sorted(where(found).values()) == list(range(devices))


def test_a_window_has_the_bids_at_the_margin_and_the_devices_that_they_are_on() -> None:
    devices = WINDOW // 2 + 30
    book = crowded(devices)
    order, won, options = book.order(0), clear(book, 0).won, book.options()
    window = open_window(order, won, options, book.catalogue.columns(), book.devices)
    # The bids came with the densest first.
    assert window.heads.tolist() == list(range(30, 30 + WINDOW))
    assert window.devices.tolist() == sorted(won.devices[30:].tolist())
    assert window.state[:, 0].tolist() == [*range(30, devices), *[NONE] * (WINDOW // 2)]
    assert window.value[0] == 1000 * options.price[30:devices].sum()


def test_the_search_puts_in_packages_that_some_device_can_hold_and_that_offer_the_reserve() -> None:
    """The halves that a denser third keeps out may be huge too, which no device can hold. On the other device
    there is room for something small, which its bid offers too little for."""
    book = pool(2)
    leases, most = Leases(book), book.catalogue.kind(1, 950, 0)
    bid(book, most, CREDIT, agent=1)
    accept(book, leases, clear(book, 0), now_ms=0)
    roomy = int(book.devices.later_milli.argmin())
    book.set_reserve(1000)
    huge, whole, dense, half, small = (
        book.catalogue.kind(1, milli, 0) for milli in (5000, 1000, 600, 500, 50)
    )
    first = bid(book, dense, 11 * CREDIT)
    bid(book, book.catalogue.kind(1, 400, 0), 1000)

    def either(*packages: tuple[int, int]) -> list[int]:
        terms = [(kind, price, 60_000) for kind, price in packages]
        rows: list[int] = book.add_packages(0, terms, submitted_ms=1, latency=False).tolist()
        return rows

    halves = [either((huge, 20 * CREDIT), (half, 10 * CREDIT))[1] for _ in range(2)]
    either((whole, 1000), (small, 999))
    assert first in clear(book, 0).won.options
    found = clear(book, 0, improve_steps=100)
    assert sorted(found.won.options.tolist()) == halves
    assert sorted(where(found).values()) == [roomy, roomy]
