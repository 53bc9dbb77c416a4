"""What a pod's resource claims ask of the market: shares of devices, as the one package that can win them.

Whether a device does is asked of the allocator, about the slice that a lease of it would publish: what a bid
wins is what its claims take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, product
from typing import Final

from walras.core.errors import Invalid, WalrasError
from walras.core.money import WHOLE_GPU_MILLI
from walras.devices.mig_profiles import share_of
from walras.devices.models import DOMAIN
from walras.devices.request import GpuRequest
from walras.exchange.book import Pool
from walras.exchange.leased import leased_slices
from walras.exchange.nodes import prospect
from walras.exchange.supply import Supply
from walras.kube.api import API
from walras.kube.record import Object
from walras.market.types import Device
from walras.tenants.claims import asks, pools
from walras.tenants.claims.asks import Ask, Asked
from walras.tenants.claims.beside import MEMORY, MILLI
from walras.tenants.claims.effort import Effort
from walras.tenants.claims.extended import Extended, extended_of, provided_by
from walras.tenants.claims.extended import asks as asks_extended
from walras.tenants.claims.pod import DEVICE_CLASSES, RESOURCE_CLAIMS, claims_of, is_allocated
from walras.tenants.claims.search import Search, Taken, suits
from walras.tenants.fit import Node, node_of
from walras.tenants.objects import NODES

# As many packages as a Bid may have.
ALTERNATIVES_MAX: Final = 8
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Need:
    """A way to meet a pod: so many shares, on the devices of these ids; None for any that has them."""

    request: GpuRequest
    devices: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Shape:
    milli: int
    memory_mib: int = 0
    profile: str = ""

    def request(self, devices: int = 1) -> GpuRequest:
        return GpuRequest(devices, self.milli, self.memory_mib, self.profile)


def open_claims(api: API, cluster: str, pod: Object) -> list[Asked]:
    """The pod's claims that hold nothing yet. Raises Invalid where one is not there, or is held elsewhere."""
    namespace = pod["metadata"]["namespace"]
    found = claims_of(pod, lambda name: api.find(cluster, RESOURCE_CLAIMS, namespace, name))
    claims = {claim["metadata"]["name"]: claim for claim in found.values()}
    pending = [claim for claim in claims.values() if not is_allocated(claim)]
    held = sorted(claims.keys() - {claim["metadata"]["name"] for claim in pending})
    if pending and held:
        raise Invalid(
            f"its claim {held[0]} holds devices of a node where its other claims cannot be met; no bid can "
            "win more devices there"
        )
    extended = extended_for(api, cluster, pod)
    wanted = [*pending, *([extended.claim] if extended is not None else ())]
    return [asks.read(claim, lambda name: api.find(cluster, DEVICE_CLASSES, "", name)) for claim in wanted]


def extended_for(api: API, cluster: str, pod: Object) -> Extended | None:
    """What DeviceClasses stand for of the pod's resources, as long as it has none of it."""
    if not asks_extended(pod["spec"]):
        return None
    nodes = [node_of(each) for each in api.list(cluster, NODES)]
    return extended_of(pod, lambda: api.list(cluster, DEVICE_CLASSES), provided_by(nodes))


def needs(claims: Sequence[Asked], pool: Pool, supply: Supply) -> list[Need]:
    """The ways to meet the claims, the best first.

    Raises Invalid where there is none: no device that does, or requests that no single package can win.
    """
    market = _Market(pool, supply)
    found: list[Need] = []
    fault = "its claims ask for nothing"
    requests = [alternatives for claim in claims for alternatives in claim.requests]
    for chosen in islice(product(*requests), ALTERNATIVES_MAX):
        try:
            need = market.need(claims, chosen)
        except WalrasError as error:
            fault = error.message if not found else fault
            continue
        if need not in found:
            found.append(need)
    if not found:
        raise Invalid(fault)
    return found


class _Market:
    """The devices of the pool, as leases of them would be published."""

    def __init__(self, pool: Pool, supply: Supply) -> None:
        self._pool, self._supply = pool, supply
        self._effort = Effort()
        self._fault = ""
        self._as_leased: dict[tuple[_Shape, str], pools.Device] = {}

    def need(self, claims: Sequence[Asked], chosen: Sequence[Ask]) -> Need:
        """Raises Invalid."""
        shapes = [self._shape(ask) for ask in chosen]
        if not shapes:
            raise Invalid("its claims ask for no device")
        shape, count = shapes[0][0], sum(ask.count for ask in chosen)
        if any(other != shape for other, _ in shapes):
            shape, count = _together([each for each, _ in shapes], chosen), 1
        eligible = frozenset.intersection(*(ids for _, ids in shapes))
        if not eligible:
            raise Invalid("no device of this pool satisfies all requests of its claims")
        self._try(claims, shape.request(count), eligible)
        able = {each.id for each in self._pool.devices if not shape.profile or _has(each, shape.profile)}
        return Need(shape.request(count), None if eligible == able else eligible)

    def _shape(self, ask: Ask) -> tuple[_Shape, frozenset[str]]:
        """The share that a request takes, and the devices that have it. Raises Invalid."""
        if ask.admin:
            raise Invalid(f"request {ask.name}: admin access is to devices that a node has already")
        if not ask.count:
            raise Invalid(f"request {ask.name}: a bid is for a number of devices; say a count instead of All")
        self._fault = ""
        for shape in self._shapes(ask):
            eligible = frozenset(
                device.id
                for device in self._pool.devices
                if (not shape.profile or _has(device, shape.profile)) and self._suits(ask, shape, device)
            )
            if eligible:
                return shape, eligible
        there = ", ".join(sorted({device.model for device in self._pool.devices}))
        why = f" ({self._fault})" if self._fault else ""
        raise Invalid(f"request {ask.name}: no device of this pool satisfies it{why}; there are {there}")

    def _shapes(self, ask: Ask) -> Iterator[_Shape]:
        """A device, whole or in part; then instances, the smallest first."""
        milli = ask.capacity.get(MILLI, Fraction(WHOLE_GPU_MILLI))
        memory = ask.capacity.get(MEMORY, Fraction(0))
        if milli > WHOLE_GPU_MILLI:
            raise Invalid(f"request {ask.name}: {MILLI} is at most {WHOLE_GPU_MILLI} on each device")
        yield _Shape(max(1, -(-milli.numerator // milli.denominator)), -(-memory // _MIB))
        if self._pool.whole:
            return
        geometries = dict.fromkeys(each.mig for each in self._pool.devices if each.mig is not None)
        profiles = {each.name: share_of(each.name) for geometry in geometries for each in geometry.profiles}
        for name, share in sorted(profiles.items(), key=lambda each: (each[1].milli, each[0])):
            yield _Shape(share.milli, share.memory_mib, name)

    def _suits(self, ask: Ask, shape: _Shape, device: Device) -> bool:
        try:
            found = self._as_leased.get((shape, device.id))
            if found is None:
                (found,) = self._published(shape.request(), [device]).devices
                self._as_leased[shape, device.id] = found
            return suits(ask, found, self._effort)
        except WalrasError as error:
            self._fault = self._fault or error.message
            return False

    def _published(self, request: GpuRequest, devices: Sequence[Device]) -> pools.Pool:
        lease = prospect(request, devices, self._pool, self._supply)
        node = Node(lease.node, {}, (), {}, ())
        (found,) = pools.Pools(leased_slices(lease, self._supply)).on(node)
        return found

    def _try(self, claims: Sequence[Asked], request: GpuRequest, eligible: frozenset[str]) -> None:
        """Raises Invalid where the lease would not do, because of the claims' constraints."""
        devices = sorted(
            (each for each in self._pool.devices if each.id in eligible), key=lambda each: each.model
        )
        pool = self._published(request, devices)
        if Search(claims, [pool], Taken(), self._effort).run() is None:
            raise Invalid(
                f"a lease of {request.devices} devices of this pool would not meet its claims: their "
                "constraints ask for more than that"
            )


def _has(device: Device, profile: str) -> bool:
    return device.mig is not None and profile in device.mig


def _together(shapes: Sequence[_Shape], chosen: Sequence[Ask]) -> _Shape:
    """The share of one device that has unequal parts of it all. Raises Invalid where there is none.

    A claim that names no memory has all that its share of a device has.
    """
    milli = sum(shape.milli for shape in shapes)
    parts = all(shape.memory_mib for shape in shapes) and all(ask.count == 1 for ask in chosen)
    if not parts or milli > WHOLE_GPU_MILLI or any(shape.profile for shape in shapes):
        one, other = shapes[0], next(each for each in shapes if each != shapes[0])
        raise Invalid(
            f"its claims ask for {_said(one)} and for {_said(other)}; a bid wins equal shares of devices, or "
            "parts of one device that name their memory: use a pod for each"
        )
    return _Shape(milli, sum(shape.memory_mib for shape in shapes))


def _said(shape: _Shape) -> str:
    if shape.profile:
        return f"an instance of {shape.profile}"
    memory = f" and {shape.memory_mib} MiB" if shape.memory_mib else ""
    return f"{shape.milli} milli-GPU{memory}"


def selector_of(devices: frozenset[str], pool: Pool) -> str:
    """An expression that is true of these devices of the pool: by product where that tells them."""
    attribute = f"device.attributes['{DOMAIN}']"
    products = {str(each.attributes["productName"]) for each in pool.devices if each.id in devices}
    alike = {each.id for each in pool.devices if each.attributes["productName"] in products}
    if alike == devices:
        return f"{attribute}.productName in [{_texts(products)}]"
    uuids = {str(each.attributes["uuid"]) for each in pool.devices if each.id in devices}
    return f"{attribute}.uuid in [{_texts(uuids)}]"


def _texts(values: set[str]) -> str:
    return ", ".join("'" + each.replace("\\", "\\\\").replace("'", "\\'") + "'" for each in sorted(values))
