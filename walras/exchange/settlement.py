"""The settlement of a lease: what it owes since the last reading, each term at its own price."""

from __future__ import annotations

from walras.core.money import split
from walras.cost.usage import MINUTE_MS, NOTHING, GpuUse, Used
from walras.exchange.effects import Effects
from walras.exchange.holding import Holding
from walras.kube.record import Object


def settle(fx: Effects, holding: Holding, now_ms: int, used: Used = NOTHING) -> int:
    """Stage payment for the time since the last reading, each term at its own price; returns the micros.

    Never beyond the lease's end.
    """
    paid = 0
    while holding.following and now_ms >= holding.term_end_ms:
        paid += _settle_term(fx, holding, holding.term_end_ms, used)
        used = NOTHING
        go_on(fx, holding, now_ms)
        fx.project(holding)
        fx.keep(holding)
    return paid + _settle_term(fx, holding, now_ms, used)


def go_on(fx: Effects, holding: Holding, now_ms: int) -> None:
    """Stage the end of the present term, money that it does not owe given back; the following one begins."""
    fx.treasury.release(holding.hold, now_ms)
    holding.next_term()


def _settle_term(fx: Effects, holding: Holding, now_ms: int, used: Used) -> int:
    until_ms = min(now_ms, holding.term_end_ms)
    elapsed_ms = until_ms - holding.metered_until_ms
    if elapsed_ms <= 0:
        return 0
    due = holding.due(until_ms)
    if due:
        fx.treasury.capture(f"capture:{until_ms}:{holding.hold}", holding.hold, due, now_ms, ref=holding.pod)
        holding.captured_micros += due
        holding.charged_micros += due
    holding.metered_ms += elapsed_ms
    pods = fx.pods_on(holding)
    if pods:
        holding.pod = pods[0]["metadata"]["name"]
    namespace = pods[0]["metadata"]["namespace"] if pods else holding.namespace
    budget = fx.treasury.budgets.get(holding.agent)
    weights = [share.milli for share in holding.shares]
    parts = zip(holding.shares, split(due, weights), split(used.cpu_ms, weights), strict=True)
    for share, micros, cpu in parts:
        gpu = used.gpus.get(share.device, GpuUse())
        fx.use(
            holding.metered_until_ms // MINUTE_MS * MINUTE_MS,
            holding.agent,
            namespace,
            holding.pod,
            _workload(pods[0]) if pods else "",
            holding.name,
            share.device,
            holding.pool,
            share.milli * elapsed_ms,
            cpu,
            micros,
            str(share.mig or ""),
            gpu.busy_ms,
            gpu.memory_mib_ms,
            gpu.energy_mj,
            budget.uid if budget is not None else "",
        )
    holding.metered_until_ms = until_ms
    fx.keep(holding)
    return due


def skip_gap(holding: Holding, now_ms: int) -> None:
    """Charge nothing for the time in which the server was not there to serve it."""
    if holding.phase == "Reserved":
        return
    gap_ms = max(0, min(now_ms, holding.end_ms) - holding.metered_until_ms)
    holding.gap_ms += gap_ms
    holding.metered_until_ms += gap_ms


def _workload(pod: Object) -> str:
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return f"{owner['kind']}/{owner['name']}"
    return f"Pod/{pod['metadata']['name']}"
