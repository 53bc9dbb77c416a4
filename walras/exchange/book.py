"""Bid and Pool objects as the market reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

import structlog

from walras.core.clock import parse_rfc3339
from walras.core.errors import Invalid
from walras.core.money import WHOLE_GPU_MILLI, parse_credits
from walras.core.quantity import parse_duration_ms, parse_mib
from walras.devices.arrangement import Technique
from walras.devices.classes import SHARING, speed_milli
from walras.devices.topology import Affinity
from walras.exchange.selector import eligible
from walras.kube.api import API
from walras.kube.policy import FLEET, POOLS
from walras.kube.record import Object
from walras.kube.validation.walras import DEFAULT_POOL, TERM_MAX_MS, TERM_MIN_MS, TICK_MAX_MS, TICK_MIN_MS
from walras.market.types import Bid, Device, JobClass, Package, Rules

JOB_CLASSES: Final[tuple[str, ...]] = get_args(JobClass)

_log = structlog.get_logger("walras.exchange")


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool's rules and the devices that it sells. The reserve never rises above `reserve_max_micros`."""

    name: str
    rules: Rules
    whole: bool
    devices: tuple[Device, ...]
    reserve_max_micros: int


def default_pool() -> Object:
    """The Pool that is made at the first start."""
    return {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Pool",
        "metadata": {"name": DEFAULT_POOL},
        "spec": {
            "mechanism": "auction",
            "sharing": "fractional",
            "tick": "1s",
            "reservePrice": "0.10",
            "epsilonPercent": 10,
            "minimumQuantum": "5s",
            "notice": "2s",
        },
    }


def current_pool(api: API, devices: Sequence[Device]) -> Pool:
    """The pool as its object says, by the default rules where that is missing or cannot be read."""
    stored = api.find(FLEET, POOLS, "", DEFAULT_POOL)
    try:
        if stored is not None:
            return read_pool(stored, devices)
    except Invalid as error:
        _log.warning("the pool's spec cannot be read; its defaults are used", error=error.message)
    return read_pool({"metadata": {"name": DEFAULT_POOL}}, devices)


def read_pool(pool: Object, devices: Sequence[Device]) -> Pool:
    """The rules of a Pool object, and the devices as fast as it says.

    Raises Invalid where a price, a duration or a speed cannot be read.
    """
    spec = pool.get("spec") or {}
    reserve = parse_credits(spec.get("reservePrice", "0.10"))
    reserve_max = parse_credits(spec["reservePriceMax"]) if "reservePriceMax" in spec else reserve
    rules = Rules(
        reserve_micros=reserve,
        epsilon_percent=int(spec.get("epsilonPercent", 10)),
        quantum_ms=parse_duration_ms(spec.get("minimumQuantum", "5s")),
        notice_ms=parse_duration_ms(spec.get("notice", "2s")),
        tick_ms=min(max(TICK_MIN_MS, parse_duration_ms(spec.get("tick", "1s"))), TICK_MAX_MS),
        mechanism=spec.get("mechanism", "auction"),
        payments=spec.get("payments", "uniform"),
    )
    speeds = spec.get("speeds") or {}
    return Pool(
        name=pool["metadata"]["name"],
        rules=rules,
        whole=spec.get("sharing") == "whole",
        devices=tuple(_at_speed(device, speeds) for device in devices),
        reserve_max_micros=max(reserve, reserve_max),
    )


def _at_speed(device: Device, speeds: Mapping[str, int]) -> Device:
    """The device as fast as the pool says, where it says so of its model."""
    if device.model not in speeds:
        return device
    speed = speed_milli(device.model, speeds)
    return replace(device, speed_milli=speed, attributes={**device.attributes, "speedMilli": speed})


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
    deadline, decays = spec.get("deadline"), spec.get("decayFrom")
    return Bid(
        id=bid_id(cluster, bid),
        agent=cluster,
        job_class=spec["class"],
        packages=packages,
        restart_cost_micros=parse_credits(spec.get("restartCost", "0")),
        submitted_ms=arrived_ms,
        funds_micros=funds_micros,
        deadline_ms=_time("deadline", deadline) if deadline else None,
        priority=int(spec.get("priority", 0)),
        decays_ms=_time("decayFrom", decays) if decays else None,
    )


def _time(name: str, text: str) -> int:
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise Invalid(f'{name} "{text}" is not an RFC 3339 time such as 2030-01-01T00:00:00Z') from None


def _package(raw: Object, pool: Pool) -> Package:
    term_ms = parse_duration_ms(raw.get("term", "1m"))
    if not TERM_MIN_MS <= term_ms <= TERM_MAX_MS:
        raise Invalid(f'term "{raw.get("term")}" is not between 1s and 7d')
    profile = raw.get("migProfile", "")
    if profile:
        milli, memory = mig_share(profile, pool), 0
    else:
        milli = WHOLE_GPU_MILLI if pool.whole else int(raw.get("milliGPU", WHOLE_GPU_MILLI))
        memory = parse_mib(raw["memory"]) if "memory" in raw and not pool.whole else 0
        _check_parts(int(raw.get("devices", 1)), milli, pool)
    return Package(
        devices=int(raw.get("devices", 1)),
        milli_gpu=milli,
        memory_mib=memory,
        term_ms=term_ms,
        price_micros=parse_credits(raw["maxPrice"]),
        eligible=eligible(raw.get("selector", ""), pool.devices),
        devices_min=int(raw.get("devicesMin", 0)),
        affinity=Affinity(raw.get("topology", Affinity.ANY)),
        mig_profile=profile,
    )


def _check_parts(devices: int, milli: int, pool: Pool) -> None:
    """Raises Invalid for parts of several devices where a program could reach only one of them."""
    by_mps = any(device.attributes.get(SHARING) == Technique.MPS for device in pool.devices)
    if devices > 1 and milli < WHOLE_GPU_MILLI and by_mps:
        raise Invalid(
            f"parts of {devices} devices are not sold here, where MPS keeps parts apart: ask for one part, "
            "or for whole devices"
        )


def mig_share(profile: str, pool: Pool) -> int:
    """What an instance of a MIG profile is sold as in the pool, in milli-GPU.

    Raises Invalid where it is not for sale, naming the profiles that are.
    """
    if pool.whole:
        raise Invalid(f'this pool sells whole devices, so the MIG profile "{profile}" is not for sale')
    geometries = dict.fromkeys(device.mig for device in pool.devices if device.mig is not None)
    having = [geometry for geometry in geometries if profile in geometry]
    if not having:
        known = dict.fromkeys(each.name for geometry in geometries for each in geometry.profiles)
        there = f"there are {', '.join(known)}" if known else "none of its devices is sold in MIG profiles"
        raise Invalid(f'no device of this pool has the MIG profile "{profile}": {there}')
    return min(geometry.sold_milli(profile) for geometry in having)


def usable(package: Object, pool: Pool) -> list[Device]:
    """The devices that a package of a Bid may be on, by its selector and MIG profile. Raises Invalid."""
    chosen, profile = eligible(package.get("selector", ""), pool.devices), package.get("migProfile", "")
    return [
        device
        for device in pool.devices
        if (chosen is None or device.id in chosen) and (not profile or (device.mig and profile in device.mig))
    ]


def is_pending(bid: Object) -> bool:
    """Whether the market still has to decide it."""
    phase = (bid.get("status") or {}).get("phase", "Pending")
    return phase in ("Pending", "Refused") and not bid["metadata"].get("deletionTimestamp")
