"""The engine as the mechanism has it: a snapshot in, an outcome out."""

from __future__ import annotations

from walras.market.engine.clearing import Cleared, clear
from walras.market.engine.express import Decided, Express
from walras.market.engine.jit import NONE
from walras.market.engine.refusals import Decision, Refusals
from walras.market.engine.searching import Search
from walras.market.engine.snapshots import terms_of, translate
from walras.market.prepared import as_of_now
from walras.market.types import Outcome, Refusal, Snapshot


def answer(snapshot: Snapshot) -> Outcome:
    """As `walras.market.auction.Auction.clear`, of a snapshot that the engine `knows`; winning prices are
    looked for as long as there is time. Raises Invalid out of bounds."""
    snapshot = as_of_now(snapshot)
    translated, posted = translate(snapshot), snapshot.price_micros
    book, leases, terms = translated.book, translated.leases, terms_of(snapshot.rules)

    def decide() -> Cleared:
        return clear(book, posted, leases, terms, snapshot.now_ms)

    def wins(option: int, price: int, funded: bool) -> bool:
        with translated.instead(option, price, funded) as head:
            return bool(decide().won.heads[head] == 1)

    cleared = decide()
    options, gone = book.options(), cleared.gone.logged
    levels = options.density[cleared.won.options].tolist() + leases.densities(gone).tolist()
    levels += leases.densities(cleared.renewed).tolist()
    levels += [book.reserve_micros, max(book.reserve_micros, posted)]
    search = Search(wins, len(snapshot.bids), levels)
    decision = Decision(cleared.price_micros, book.reserve_micros, cleared.won.purse)
    refusals, won = Refusals(snapshot, translated, decision, search, None), translated.winners(cleared)
    return Outcome(
        translated.awards(cleared),
        tuple(Refusal(bid.id, refusals.explain(bid)) for bid in snapshot.bids if bid.id not in won),
        translated.renewals(cleared, snapshot.now_ms),
        translated.displacements(cleared, snapshot.now_ms + snapshot.rules.notice_ms),
        cleared.price_micros,
    )


def answer_one(snapshot: Snapshot, bid_id: str) -> Outcome:
    """As `walras.market.auction.Auction.express`, of a snapshot that the engine `knows` and that has the bid.
    Raises Invalid out of bounds."""
    snapshot = as_of_now(snapshot)
    translated, posted = translate(snapshot), snapshot.price_micros
    floor = max(posted, snapshot.rules.reserve_micros)
    express = Express(translated.book, translated.leases, terms_of(snapshot.rules))

    def decide(row: int) -> Decided:
        return express.decide(row, posted, snapshot.now_ms)

    def wins(option: int, price: int, funded: bool) -> bool:
        with translated.instead(option, price, funded) as head:
            return decide(head).option != NONE

    row = translated.rows.get(bid_id)
    price = floor
    if row is not None:
        decided = decide(row)
        price, awards = decided.price_micros, translated.award(decided)
        if awards:
            displacements = translated.displaced(decided, snapshot.now_ms + snapshot.rules.notice_ms)
            return Outcome(awards, (), (), displacements, price)
    search = Search(wins, 1, None)
    decision = Decision(price, floor, translated.book.funds)
    refusals = Refusals(snapshot, translated, decision, search, bid_id)
    bid = next(bid for bid in snapshot.bids if bid.id == bid_id)
    return Outcome((), (Refusal(bid_id, refusals.explain(bid)),), (), (), price)
