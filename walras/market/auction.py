"""The auction: density order, uniform price, right to renew, displacement by the latency class.

Greedy by density after Lehmann, O'Callaghan and Shoham, "Truth revelation in approximately efficient
combinatorial auctions" (JACM 2002); a uniform price of the best density that lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from walras.core.errors import NotFound
from walras.core.money import charge
from walras.market.backfill import backfill
from walras.market.clearing import Clearing, Override, Pass, Win, unworthy
from walras.market.escrow import giving_way, hold, hold_for_tick, keep, settle
from walras.market.explain import Explainer
from walras.market.large import LARGE, decided
from walras.market.payments import Payments
from walras.market.prepared import Prepared, term_cost
from walras.market.types import Award, Displacement, Lease, Outcome, Refusal, Renewal, Snapshot
from walras.market.winning import Decide


@dataclass(frozen=True, slots=True)
class Decision:
    """A pass that stands, with its price."""

    clearing: Clearing
    result: Pass
    price_micros: int


@dataclass(frozen=True, slots=True)
class Auction:
    """The mechanism "auction". engine_from: from so many bids times devices on the compiled engine decides;
    it changes no decision."""

    engine_from: int = LARGE

    def clear(self, snapshot: Snapshot) -> Outcome:
        """Renew what its holder still pays for, sell what is free, and let latency bids displace."""
        held = hold_for_tick(snapshot)
        outcome = decided(held.shown, least=self.engine_from) or _clear(held.shown)
        held = keep(held, outcome)
        if held.escrows:
            outcome = backfill(held, outcome)
        return settle(held, outcome)

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        """Sell to one bid at the posted price, by the same rules; renew nothing. Raises NotFound.

        What is kept for less dense bids is kept from it only as far as it wins without.
        """
        if all(bid.id != bid_id for bid in snapshot.bids):
            raise NotFound(f'bid "{bid_id}" is not pending')
        found = []
        for escrows in giving_way(snapshot, bid_id):
            shown = hold(replace(snapshot, escrows=escrows)).shown
            found.append(decided(shown, bid_id, self.engine_from) or _express(shown, bid_id))
            if found[-1].awards:
                return replace(found[-1], memory=snapshot.memory, escrows=escrows)
        return replace(found[0], memory=snapshot.memory, escrows=snapshot.escrows)


def _clear(snapshot: Snapshot) -> Outcome:
    prepared = Prepared(snapshot)

    def decide(override: Override | None) -> Decision:
        return decide_tick(prepared, override)

    return _outcome(prepared, decide, Explainer(prepared, decide))


def _express(snapshot: Snapshot, bid_id: str) -> Outcome:
    prepared = Prepared(snapshot)

    def decide(override: Override | None) -> Decision:
        return decide_one(prepared, bid_id, override)

    return _outcome(prepared, decide, Explainer(prepared, decide, only=bid_id))


def decide_tick(prepared: Prepared, override: Override | None = None) -> Decision:
    """Clear everything: again without giving up what is not worth it or renewing what cannot be paid."""
    kept: frozenset[str] = frozenset()
    broke: frozenset[str] = frozenset()
    for _ in range(2 * len(prepared.due) + 1):
        clearing = Clearing(prepared, kept=kept, broke=broke, override=override)
        # Without renewals one pass stands, so that a question about one bid is answered once it wins.
        result = clearing.run(until=override.bid if override and not prepared.due else None)
        if bad := unworthy(result, clearing.price):
            kept |= bad
            continue
        price = _uniform_price(prepared, result, prepared.snapshot.rules.reserve_micros)
        if short := _overdrawn(prepared, clearing, result, price, override):
            broke |= {short}
            continue
        return Decision(clearing, result, price)
    raise AssertionError("every round keeps or ends one more lease that is up for renewal")


def decide_one(prepared: Prepared, bid_id: str, override: Override | None = None) -> Decision:
    """Decide one bid at the posted price."""
    posted = max(prepared.snapshot.price_micros, prepared.snapshot.rules.reserve_micros)
    clearing = Clearing(prepared, only=bid_id, override=override, floor_micros=posted)
    result = clearing.run()
    return Decision(clearing, result, _uniform_price(prepared, result, posted))


def _uniform_price(prepared: Prepared, result: Pass, least: int) -> int:
    """The best density that lost: of a bid that could pay, or of a lease that had to go."""
    gone = (*result.given_up, *result.displaced)
    return max(
        [least, *(density for density, _ in result.lost), *(prepared.densities[lease] for lease in gone)]
    )


def _overdrawn(
    prepared: Prepared, clearing: Clearing, result: Pass, price: int, override: Override | None
) -> str | None:
    """The last lease in order whose renewal its agent cannot pay beside the rest, or None."""
    spending: dict[str, int] = {}
    for lease in clearing.renewing:
        cost = term_cost(lease, prepared.price_of(lease, price))
        spending[lease.agent] = spending.get(lease.agent, 0) + cost
    for win in result.wins:
        bid = win.option.bid
        if bid.agent in spending and not (override and override.funded and override.bid == bid.id):
            most = _most_to_pay(prepared, clearing, win, price)
            spending[bid.agent] += charge(most, win.milli, win.option.package.term_ms)
            spending[bid.agent] += win.compensations_micros
    for lease in reversed(clearing.renewing):
        if spending[lease.agent] > prepared.funds[lease.agent]:
            return lease.id
    return None


def _most_to_pay(prepared: Prepared, clearing: Clearing, win: Win, price: int) -> int:
    """What a winner pays at most for its lease at that uniform price."""
    offered = clearing.price(win.option)
    uniform = prepared.snapshot.rules.payments == "uniform"
    return min(win.option.at_speed(price), offered) if uniform else offered


def _award(clearing: Clearing, win: Win, price: int) -> Award:
    return Award(
        bid=win.option.bid.id,
        package=win.option.index,
        shares=win.shares,
        price_micros=price,
        max_price_micros=clearing.price(win.option),
        term_ms=win.option.package.term_ms,
        starts_now=win.starts_now,
        displaces=tuple(lease.id for lease in win.victims),
        compensations_micros=win.compensations_micros,
    )


def _outcome(prepared: Prepared, decide: Decide, explainer: Explainer) -> Outcome:
    decision = decide(None)
    clearing, result, price = decision.clearing, decision.result, decision.price_micros
    payments = Payments(prepared, decide, decision)
    now = prepared.snapshot.now_ms
    won = {win.option.bid.id for win in result.wins}
    renewals = tuple(
        Renewal(lease.id, payments.renewal(lease), max(lease.end_ms, now) + lease.term_ms)
        for lease in clearing.renewing
    )
    return Outcome(
        awards=tuple(_award(clearing, win, payments.price(win)) for win in result.wins),
        refusals=tuple(
            Refusal(bid.id, explainer.explain(bid, decision))
            for bid in prepared.snapshot.bids
            if bid.id not in won and explainer.only in (None, bid.id)
        ),
        renewals=renewals,
        displacements=_displacements(prepared, result),
        price_micros=price,
    )


def _displacements(prepared: Prepared, result: Pass) -> tuple[Displacement, ...]:
    noticed = prepared.snapshot.now_ms + prepared.snapshot.rules.notice_ms

    def ends(lease: Lease) -> int:
        """A lease that is not renewed keeps its term, and gets its notice."""
        return max(lease.end_ms, noticed)

    found = [
        Displacement(lease.id, win.option.bid.id, noticed, "resold" if win.buys else "outbid", micros)
        for win in result.wins
        for lease, micros in zip(win.victims, win.compensations, strict=True)
    ]
    found += [Displacement(lease.id, None, ends(lease), "price") for lease in result.given_up.values()]
    found += [
        Displacement(lease_id, None, ends(prepared.leases[lease_id]), reason)
        for lease_id, reason in result.ended.items()
    ]
    return tuple(found)
