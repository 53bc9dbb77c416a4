"""The market's turn: what is pending, what the mechanism decides, and each decision staged."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from walras.core.clock import Ids
from walras.core.errors import WalrasError
from walras.exchange.applying import Pending, award, displace
from walras.exchange.book import Pool, bid_id, is_pending, read_bid, submitted_ms
from walras.exchange.carried import Carried
from walras.exchange.demand import BIDS
from walras.exchange.effects import Effects
from walras.exchange.explaining import Explainer
from walras.exchange.naming import rename
from walras.exchange.proxy import Proxy
from walras.exchange.supply import Supply
from walras.exchange.treasury import Treasury
from walras.exchange.turns import in_turn
from walras.kube.api import API
from walras.kube.record import Object
from walras.market import types as market
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.slow import Slow, step
from walras.market.strategies.registry import PACING

PRICES_KEPT: Final = 3_600
# Of these, an agent's dearest bids come first where it has too many; of the others, its oldest.
BY_PRICE: Final = ("auction", "proportional")
# These ask for nothing but devices, leases and bids.
WITHOUT_FACTS: Final = ("auction", "fifo", "priority", "posted")


@dataclass(frozen=True, slots=True)
class Question:
    """What a mechanism is to decide: one bid on its arrival, or all of the snapshot.

    queued: the bid is not among them, as others of its agent come first.
    """

    snapshot: market.Snapshot
    bid: market.Bid
    express: bool = False
    queued: bool = False


def decide(question: Question) -> market.Outcome:
    """Pure."""
    mechanism = MECHANISMS[question.snapshot.rules.mechanism]
    if question.express:
        return mechanism.express(question.snapshot, question.bid.id)
    return mechanism.clear(question.snapshot)


class Auctioneer:
    """Reads bids, asks the pool's mechanism, stages what it says.

    Prices, what agents paced and what the mechanism keeps are carried over a restart; the history of prices
    and the order of arrival within a second begin anew.
    """

    def __init__(self, api: API, supply: Supply, ids: Ids) -> None:
        self._api, self._supply, self._ids = api, supply, ids
        self._explainer = Explainer()
        self._arrived: dict[str, int] = {}
        self._known: dict[str, tuple[tuple[str, int, bool], market.Bid]] = {}
        self._devices: list[tuple[str, int]] = []
        self._carried = Carried()
        self.proxy = Proxy(api)
        self.history: deque[tuple[int, int]] = deque(maxlen=PRICES_KEPT)
        self.displacements = 0

    @property
    def prices(self) -> Carried:
        """As of the last clearing; all 0 before the first."""
        return self._carried

    def carried(self) -> Carried:
        """What has to outlive a restart."""
        return msgspec.structs.replace(self._carried, pacing=self.proxy.paces())

    def restore(self, carried: Carried, treasury: Treasury, now_ms: int) -> None:
        """Go on from what was carried. Nobody was told what a step was to tell that the store refused."""
        self._carried = carried
        self._explainer = Explainer()
        self.proxy.restore(
            treasury,
            carried.pacing,
            posted_micros=carried.price_micros,
            reserve_micros=carried.slow.reserve_micros,
            now_ms=now_ms,
        )

    def arrive(self, identity: str, bid: Object, now_ms: int) -> bool:
        """Note when a bid came; whether it is new."""
        if identity in self._arrived:
            return False
        # The creation time counts seconds; it orders the bids of before a restart, arrival those since.
        created = submitted_ms(bid)
        self._arrived[identity] = created if now_ms - created > 2_000 else now_ms
        return True

    def forget(self, identity: str) -> None:
        self._arrived.pop(identity, None)
        self._known.pop(identity, None)
        self._explainer.forget(identity)

    def forget_agent(self, agent: str) -> None:
        """Its account is closed: another that comes by its name begins with nothing of it."""
        self.proxy.forget(agent)
        memory, escrows = self._carried.memory, self._carried.escrows
        amounts = {name: amount for name, amount in memory.amounts.items() if name != agent}
        self._carried = msgspec.structs.replace(
            self._carried,
            memory=replace(memory, amounts=amounts),
            escrows=tuple(each for each in escrows if each.bid.partition("/")[0] != agent),
        )

    def express(self, fx: Effects, pool: Pool, identity: str, now_ms: int) -> None:
        """Stage the decision on one latency-class bid at the posted price."""
        self._notice_devices(pool)
        cluster, namespace, name = identity.split("/")
        stored = self._api.find(cluster, BIDS, namespace, name) if self._api.has_cluster(cluster) else None
        if stored is None or not _waits(fx, cluster, stored):
            return
        bid = self._read(fx, cluster, stored, pool, now_ms)
        if bid is None:
            return
        question = self._on_arrival(fx, pool, bid, now_ms)
        outcome = decide(question)
        self._carried = msgspec.structs.replace(self._carried, escrows=outcome.escrows)
        self._apply(fx, pool, question.snapshot, outcome, {bid.id: (bid, stored)})

    def ask(self, fx: Effects, pool: Pool, cluster: str, asked: Object, now_ms: int) -> Question:
        """What there is to decide if the bid came now. Stages nothing. Raises Invalid."""
        self._notice_devices(pool)
        bid = read_bid(cluster, asked, pool, funds_micros=fx.treasury.available(cluster), arrived_ms=now_ms)
        if bid.job_class == "latency":
            return self._on_arrival(fx, pool, bid, now_ms)
        pending = [other for other, _ in self._pending(fx, pool, now_ms, tell=False).values()]
        by_price = pool.rules.mechanism in BY_PRICE
        bids, waiting = in_turn([*pending, bid], by_price=by_price)
        snapshot = self._snapshot(fx, pool, bids, now_ms, self._carried.price_micros)
        return Question(replace(snapshot, explain=frozenset({bid.id})), bid, queued=bid in waiting)

    def _on_arrival(self, fx: Effects, pool: Pool, bid: market.Bid, now_ms: int) -> Question:
        """One bid at the posted price, beside the bids that room is kept for."""
        kept = []
        for cluster, namespace, name in (escrow.bid.split("/") for escrow in self._carried.escrows):
            stored = (
                self._api.find(cluster, BIDS, namespace, name) if self._api.has_cluster(cluster) else None
            )
            if stored is not None and _waits(fx, cluster, stored):
                other = self._read(fx, cluster, stored, pool, now_ms, tell=False)
                kept += [other] if other is not None and other.id != bid.id else []
        snapshot = self._snapshot(fx, pool, [bid, *kept], now_ms, self._carried.slow.posted_micros)
        return Question(replace(snapshot, explain=frozenset({bid.id})), bid, express=True)

    def clear(self, fx: Effects, pool: Pool, now_ms: int) -> None:
        """Stage the decisions on every pending bid and every lease that is due for renewal."""
        self._notice_devices(pool)
        rename(fx, pool, self.proxy, now_ms)
        pending = self._pending(fx, pool, now_ms)
        by_price = pool.rules.mechanism in BY_PRICE
        bids, waiting = in_turn([bid for bid, _ in pending.values()], by_price=by_price)
        snapshot = self._snapshot(fx, pool, bids, now_ms, self._carried.price_micros)
        outcome = MECHANISMS[pool.rules.mechanism].clear(snapshot)
        self._carried = Carried(
            at_ms=now_ms,
            price_micros=outcome.price_micros,
            slow=self._slow(pool, snapshot, outcome),
            memory=outcome.memory,
            escrows=outcome.escrows,
        )
        self.proxy.observe(fx.treasury, snapshot.price_micros, snapshot.rules.reserve_micros, now_ms)
        self.history.append((now_ms, outcome.price_micros))
        self._apply(fx, pool, snapshot, outcome, pending)
        self._explainer.queue(fx, [(bid.agent, pending[bid.id][1]) for bid in waiting], now_ms)

    def _apply(
        self, fx: Effects, pool: Pool, snapshot: market.Snapshot, outcome: market.Outcome, bids: Pending
    ) -> None:
        self.displacements += displace(fx, pool, outcome, snapshot.now_ms)
        award(fx, pool, outcome, bids, self._explainer, self._supply, self._ids, snapshot.now_ms)
        for refusal in outcome.refusals:
            bid, stored = bids[refusal.bid]
            searched = snapshot.explain is None or bid.id in snapshot.explain
            self._explainer.refuse(
                fx, bid.agent, stored, refusal.explanation, snapshot.now_ms, searched=searched
            )

    def _slow(self, pool: Pool, snapshot: market.Snapshot, outcome: market.Outcome) -> Slow:
        """What is posted from now on: where the auction divides, it follows slowly."""
        before, least = self._carried.slow, pool.rules.reserve_micros
        if pool.rules.mechanism != "auction":
            return Slow(outcome.price_micros, least, snapshot.now_ms)
        reserve = snapshot.rules.reserve_micros
        before = Slow(max(before.posted_micros, reserve), reserve, before.at_ms or snapshot.now_ms)
        return step(before, snapshot, reserve_micros=least, reserve_max_micros=pool.reserve_max_micros)

    def _notice_devices(self, pool: Pool) -> None:
        """Bids choose among devices, by speed too: all are read again when the pool's are other ones."""
        devices = [(device.id, device.speed_milli) for device in pool.devices]
        if devices != self._devices:
            self._devices = devices
            self._known.clear()

    def _pending(self, fx: Effects, pool: Pool, now_ms: int, *, tell: bool = True) -> Pending:
        found = {}
        for cluster, stored in self._api.everywhere(BIDS):
            if _waits(fx, cluster, stored):
                bid = self._read(fx, cluster, stored, pool, now_ms, tell=tell)
                if bid is not None:
                    found[bid.id] = (bid, stored)
        return found

    def _read(
        self, fx: Effects, cluster: str, stored: Object, pool: Pool, now_ms: int, *, tell: bool = True
    ) -> market.Bid | None:
        identity, metadata = bid_id(cluster, stored), stored["metadata"]
        # What the bid says changes with its generation alone; most are read again and again.
        version = (metadata["uid"], metadata.get("generation", 1), pool.whole)
        funds, arrived = fx.treasury.available(cluster), self._arrived.get(identity, 0)
        known = self._known.get(identity)
        if known is not None and known[0] == version:
            bid = known[1]
            if (bid.funds_micros, bid.submitted_ms) != (funds, arrived):
                bid = replace(bid, funds_micros=funds, submitted_ms=arrived)
        else:
            try:
                bid = read_bid(cluster, stored, pool, funds_micros=funds, arrived_ms=arrived)
            except WalrasError as error:
                if tell:
                    self._explainer.unreadable(fx, cluster, stored, error, now_ms)
                return None
        self._known[identity] = (version, bid)
        return bid

    def _snapshot(
        self, fx: Effects, pool: Pool, bids: Sequence[market.Bid], now_ms: int, price_micros: int
    ) -> market.Snapshot:
        reserve = min(self._carried.slow.reserve_micros, pool.reserve_max_micros)
        rules = replace(pool.rules, reserve_micros=max(reserve, pool.rules.reserve_micros))
        return market.Snapshot(
            now_ms=now_ms,
            rules=rules,
            devices=pool.devices,
            leases=fx.market_leases(),
            bids=tuple(bids),
            price_micros=max(price_micros, rules.reserve_micros),
            explain=self._explainer.turn(bid.id for bid in bids),
            agents={} if pool.rules.mechanism in WITHOUT_FACTS else _facts(fx.treasury),
            memory=self._carried.memory,
            escrows=self._carried.escrows,
        )


def _waits(fx: Effects, cluster: str, stored: Object) -> bool:
    """Whether the market has to decide the bid: nobody did so yet, in this step either.

    One that is on its way to be another, or to its end, waits for that.
    """
    if not is_pending(stored) or not fx.treasury.serves(cluster) or bid_id(cluster, stored) in fx.won:
        return False
    return not fx.is_changing(cluster, BIDS, stored)


def _facts(treasury: Treasury) -> dict[str, market.AgentFacts]:
    """What mechanisms that divide by agent may know of everybody who has an account."""
    return {
        agent: market.AgentFacts(
            weight=budget.weight,
            guaranteed_milli=budget.guaranteed_milli,
            spend_micros_per_hour=PACING.target(budget.rate_micros_per_hour, treasury.balance(agent)),
        )
        for agent, budget in treasury.budgets.items()
    }
