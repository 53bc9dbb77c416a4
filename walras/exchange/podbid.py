"""What a pod bids: what it asks for, at what it or its agent's policy say, on devices of each speed.

Prices are for a device of speed 1000, the pool's unit, but for one that a pod names together with a selector:
that is for the devices which it selects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from walras.core.errors import Invalid
from walras.core.money import WHOLE_GPU_MILLI, format_credits, parse_credits
from walras.core.quantity import format_mib, parse_duration_ms, parse_mib
from walras.devices.classes import SPEED_UNIT
from walras.devices.mig_profiles import share_of
from walras.devices.request import MILLI, GpuRequest, gpu_request
from walras.exchange.book import Pool, mig_share, usable
from walras.exchange.claimed import Need, needs, open_claims, selector_of
from walras.exchange.proxy import Proxy
from walras.exchange.selector import ATTRIBUTES
from walras.exchange.supply import Supply
from walras.kube.api import API
from walras.kube.record import Object

PRIORITY_CLASSES: Final = "priorityclasses.scheduling.k8s.io"
DEFAULT_TERM: Final = "1m"
# As many packages as a Bid may have.
PACKAGES_MAX: Final = 8
_OF_SPEED: Final = re.compile(rf"(?:\((.*)\) && )?{re.escape(ATTRIBUTES)}\.speedMilli == \d+", re.DOTALL)


def bid_spec(api: API, cluster: str, pod: Object, proxy: Proxy, pool: Pool, supply: Supply) -> Object | None:
    """The `spec` of the bid for a pod, or None when it asks for no GPU. Raises Invalid."""
    asked = needs_of(api, cluster, pod, pool, supply)
    if not asked:
        return None
    said = _said(api, cluster, pod)
    own = [_package(need, said, pool) for need in asked]
    spec: Object = {"class": said.get("walras.dev/class") or _class_of(pod), "packages": own[:1]}
    for name, key in (
        ("walras.dev/restart-cost", "restartCost"),
        ("walras.dev/deadline", "deadline"),
        ("walras.dev/decay-from", "decayFrom"),
    ):
        if name in said:
            spec[key] = said[name]
    if priority := _priority(api, cluster, pod):
        spec["priority"] = priority
    price = said.get("walras.dev/max-price") or proxy.price(cluster, pod, _sized(spec, pool))
    if "walras.dev/max-price" in said and "walras.dev/selector" in said:
        spec["packages"] = [{**package, "maxPrice": price} for package in own]
    else:
        every = [each for package in own for each in _by_speed(package, price, pool)]
        spec["packages"] = every[:PACKAGES_MAX]
    return spec


def needs_of(api: API, cluster: str, pod: Object, pool: Pool, supply: Supply) -> list[Need]:
    """The ways to meet a pod's GPU request or its claims; empty where it asks for nothing, or has it.

    Raises Invalid.
    """
    request = gpu_request(pod["spec"])
    if request is not None:
        return [Need(request)]
    claims = open_claims(api, cluster, pod)
    return needs(claims, pool, supply) if claims else []


def _package(need: Need, said: Mapping[str, str], pool: Pool) -> Object:
    """What the pod takes, without a price. Raises Invalid."""
    request = need.request
    package: Object = {
        "pool": said.get("walras.dev/pool", "default"),
        "devices": request.devices,
        "term": said.get("walras.dev/term", DEFAULT_TERM),
    }
    parse_duration_ms(package["term"])
    if request.mig_profile:
        try:
            mig_share(request.mig_profile, pool)
        except Invalid as error:
            raise Invalid(f"{error.message}; {MILLI}: {request.milli_gpu} asks for as much") from None
        package["migProfile"] = request.mig_profile
    else:
        package["milliGPU"] = request.milli_gpu
        if request.memory_mib:
            package["memory"] = format_mib(request.memory_mib)
    own, claimed = said.get("walras.dev/selector"), need.devices
    if own is not None:
        package["selector"] = own
    if claimed is not None:
        only = selector_of(claimed, pool)
        package["selector"] = f"({own}) && {only}" if own else only
    if request.devices > 1 or "walras.dev/topology" in said:
        # A pod runs on one node, so its devices have to be there too.
        package["topology"] = said.get("walras.dev/topology", "node")
    return package


def request_of(package: Object) -> GpuRequest:
    """What a package of a bid asks for on a node. Raises Invalid."""
    devices, profile = int(package["devices"]), package.get("migProfile", "")
    if profile:
        share = share_of(profile)
        return GpuRequest(devices, share.milli, share.memory_mib, profile)
    memory_mib = parse_mib(package["memory"]) if "memory" in package else 0
    return GpuRequest(devices, int(package["milliGPU"]), memory_mib)


def resplit(
    api: API, cluster: str, pod: Object, spec: Object, proxy: Proxy, pool: Pool, supply: Supply
) -> list[Object] | None:
    """The packages of a bid by the pool's present speeds, None where they are, or where its owner chose them.

    Raises Invalid.
    """
    new = bid_spec(api, cluster, pod, proxy, pool, supply)
    if new is None:
        return None
    packages: list[Object] = new["packages"]
    made_here = all(any(_is_like(each, package) for package in packages) for each in spec["packages"])
    selectors = [package.get("selector", "") for package in spec["packages"]]
    if not made_here or [package.get("selector", "") for package in packages] == selectors:
        return None
    return packages


def _is_like(package: Object, new: Object) -> bool:
    """Whether it says what a new one does, but for price and speed."""
    alike = {key: value for key, value in new.items() if key not in ("selector", "maxPrice")}
    selectors = (each.get("selector", "") for each in (package, new))
    return package.items() >= alike.items() and len({_own(each) for each in selectors}) == 1


def reprice(cluster: str, pod: Object, spec: Object, proxy: Proxy, pool: Pool) -> list[Object] | None:
    """The packages of a bid at what the agent's strategy says now, None where that is much the same.

    Raises Invalid.
    """
    packages: list[Object] = spec["packages"]
    now = _at_unit(packages[0]["maxPrice"], _speed(packages[0], pool))
    first = {**packages[0], "maxPrice": now}
    price = proxy.moved(cluster, pod, _sized({**spec, "packages": [first]}, pool))
    if price is None:
        return None
    return [{**package, "maxPrice": _at(price, _speed(package, pool))} for package in packages]


def names_price(api: API, cluster: str, pod: Object) -> bool:
    """Whether the pod or its PriorityClass says what it pays at most."""
    return bool(_said(api, cluster, pod).get("walras.dev/max-price"))


def _by_speed(package: Object, price: str, pool: Pool) -> list[Object]:
    """The package for each speed of the devices that it may use, the fastest first, at the price there."""
    speeds = sorted({device.speed_milli for device in usable(package, pool)}, reverse=True)
    if len(speeds) <= 1:
        return [{**package, "maxPrice": _at(price, speeds[0] if speeds else SPEED_UNIT)}]
    own = f"({package['selector']}) && " if "selector" in package else ""
    return [
        {**package, "selector": f"{own}{ATTRIBUTES}.speedMilli == {speed}", "maxPrice": _at(price, speed)}
        for speed in speeds[:PACKAGES_MAX]
    ]


def _own(selector: str) -> str:
    """What of a package's selector is the pod's own."""
    match = _OF_SPEED.fullmatch(selector)
    return (match[1] or "") if match else selector


def _speed(package: Object, pool: Pool) -> int:
    """How fast the fastest of the devices is that a package may use."""
    return max((device.speed_milli for device in usable(package, pool)), default=SPEED_UNIT)


def _at(price: str, speed: int) -> str:
    """A price at speed 1000 on devices of a speed."""
    return price if speed == SPEED_UNIT else format_credits(parse_credits(price) * speed // SPEED_UNIT)


def _at_unit(price: str, speed: int) -> str:
    """The other way round, rounded up."""
    return price if speed == SPEED_UNIT else format_credits(-(-parse_credits(price) * SPEED_UNIT // speed))


def _sized(spec: Object, pool: Pool) -> Object:
    """The spec with its first package in milli-GPU, whatever it asks in."""
    package = spec["packages"][0]
    profile = package.get("migProfile")
    milli = mig_share(profile, pool) if profile else package.get("milliGPU", WHOLE_GPU_MILLI)
    return {**spec, "packages": [{**package, "milliGPU": milli}]}


def _said(api: API, cluster: str, pod: Object) -> Mapping[str, str]:
    """What the pod says of its worth: its PriorityClass' annotations, then its labels and annotations."""
    said: dict[str, str] = {}
    priority_class = pod["spec"].get("priorityClassName")
    if priority_class:
        found = api.find(cluster, PRIORITY_CLASSES, "", priority_class)
        said.update((found or {}).get("metadata", {}).get("annotations") or {})
    metadata = pod["metadata"]
    said.update(metadata.get("labels") or {})
    said.update(metadata.get("annotations") or {})
    return said


def _priority(api: API, cluster: str, pod: Object) -> int:
    """The pod's own, else that of its PriorityClass, else 0."""
    if "priority" in pod["spec"]:
        return int(pod["spec"]["priority"])
    name = pod["spec"].get("priorityClassName")
    found = api.find(cluster, PRIORITY_CLASSES, "", name) if name else None
    return int((found or {}).get("value", 0))


def _class_of(pod: Object) -> str:
    owners = {
        owner.get("kind") for owner in pod["metadata"].get("ownerReferences") or () if owner.get("controller")
    }
    if "Job" in owners:
        return "batch"
    return "latency" if "ReplicaSet" in owners else "standard"
