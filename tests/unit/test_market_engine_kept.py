"""A pool that the engine keeps: what it is asked of bids and money that it does not know."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

pytest.importorskip("numba")

from walras.core.errors import Invalid
from walras.market.auction import Auction
from walras.market.engine.standing import Standing
from walras.market.engine.supports import FUNDS_MAX
from walras.market.types import Bid, Device, Escrow, Lease, Outcome, Package, Rules, Share, Snapshot

POOL = tuple(Device(f"d{number}", "n", "m", number, 80_000) for number in range(2))


def kept() -> Standing:
    return Standing(POOL, Rules(), ("a", "b"), priced=True)


def test_a_bid_that_it_was_not_told_of_wins_nothing() -> None:
    outcome = kept().express("unheard-of", 1_000, 100_000)
    assert outcome.awards == () and outcome.displacements == ()


def test_more_money_than_it_counts_is_refused() -> None:
    with pytest.raises(Invalid, match="more than the engine counts"):
        kept().told.pay((0, FUNDS_MAX + 1))


# Room for gangs, against the plain market

NOW_MS = 100_000
TERM_MS = 60_000
FUNDS = 10**12
DEVICES = tuple(Device(f"d{number:02}", f"n{number // 4}", "m", number % 4, 80_000) for number in range(12))


def whole(*numbers: int) -> tuple[Share, ...]:
    return tuple(Share(DEVICES[number].id, 1000, 80_000) for number in numbers)


def gang(name: str, devices: int, price: int, *, came_ms: int = 90_000, term_ms: int = TERM_MS) -> Bid:
    package = Package(devices, 1000, 0, term_ms, price)
    return Bid(name, "a", "batch", (package,), 0, came_ms, FUNDS)


def drawn_leases(chance: Random) -> tuple[Lease, ...]:
    """On most devices, some of several, in all states; some that drain where others wait for their room."""
    numbers, leases = list(range(len(DEVICES))), list[Lease]()
    chance.shuffle(numbers)
    while len(numbers) > chance.choice((0, 1, 3)):
        mine = whole(*(numbers.pop() for _ in range(min(len(numbers), chance.choice((1, 1, 2, 3))))))
        name, price = f"l{len(leases):02}", chance.choice((2, 3, 4)) * 100_000
        start_ms = chance.choice((50_000, 95_000))
        end_ms = NOW_MS + chance.choice((1_000, 2_000, 20_000, 20_000, 50_000))
        lease = Lease(
            *(name, name, "b", "batch", mine, 100_000, price, 0, TERM_MS, start_ms, end_ms, FUNDS, "active")
        )
        state = chance.choice(("active", "active", "active", "draining", "waiting"))
        if state != "active":
            leases.append(replace(lease, state="draining", drains_at_ms=NOW_MS + chance.choice((500, 1_500))))
        if state == "waiting":
            lease = replace(lease, id=f"{name}w", state="reserved", start_ms=NOW_MS - 500)
        if state != "draining":
            leases.append(lease)
    return tuple(leases)


def drawn(chance: Random, escrows: tuple[Escrow, ...]) -> Snapshot:
    names = [f"b{number}" for number in range(9)]
    bids = tuple(
        gang(
            name,
            chance.choice((1, 2, 3, 4, 8)),
            chance.choice((2, 3, 4)) * 100_000,
            came_ms=chance.choice((40_000, 60_000, 97_000)),
            term_ms=chance.choice((5_000, TERM_MS)),
        )
        for name in names
    )
    return Snapshot(
        NOW_MS, Rules(), DEVICES, drawn_leases(chance), bids, 100_000, frozenset(), escrows=escrows
    )


def decided(snapshot: Snapshot) -> Outcome:
    """By the engine, which keeps the pool."""
    standing = Standing(snapshot.devices, snapshot.rules, ("a", "b"), priced=True)
    standing.told.pay((FUNDS, FUNDS))
    standing.told.tell({bid.id: bid for bid in snapshot.bids}, {each.id: each for each in snapshot.leases})
    return standing.clear(snapshot.now_ms, snapshot.price_micros, snapshot.escrows).outcome


@pytest.mark.parametrize("seed", range(60))
def test_it_keeps_room_for_gangs_as_the_plain_market_does(seed: int) -> None:
    """In a pool as it may be, then with what was kept in one that has changed."""
    chance = Random(seed)
    first = drawn(chance, ())
    kept = decided(first).escrows
    for snapshot in (first, drawn(chance, kept), replace(first, escrows=kept)):
        plain = replace(Auction().clear(snapshot), refusals=())
        assert decided(snapshot) == plain


def test_what_is_compared_has_room_that_is_kept_filled_and_given_up() -> None:
    """Else it would say little."""
    kept = filled = ended = 0
    for seed in range(60):
        chance = Random(seed)
        first = drawn(chance, ())
        escrows = decided(first).escrows
        outcome = decided(drawn(chance, escrows))
        rooms = {share.device for escrow in escrows for share in escrow.shares}
        kept += len(outcome.escrows)
        filled += sum(share.device in rooms for award in outcome.awards for share in award.shares)
        ended += sum(each.reason == "gang" for each in outcome.displacements)
    assert min(kept, filled, ended) > 0
