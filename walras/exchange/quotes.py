"""What a bid would get this instant: the market's own decision on what there is and that bid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import BadRequest, TooManyRequests
from walras.core.money import format_credits
from walras.core.quantity import format_duration, format_mib
from walras.exchange.auctioneer import Question, decide
from walras.exchange.demand import BIDS, FLEET
from walras.exchange.exchange import Exchange
from walras.exchange.explaining import QUEUED, QUEUED_MESSAGE, shown
from walras.kube.context import EVERY_CLUSTER, Context, Identity
from walras.kube.record import Object
from walras.kube.verbs import Verbs
from walras.market import types as market

# What one caller is answered: so many a second, so many at once after a pause, so many that wait.
PER_SECOND: Final = 2
BURST: Final = 6
WAITING_MAX: Final = 4
# Callers with nothing to remember are forgotten when there are more.
CALLERS_KEPT: Final = 256


@dataclass
class _Caller:
    """Tokens in thousandths, full at first, as of `at_ms`; its quotes take turns."""

    at_ms: int
    tokens: int = BURST * 1000
    waiting: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def refill(self, now_ms: int) -> None:
        self.tokens = min(BURST * 1000, self.tokens + (now_ms - self.at_ms) * PER_SECOND)
        self.at_ms = now_ms


class Quotes:
    """One quote at a time, callers in turn, in a thread beside the market, at most half of the time."""

    def __init__(self, exchange: Exchange, verbs: Verbs, clock: Clock) -> None:
        self._exchange, self._verbs, self._clock = exchange, verbs, clock
        self._callers: dict[str, _Caller] = {}
        self._turn = asyncio.Lock()
        self._rests_until_ms = 0

    async def quote(self, identity: Identity, cluster: str, body: Object) -> Object:
        """What becomes of a Bid, or of the spec of one, in the cluster of an agent.

        Raises what creating the Bid would raise, TooManyRequests, and NotFound when the agent went meanwhile.
        """
        if cluster in (FLEET, EVERY_CLUSTER):
            raise BadRequest("a quote is for one agent: ask below /clusters/NAME of the agent")
        still = self._verbs.api.hold_to(cluster)
        async with self._admitted(identity.cluster):
            bid = await self._checked(identity, cluster, body)
            async with self._turn:
                await asyncio.sleep(max(0, self._rests_until_ms - self._clock.now_ms()) / 1000)
                began_ms = self._clock.now_ms()
                async with self._exchange.turn:
                    still()
                    question = self._exchange.ask(cluster, bid)
                outcome = None if question.queued else await asyncio.to_thread(decide, question)
                now_ms = self._clock.now_ms()
                self._rests_until_ms = now_ms + (now_ms - began_ms)
        return _answer(question, outcome)

    @asynccontextmanager
    async def _admitted(self, name: str) -> AsyncIterator[None]:
        """One of its quotes at a time, so that each caller has one place in the row. TooManyRequests."""
        now_ms = self._clock.now_ms()
        if len(self._callers) > CALLERS_KEPT:
            self._forget(now_ms)
        caller = self._callers.setdefault(name, _Caller(now_ms))
        caller.refill(now_ms)
        if caller.tokens < 1000 or caller.waiting >= WAITING_MAX:
            raise TooManyRequests(
                f"quotes are answered {PER_SECOND} a second, and {WAITING_MAX} of one caller may wait; "
                "ask again in a second",
                retry_after_s=1,
            )
        caller.tokens -= 1000
        caller.waiting += 1
        try:
            async with caller.turn:
                yield
        finally:
            caller.waiting -= 1

    def _forget(self, now_ms: int) -> None:
        for caller in self._callers.values():
            caller.refill(now_ms)
        self._callers = {
            name: caller
            for name, caller in self._callers.items()
            if caller.waiting or caller.tokens < BURST * 1000
        }

    async def _checked(self, identity: Identity, cluster: str, body: Object) -> Object:
        """The Bid as it would be stored, with what the schema fills in."""
        bid: Object = body if "spec" in body else {"spec": body}
        metadata = bid.get("metadata")
        metadata = dict(metadata) if isinstance(metadata, dict) else {}
        if not metadata.get("name"):
            metadata.setdefault("generateName", "quote-")
        namespace = metadata.get("namespace") or "default"
        if not isinstance(namespace, str):
            raise BadRequest("metadata.namespace must be a string")
        context = Context(
            identity, cluster, dry_run=True, field_manager="walras-quote", field_validation="Strict"
        )
        resource = self._verbs.api.registry(cluster)[BIDS]
        named = {"apiVersion": resource.api_version, "kind": resource.kind}
        return await self._verbs.create(context, resource, namespace, {**named, **bid, "metadata": metadata})


def _answer(question: Question, outcome: market.Outcome | None) -> Object:
    """Nothing in it is of other agents but the price, and what they are paid for giving way."""
    bid, snapshot = question.bid, question.snapshot
    answer: Object = {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Quote",
        "at": rfc3339(snapshot.now_ms),
        "agent": bid.agent,
        "class": bid.job_class,
    }
    if outcome is None:
        return answer | {
            "outcome": "Refused",
            "explanation": {"reason": QUEUED, "message": QUEUED_MESSAGE},
        }
    for award in outcome.awards:
        if award.bid == bid.id:
            return answer | _won(award, snapshot.rules.notice_ms)
    explanation = next(refusal.explanation for refusal in outcome.refusals if refusal.bid == bid.id)
    return answer | {"outcome": "Refused", "explanation": shown(explanation)}


def _won(award: market.Award, notice_ms: int) -> Object:
    share = award.shares[0]
    mig: Object = {"mig": share.mig.profile} if share.mig else {}
    return mig | {
        "outcome": "Won",
        "package": award.package,
        "devices": len(award.shares),
        "milliGPU": share.milli,
        "memory": format_mib(share.memory_mib),
        "price": format_credits(award.price_micros),
        "starts": "Now" if award.starts_now else "AfterNotice",
        "notice": format_duration(0 if award.starts_now else notice_ms),
        "term": format_duration(award.term_ms),
        "cost": format_credits(award.cost_micros),
        "displaces": bool(award.displaces),
        "compensation": format_credits(award.compensations_micros),
    }
