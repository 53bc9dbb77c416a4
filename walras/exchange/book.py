"""Bid and Pool objects as the market reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from walras.core.clock import parse_rfc3339
from walras.core.errors import Invalid
from walras.core.money import WHOLE_GPU_MILLI, parse_credits
from walras.core.quantity import parse_duration_ms, parse_mib
from walras.exchange.selector import eligible
from walras.kube.record import Object
from walras.kube.validation.walras import DEFAULT_POOL, TERM_MAX_MS, TERM_MIN_MS, TICK_MAX_MS, TICK_MIN_MS
from walras.market.types import Bid, Device, JobClass, Package, Rules

JOB_CLASSES: Final[tuple[str, ...]] = get_args(JobClass)


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool's rules and the devices that it sells."""

    name: str
    rules: Rules
    whole: bool
    devices: tuple[Device, ...]


def read_pool(pool: Object, devices: Sequence[Device]) -> Pool:
    """The rules of a Pool object. Raises Invalid where a price or duration cannot be read."""
    spec = pool.get("spec") or {}
    rules = Rules(
        reserve_micros=parse_credits(spec.get("reservePrice", "0.10")),
        epsilon_percent=int(spec.get("epsilonPercent", 10)),
        quantum_ms=parse_duration_ms(spec.get("minimumQuantum", "5s")),
        notice_ms=parse_duration_ms(spec.get("notice", "2s")),
        tick_ms=min(max(TICK_MIN_MS, parse_duration_ms(spec.get("tick", "1s"))), TICK_MAX_MS),
        mechanism=spec.get("mechanism", "auction"),
    )
    return Pool(pool["metadata"]["name"], rules, spec.get("sharing") == "whole", tuple(devices))


def bid_id(cluster: str, bid: Object) -> str:
    return f"{cluster}/{bid['metadata']['namespace']}/{bid['metadata']['name']}"


def submitted_ms(bid: Object) -> int:
    created = bid["metadata"].get("creationTimestamp")
    return parse_rfc3339(created) if created else 0


def read_bid(cluster: str, bid: Object, pool: Pool, *, funds_micros: int, arrived_ms: int) -> Bid:
    """A Bid object for the market. Raises Invalid with what is wrong and what to write instead."""
    spec = bid["spec"]
    packages = tuple(
        _package(raw, pool) for raw in spec["packages"] if raw.get("pool", DEFAULT_POOL) == pool.name
    )
    if not packages:
        raise Invalid(f'no package of this bid is for the pool that there is, "{pool.name}"')
    if spec["class"] not in JOB_CLASSES:
        raise Invalid(f'class "{spec["class"]}" is not one of {", ".join(JOB_CLASSES)}')
    deadline = spec.get("deadline")
    return Bid(
        id=bid_id(cluster, bid),
        agent=cluster,
        job_class=spec["class"],
        packages=packages,
        restart_cost_micros=parse_credits(spec.get("restartCost", "0")),
        submitted_ms=arrived_ms,
        funds_micros=funds_micros,
        deadline_ms=_deadline(deadline) if deadline else None,
        priority=int(spec.get("priority", 0)),
    )


def _deadline(text: str) -> int:
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise Invalid(f'deadline "{text}" is not an RFC 3339 time such as 2030-01-01T00:00:00Z') from None


def _package(raw: Object, pool: Pool) -> Package:
    term_ms = parse_duration_ms(raw.get("term", "1m"))
    if not TERM_MIN_MS <= term_ms <= TERM_MAX_MS:
        raise Invalid(f'term "{raw.get("term")}" is not between 1s and 7d')
    chosen = eligible(raw.get("selector", ""), pool.devices)
    usable = [device for device in pool.devices if chosen is None or device.id in chosen]
    milli = WHOLE_GPU_MILLI if pool.whole else int(raw.get("milliGPU", WHOLE_GPU_MILLI))
    memory = parse_mib(raw["memory"]) if "memory" in raw and not pool.whole else 0
    if not memory and usable:
        # Memory that nobody asked for goes with the compute, by the smallest card that may be won.
        memory = min(device.memory_mib for device in usable) * milli // WHOLE_GPU_MILLI
    return Package(
        devices=int(raw.get("devices", 1)),
        milli_gpu=milli,
        memory_mib=memory,
        term_ms=term_ms,
        price_micros=parse_credits(raw["maxPrice"]),
        eligible=chosen,
    )


def is_pending(bid: Object) -> bool:
    """Whether the market still has to decide it."""
    phase = (bid.get("status") or {}).get("phase", "Pending")
    return phase in ("Pending", "Refused") and not bid["metadata"].get("deletionTimestamp")
