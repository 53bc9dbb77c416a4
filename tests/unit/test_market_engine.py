"""The parts of the compiled engine: exact amounts, kept order, leases, placement, the search for packings."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from support.engine import WHOLE, bid, devices_of, pool, worth

from walras.core.errors import Invalid
from walras.core.money import charge
from walras.devices.placement import Shape, cheapest_cover
from walras.market.engine.amounts import PRICE_MAX, TERM_MAX, charges, hourly
from walras.market.engine.book import Book
from walras.market.engine.clearing import accept, clear
from walras.market.engine.covering import cheap, cheapest, cheapest_of_few, parts_for
from walras.market.engine.express import Express
from walras.market.engine.fragmentation import MEMORIES_MAX, WEIGHT_MAX, fragmented, tabulate
from walras.market.engine.jit import LIMIT, NONE
from walras.market.engine.leases import DRAINING, Leases
from walras.market.engine.terms import Terms

CREDIT = 1_000_000


def test_a_column_of_charges_is_exact_where_a_product_would_not_fit() -> None:
    chance = random.Random(1)
    prices = [0, 1, PRICE_MAX] + [chance.randint(0, PRICE_MAX) for _ in range(300)]
    milli = [chance.randint(1, 1 << 20) for _ in prices]
    terms = [1, TERM_MAX, TERM_MAX] + [chance.randint(1, 10 ** chance.randint(1, 10)) for _ in range(300)]
    amounts = [each * term for each, term in zip(milli, terms, strict=True)]
    found = charges(np.array(prices), np.array(amounts))
    expected = [charge(*each) for each in zip(prices, milli, terms, strict=True)]
    assert found.tolist() == [min(each, (1 << 62) - 1) for each in expected]


@pytest.mark.parametrize(("cost", "term"), [(0, 1), (7, 60_000), (123_456_789, 3_599_999), (10**12, 10**9)])
def test_a_cost_that_comes_once_is_spread_over_the_term_and_rounded_up(cost: int, term: int) -> None:
    assert hourly(cost, term) == -(-cost * 100 * 3_600_000_000 // term)


def test_a_cost_beyond_all_packages_is_cut_off() -> None:
    assert hourly(10**15, 1) > 1 << 58


def test_fragmentation_is_tabulated_for_many_sizes_and_much_demand() -> None:
    """Of more memory sizes than are told apart some count as the next larger; weights stay within bounds."""
    count = 3 * MEMORIES_MAX
    milli, memory = np.full(count, 500), np.arange(1, count + 1) * 10
    table = tabulate(milli, memory, np.full(count, 2 * WEIGHT_MAX // count), 1000)
    assert table[0].max() <= WEIGHT_MAX + count
    assert fragmented(400, 10**6, table) == 400 * table[0, 0]
    assert fragmented(500, 10**6, table) == 0
    assert 0 < fragmented(500, 10 * count // 2, table) < fragmented(500, 0, table)


def test_the_kept_order_is_that_of_a_book_made_anew() -> None:
    chance, book = random.Random(2), pool(2)
    kinds = [book.catalogue.kind(1, milli, 0) for milli in (100, 330, 810)]
    live: dict[int, int] = {}  # the price of each row
    for _ in range(60):
        for _ in range(chance.choice((1, 3, 40))):
            price = chance.choice((5, 50, CREDIT, chance.randint(1, CREDIT)))
            row = bid(book, chance.choice(kinds), price, latency=chance.random() < 0.3)
            live[row] = price
        for row in [row for row in live if chance.random() < 0.05]:
            book.remove_bids(np.array([row]))
            del live[row]
        for row in [row for row in live if chance.random() < 0.05]:
            live[row] = chance.randint(1, CREDIT)
            book.reprice(np.array([row]), np.array([live[row]]))
        book.set_reserve(chance.choice((1, 1, 40)))
        clear(book, 0)
        ranking, options = book.order(0), book.options()
        rows = [row for each in ranking for row in each.rows[each.tags != NONE].tolist()]
        assert sorted(rows) == sorted(row for row, price in live.items() if price >= book.reserve_micros)
        for each in ranking:
            kept = [
                row for row, tag in zip(each.rows.tolist(), each.tags.tolist(), strict=True) if tag != NONE
            ]
            key = [
                (-int(options.density[row]), int(options.rank[row]), int(options.told[row])) for row in kept
            ]
            assert key == sorted(key)


def test_what_was_won_is_leased_and_free_again_when_the_leases_end() -> None:
    book = pool(4)
    leases, rows = Leases(book), []
    half, gang = book.catalogue.kind(1, 500, 0), book.catalogue.kind(3, 1000, 0)
    rows = [bid(book, half, 3 * CREDIT), bid(book, gang, 2 * CREDIT), bid(book, half, CREDIT)]
    cleared = clear(book, 0)
    assert sorted(cleared.won.options.tolist()) == sorted(rows)
    held = accept(book, leases, cleared, now_ms=5)
    assert book.devices.later_milli.sum() == 4000 and book.devices.later_memory.sum() == 4 * 80_000
    assert clear(book, 0).won.options.size == 0
    leases.drain(held[:1])
    assert book.devices.now_milli.sum() == 4000 > book.devices.later_milli.sum()
    leases.end(held)
    taken = (
        book.devices.now_milli,
        book.devices.now_memory,
        book.devices.later_milli,
        book.devices.later_memory,
    )
    assert not any(column.any() for column in taken)
    assert not any(column.any() for column in (leases.shares().on_device, leases.shares().value))
    assert leases.waiting == 0


def test_a_share_on_a_draining_lease_waits_for_it() -> None:
    book = pool(1)
    leases, kind = Leases(book), book.catalogue.kind(1, 1000, 0)
    bid(book, kind, CREDIT)
    held = accept(book, leases, clear(book, 0), now_ms=1)
    leases.drain(held)
    assert leases.table["state"][held[0]] == DRAINING
    row = bid(book, kind, CREDIT)
    cleared = clear(book, 0)
    assert cleared.won.options.tolist() == [row] and cleared.won.now.tolist() == [0]


def test_a_gang_that_wants_to_be_together_gets_one_node() -> None:
    book = pool(8)
    one, pair = book.catalogue.kind(1, 1000, 0), book.catalogue.kind(4, 1000, 0, together=True)
    apart = book.catalogue.kind(3, 1000, 0)
    bid(book, one, 9 * CREDIT)
    row = bid(book, pair, 5 * CREDIT)
    rest = bid(book, apart, CREDIT)
    cleared = clear(book, 0)
    assert devices_of(cleared, row) == [4, 5, 6, 7]
    assert devices_of(cleared, rest) == [1, 2, 3]


def test_a_gang_is_spread_when_no_node_has_the_room() -> None:
    book = pool(8)
    leases, one = Leases(book), book.catalogue.kind(1, 1000, 0)
    for _ in range(5):
        bid(book, one, CREDIT)
    held = accept(book, leases, clear(book, 0), now_ms=1)
    leases.end(held[[0, 4]])
    row = bid(book, book.catalogue.kind(5, 1000, 0, together=True), CREDIT)
    assert devices_of(clear(book, 0), row) == [0, 4, 5, 6, 7]


def test_nobody_wins_beyond_its_funds() -> None:
    book = pool(4)
    kind = book.catalogue.kind(1, 1000, 0)
    book.set_funds(np.array([1]), np.array([charge(CREDIT, 1000, 60_000) * 2]))
    for _ in range(4):
        bid(book, kind, CREDIT, agent=1)
    cleared = clear(book, 0)
    assert cleared.won.options.size == 2 and cleared.won.purse[1] == 0


def test_a_bid_of_several_packages_wins_one_of_them() -> None:
    book = pool(1)
    large, small = book.catalogue.kind(1, 1000, 0), book.catalogue.kind(1, 500, 0)
    rival = bid(book, small, 10 * CREDIT)
    rows = book.add_packages(
        0, [(large, 5 * CREDIT, 60_000), (small, CREDIT, 60_000)], submitted_ms=1, latency=False
    )
    assert clear(book, 0).won.options.tolist() == [rival, rows[1]]
    book.remove_bids(np.array([rival]))
    assert clear(book, 0).won.options.tolist() == [rows[0]]
    book.remove_bids(rows[:1])
    assert clear(book, 0).won.options.size == 0


def test_the_price_is_the_best_density_that_lost() -> None:
    book = pool(1)
    kind = book.catalogue.kind(1, 1000, 0)
    winner, loser = bid(book, kind, 3 * CREDIT), bid(book, kind, 2 * CREDIT)
    bid(book, kind, CREDIT)
    assert clear(book, 0).price_micros == 2 * CREDIT
    assert clear(book, 0).pays.tolist() == [2 * CREDIT]
    book.remove_bids(np.array([loser, winner]))
    assert clear(book, 0).price_micros == book.reserve_micros


def test_on_arrival_the_cheapest_lease_goes_that_is_worth_enough_less() -> None:
    book = pool(3)
    leases, kind = Leases(book), book.catalogue.kind(1, 1000, 0)
    for price in (3 * CREDIT, CREDIT, 2 * CREDIT):
        bid(book, kind, price, agent=1)
    held = accept(book, leases, clear(book, 0), now_ms=0)
    express = Express(book, leases, Terms(quantum_ms=5_000, epsilon_percent=10))
    row = bid(book, kind, CREDIT * 11 // 10, agent=2, latency=True)
    assert express.decide(row, 0, now_ms=4_999).option == NONE
    found = express.decide(row, 0, now_ms=5_000)
    assert (found.option, found.victims.tolist()) == (row, [held[2]])
    book.reprice(np.array([row]), np.array([CREDIT * 11 // 10 - 1]))
    assert express.decide(row, 0, now_ms=5_000).option == NONE


def test_deciding_leaves_the_book_as_it_was() -> None:
    book = pool(4)
    leases, kind = Leases(book), book.catalogue.kind(2, 500, 0)
    for _ in range(4):
        bid(book, kind, CREDIT)
    accept(book, leases, clear(book, 0), now_ms=0)
    row = bid(book, kind, 9 * CREDIT, agent=2, latency=True)
    before = [column.copy() for column in (*book.devices, *leases.shares())]
    express = Express(book, leases, Terms(0, 10))
    first, again = express.decide(row, 0, 10), express.decide(row, 0, 10)
    assert first.victims.tolist() == again.victims.tolist() != []
    assert all((a == b).all() for a, b in zip(before, (*book.devices, *leases.shares()), strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_the_cheapest_set_of_leases_is_that_of_the_auction(seed: int) -> None:
    """Few by every set, some by branch and bound, many greedily."""
    chance = random.Random(seed)
    for count, find in ((5, cheapest_of_few), (11, cheapest), (17, cheap)):
        shapes = [
            (Shape(chance.choice((50, 100, 125)), chance.randint(0, 9)), chance.randint(1, 5) * 1000)
            for _ in range(count)
        ]
        shapes.sort(key=lambda part: part[1])
        parts = parts_for(count)
        for at, (shape, cost) in enumerate(shapes):
            parts.milli[at], parts.memory[at] = shape
            parts.cost[at], parts.told[at] = cost, at
        for needed in (Shape(150, 10), Shape(0, 20), Shape(400, 0), Shape(9000, 0)):
            cover = cheapest_cover(needed, shapes)
            cost = find(needed.milli, needed.memory_mib, count, LIMIT - 1, parts)
            assert cost == (LIMIT if cover is None else sum(shapes[at][1] for at in cover))
            if cover is not None:
                assert np.flatnonzero(parts.chosen[:count]).tolist() == list(cover)
                assert find(needed.milli, needed.memory_mib, count, cost - 1, parts) == LIMIT


def test_kinds_are_kept_however_many_there_are() -> None:
    book = pool(1)
    kinds = [book.catalogue.kind(1, milli, 0) for milli in range(1, 200)]
    assert len(set(kinds)) == 199
    assert book.catalogue.kind(1, 77, 0) == kinds[76]
    nothing = np.array([0])
    assert book.catalogue.lease_densities(np.array([CREDIT]), nothing, nothing, nothing).tolist() == [0]


def test_a_reserved_lease_starts_when_what_drains_is_gone() -> None:
    book = pool(1)
    leases, kind = Leases(book), book.catalogue.kind(1, 1000, 0)
    bid(book, kind, CREDIT)
    first = accept(book, leases, clear(book, 0), now_ms=0)
    leases.drain(first)
    bid(book, kind, CREDIT)
    second = accept(book, leases, clear(book, 0), now_ms=1)
    assert leases.waiting == 2 and book.devices.now_milli.tolist() == [1000]
    leases.end(first)
    assert book.devices.now_milli.tolist() == [0]
    leases.start(second)
    assert leases.waiting == 0 and book.devices.now_milli.tolist() == [1000]


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_packings_that_are_worth_no_less_and_fit(seed: int) -> None:
    chance, book = random.Random(seed), pool(6)
    book.set_funds(np.array([1]), np.array([chance.randint(0, CREDIT)]))
    for _ in range(30):
        kind = book.catalogue.kind(chance.choice((1, 1, 2, 4)), chance.choice((250, 400, 700, 1000)), 0)
        bid(book, kind, chance.randint(1, CREDIT), agent=chance.randint(0, 2))
    greedy, found = clear(book, 0), clear(book, 0, improve_steps=500)
    again = clear(book, 0, improve_steps=500)
    assert worth(book, found) >= worth(book, greedy)
    assert found.won.options.tolist() == again.won.options.tolist()
    options, kinds, taken = book.options(), book.catalogue.columns(), np.zeros(6, np.int64)
    for at, row in enumerate(found.won.options.tolist()):
        held = found.won.devices[found.won.start[at] : found.won.start[at + 1]]
        assert len(set(held.tolist())) == kinds.devices[options.kind[row]]
        taken[held] += kinds.milli[options.kind[row]]
    assert taken.max() <= 1000
    spent = np.bincount(options.agent[found.won.options], options.cost[found.won.options], minlength=3)
    assert (spent <= book.funds).all()


def test_the_search_finds_the_two_halves_that_a_denser_third_kept_out() -> None:
    """Greedy takes 600 at 11 and then has no room for two of 500 at 10."""
    book = pool(1)
    dense = bid(book, book.catalogue.kind(1, 600, 0), 11 * CREDIT)
    halves = [bid(book, book.catalogue.kind(1, 500, 0), 10 * CREDIT) for _ in range(2)]
    bid(book, book.catalogue.kind(1, 400, 0), 1)
    assert dense in clear(book, 0).won.options
    assert sorted(clear(book, 0, improve_steps=50).won.options.tolist()) == sorted(halves)


def test_what_is_out_of_bounds_is_refused() -> None:
    book = pool(1)
    kind = book.catalogue.kind(1, 1000, 0)
    with pytest.raises(Invalid):
        bid(book, kind, PRICE_MAX + 1)
    with pytest.raises(Invalid):
        bid(book, kind + 1, 1)
    with pytest.raises(Invalid):
        bid(book, kind, 1, agent=99)
    with pytest.raises(Invalid):
        book.reprice(np.array([bid(book, kind, 1)]), np.array([-1]))
    with pytest.raises(Invalid):
        book.catalogue.kind(0, 1000, 0)
    with pytest.raises(Invalid):
        Terms(0, 500)
    with pytest.raises(Invalid):
        Book((WHOLE,) * 63, np.zeros(1, np.int64), np.zeros(1, np.int64))
    book = pool(1)
    with pytest.raises(Invalid):
        Book((Shape(2000, 1),), np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert clear(book, 0).won.options.size == 0
    bid(book, book.catalogue.kind(1, 5000, 0), 1)
    assert clear(book, 0).won.options.size == 0


def test_the_command_and_a_small_market_never_wait_for_the_compiler() -> None:
    code = "import sys, walras.cli.main, walras.market.auction; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_leases_that_are_renewed_end_a_term_later() -> None:
    book = pool(2)
    leases, kind = Leases(book), book.catalogue.kind(1, 1000, 0)
    for _ in range(2):
        bid(book, kind, CREDIT)
    held = accept(book, leases, clear(book, 0), now_ms=0)
    terms = Terms(quantum_ms=5_000, epsilon_percent=10, notice_ms=2_000, tick_ms=1_000)
    assert clear(book, 0, leases, terms, 0).renewed.size == 0
    cleared = clear(book, 0, leases, terms, 58_000)
    assert sorted(cleared.renewed.tolist()) == sorted(held.tolist())
    leases.renew(cleared.renewed, 58_000)
    assert leases.table["end"][held].tolist() == [120_000, 120_000]


def test_of_many_leases_on_a_device_the_cheapest_go_and_none_that_is_not_needed() -> None:
    """Above a dozen the set is looked for greedily: the cheapest per milli, then what can be is left out."""
    book = pool(1)
    leases, small = Leases(book), book.catalogue.kind(1, 50, 0)
    prices = [CREDIT + 1000 * each for each in range(19)]
    rows = [bid(book, small, price, agent=1) for price in prices]
    wide = bid(book, book.catalogue.kind(1, 50, 0), CREDIT // 2, agent=1)
    held = accept(book, leases, clear(book, 0), now_ms=0)
    assert held.size == len(rows) + 1 and wide not in rows
    express = Express(book, leases, Terms(quantum_ms=0, epsilon_percent=10))
    row = bid(book, book.catalogue.kind(1, 200, 0), 3 * CREDIT, agent=2, latency=True)
    gone = express.decide(row, 0, now_ms=10).victims
    assert sorted(leases.table["price"][gone].tolist()) == [CREDIT // 2, *prices[:3]]
