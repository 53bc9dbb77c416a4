"""Agents as account holders: opened with their first balance, paid, compensated, closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from walras.core.errors import Conflict, InsufficientFunds, NotFound, WalrasError
from walras.core.money import HOUR_MS, charge, format_credits, parse_credits, parse_rate
from walras.core.quantity import format_duration
from walras.exchange.demand import AGENTS, FLEET
from walras.exchange.effects import Effects
from walras.exchange.holding import Holding
from walras.exchange.treasury import MINT, Budget, Treasury, account_of, wallet_cap
from walras.kube.record import Object
from walras.market.types import Displacement

FINALIZER: Final = "walras.dev/exchange"

_log = structlog.get_logger("walras.exchange")


def take_in(fx: Effects, agent: Object, now_ms: int) -> None:
    """Stage an account for an agent that has none, or its new terms. The first balance is one hour's income
    unless the agent names another."""
    name, uid = agent["metadata"]["name"], agent["metadata"]["uid"]
    declared = agent["spec"]["budget"]
    try:
        rate = parse_rate(declared["income"])
        balance = parse_credits(declared["balance"]) if "balance" in declared else rate
        cap = parse_credits(declared["walletCap"]) if "walletCap" in declared else wallet_cap(rate, balance)
    except WalrasError as error:
        _log.warning("an agent's budget cannot be read", agent=name, error=error.message)
        return
    current = fx.treasury.budgets.get(name)
    budget = Budget(
        uid=uid,
        rate_micros_per_hour=rate,
        cap_micros=cap,
        weight=int(declared.get("weight", 1)),
        guaranteed_milli=declared.get("guaranteed"),
        paid_ms=current.paid_ms if current else now_ms,
        remainder=current.remainder if current else 0,
    )
    if current is None:
        fx.treasury.open_agent(name, budget, balance, now_ms)

        def opened(stored: Object) -> None:
            _finalize(stored)
            stored.setdefault("status", {}).update(status(fx.treasury, name, ()))

        fx.edit(FLEET, AGENTS, "", name, opened)
    elif current != budget:
        fx.treasury.set_budget(name, budget)


def close(fx: Effects, name: str, now_ms: int) -> None:
    """Stage the end of an agent's account, whose leases are over."""
    fx.treasury.close_agent(name, now_ms)

    def release(stored: Object) -> None:
        finalizers = stored["metadata"].get("finalizers") or []
        stored["metadata"]["finalizers"] = [each for each in finalizers if each != FINALIZER]

    fx.edit(FLEET, AGENTS, "", name, release)


def grant(treasury: Treasury, agent: str, micros: int, id: str, now_ms: int, *, force: bool) -> bool:
    """Issue credits to an agent; False when the grant of that id was made before.

    Raises NotFound, and Conflict above the wallet cap unless forced, or for an id that was of another amount.
    """
    budget = treasury.budgets.get(agent)
    if budget is None or not treasury.serves(agent):
        raise NotFound(f'agent "{agent}" has no account')
    known = treasury.ledger.find(f"grant:{budget.uid}:{id}")
    if known is not None and known.amount != micros:
        raise Conflict(f'the grant "{id}" was of {format_credits(known.amount)} credits; give another id')
    after = treasury.balance(agent) + micros
    if known is None and not force and after > budget.cap_micros:
        raise Conflict(
            f'agent "{agent}" would have {format_credits(after)} credits, above its wallet cap of '
            f"{format_credits(budget.cap_micros)}; it would earn nothing until it has spent: grant less, "
            "raise the cap, or force it"
        )
    treasury.transfer(f"grant:{budget.uid}:{id}", MINT, account_of(agent), micros, now_ms, ref="grant")
    return known is None


def compensate(fx: Effects, displacement: Displacement, holding: Holding, now_ms: int) -> None:
    """Stage what the agent that takes the place pays the holder: for having to start again, or as asked."""
    assert displacement.by is not None
    payer = displacement.by.split("/", 1)[0]
    if not displacement.compensation_micros or payer == holding.agent:
        return
    id, what = ("resale", "resale") if displacement.reason == "resold" else ("restart", "restart cost")
    try:
        fx.treasury.transfer(
            f"{id}:{holding.id}:{holding.terms}",
            account_of(payer),
            account_of(holding.agent),
            displacement.compensation_micros,
            now_ms,
            ref=f"{what} of {holding.namespace}/{holding.name}",
        )
    except InsufficientFunds as error:
        _log.error(
            "a bid could not pay for the place that it takes", bid=displacement.by, error=error.message
        )


def status(treasury: Treasury, agent: str, holdings: Sequence[Holding]) -> Object:
    """The part of an Agent's status that the exchange writes."""
    available, held = treasury.available(agent), treasury.held(agent)
    spend = sum(charge(holding.price_micros, holding.milli, HOUR_MS) for holding in holdings)
    income = treasury.budgets[agent].rate_micros_per_hour
    shown: Object = {
        "balance": format_credits(available),
        "held": format_credits(held),
        "spent": format_credits(treasury.ledger.account(account_of(agent)).debits_posted),
        "spendPerHour": format_credits(spend),
        "leases": len(holdings),
        "runway": "unlimited",
    }
    if spend > income:
        hours_ms = (available + held) * HOUR_MS // (spend - income)
        shown["runway"] = format_duration(max(1000, hours_ms // 60_000 * 60_000))
    return shown


def _finalize(stored: Object) -> None:
    finalizers = stored["metadata"].setdefault("finalizers", [])
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)
