"""The sealed proxy: what a pod bids that names no price, by its agent's strategy, money and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from walras.core.clock import parse_rfc3339
from walras.core.money import format_credits, parse_credits
from walras.core.quantity import parse_duration_ms
from walras.exchange.carried import Pace
from walras.exchange.latency import Latency, latency_of
from walras.exchange.treasury import Treasury, account_of
from walras.kube.api import API
from walras.kube.record import Object
from walras.ledger.types import AMOUNT_MAX
from walras.market.strategies.registry import PACING, STRATEGIES
from walras.market.strategies.strategy import Facts, PacingState, capped
from walras.tenants.objects import AGENTS, FLEET

DEFAULT_MAX_PRICE: Final = "1.00"
FIXED: Final = "fixed"
SLO: Final = "slo"
# A bid is written again when its price has moved by a fiftieth: it is a row in the store each time.
MOVES_BY: Final = 50
_NO_POLICY: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Seen:
    """An agent that adapts, and its money, at the last clearing."""

    strategy: str
    available_micros: int
    spent_micros: int
    pacing: PacingState


class Proxy:
    """Remembers each agent's pacing; `observe` once a clearing, `price` any time."""

    def __init__(self, api: API) -> None:
        self._api = api
        self._seen: dict[str, _Seen] = {}
        # What each agent's market policy is, and the revision of the Agent that says so.
        self._policies: dict[str, tuple[int, Mapping[str, Any]]] = {}
        self._now_ms = 0
        self._posted_micros = self._reserve_micros = 0

    def restore(
        self,
        treasury: Treasury,
        paces: Mapping[str, Pace],
        *,
        posted_micros: int,
        reserve_micros: int,
        now_ms: int,
    ) -> None:
        """Go on from what was paced, with the money that there is now."""
        self._now_ms = now_ms
        self._posted_micros, self._reserve_micros = posted_micros, reserve_micros
        self._seen = {}
        for agent in treasury.budgets:
            if self.adapts(agent):
                spent = treasury.ledger.account(account_of(agent)).debits_posted
                pace = paces.get(agent, Pace(0, now_ms, spent))
                pacing = PacingState(pace.mu, pace.at_ms)
                self._seen[agent] = _Seen(
                    self.strategy(agent), treasury.available(agent), pace.spent_micros, pacing
                )

    def paces(self) -> dict[str, Pace]:
        """What is to be kept of the agents that pace."""
        return {
            agent: Pace(seen.pacing.mu, seen.pacing.at_ms, seen.spent_micros)
            for agent, seen in self._seen.items()
            if seen.strategy == "pacing"
        }

    def observe(self, treasury: Treasury, posted_micros: int, reserve_micros: int, now_ms: int) -> None:
        """Take note of what agents that adapt have and have spent; move the pacing of those that pace."""
        seen = {}
        for agent, budget in treasury.budgets.items():
            strategy = self.strategy(agent)
            if strategy == FIXED:
                continue
            account = treasury.ledger.account(account_of(agent))
            before = self._seen.get(agent)
            pacing = before.pacing if before else PacingState(at_ms=now_ms)
            if before and strategy == "pacing":
                target = PACING.target(budget.rate_micros_per_hour, treasury.balance(agent))
                spent = max(0, account.debits_posted - before.spent_micros)
                pacing = PACING.observe(pacing, now_ms, spent, target)
            seen[agent] = _Seen(strategy, treasury.available(agent), account.debits_posted, pacing)
        self._seen, self._now_ms = seen, now_ms
        self._posted_micros, self._reserve_micros = posted_micros, reserve_micros

    def forget(self, agent: str) -> None:
        """Its account is closed."""
        self._seen.pop(agent, None)

    def strategy(self, agent: str) -> str:
        """The name of the agent's strategy."""
        return str(self._policy(agent).get("strategy", FIXED))

    def adapts(self, agent: str) -> bool:
        """Whether what the agent bids changes with time."""
        return self.strategy(agent) != FIXED

    def price(self, agent: str, pod: Object, spec: Object) -> str:
        """The maximum price of a pod's bid as credits; `spec` is the bid's, but for the price.

        At least the reserve where it is worth that, as less never wins: then the market says what is missing.
        """
        said = str(self._policy(agent).get("maxPrice") or DEFAULT_MAX_PRICE)
        strategy, seen = self.strategy(agent), self._seen.get(agent)
        if strategy == FIXED or seen is None:
            return said
        package, deadline = spec["packages"][0], spec.get("deadline")
        term_ms, value = parse_duration_ms(package["term"]), parse_credits(said)
        created = pod["metadata"].get("creationTimestamp")
        facts = Facts(
            now_ms=self._now_ms,
            value_micros=value,
            milli=package["devices"] * package["milliGPU"],
            term_ms=term_ms,
            available_micros=seen.available_micros,
            posted_micros=self._posted_micros,
            job_class=spec["class"],
            submitted_ms=parse_rfc3339(created) if created else self._now_ms,
            deadline_ms=parse_rfc3339(deadline) if deadline else None,
            work_ms=term_ms,
            pacing=seen.pacing,
        )
        if strategy == SLO:
            value = _brought_back(facts, latency_of(self._api, agent, pod))
            price = capped(value, facts)
        else:
            price = STRATEGIES[strategy].price(facts)
        return format_credits(max(price, min(value, self._reserve_micros)))

    def moved(self, agent: str, pod: Object, spec: Object) -> str | None:
        """The price that a bid should name now, or None when its own is as good."""
        price = self.price(agent, pod, spec)
        now, was = parse_credits(price), parse_credits(spec["packages"][0]["maxPrice"])
        return price if abs(now - was) * MOVES_BY > was else None

    def _policy(self, agent: str) -> Mapping[str, Any]:
        record = self._api.record(FLEET, AGENTS, "", agent)
        if record is None:
            self._policies.pop(agent, None)
            return _NO_POLICY
        revision, policy = self._policies.get(agent, (0, _NO_POLICY))
        if revision != record.revision:
            # Every clearing asks for every agent's: an Agent is decoded when it has changed.
            policy = (record.object.get("spec") or {}).get("market") or _NO_POLICY
            self._policies[agent] = (record.revision, policy)
        return policy


def _brought_back(facts: Facts, latency: Latency) -> int:
    """What one more replica is worth, whatever its agent can pay: its part of what several bring back, where
    they bring back more each than one alone does."""
    facts = replace(
        facts,
        available_micros=AMOUNT_MAX,
        slo_good_ms=latency.good_ms,
        slo_bad_ms=latency.bad_ms,
        latency_without_ms=latency.without_ms,
    )
    price = STRATEGIES[SLO].price
    if not latency.with_ms:
        return price(facts)
    together = enumerate(latency.with_ms, start=1)
    return max(price(replace(facts, latency_with_ms=with_ms)) // more for more, with_ms in together)
