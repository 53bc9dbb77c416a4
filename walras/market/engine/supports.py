"""What of a snapshot the engine evaluates; the rest is for `walras.market.auction` alone."""

from __future__ import annotations

from typing import Final

from walras.devices.placement import Shape
from walras.devices.topology import Affinity
from walras.market.types import Bid, Device, Lease, Package, Snapshot

FUNDS_MAX: Final = 1 << 60


def knows(snapshot: Snapshot) -> bool:
    """Whether the engine decides such a snapshot as the auction does. It knows packages of so many devices
    anywhere, uniform prices, devices of one speed, and leases that are not for sale."""
    sizes = {device.id: Shape(device.milli, device.memory_mib) for device in snapshot.devices}
    return (
        snapshot.rules.payments == "uniform"
        and all(map(_device, snapshot.devices))
        and all(map(_bid, snapshot.bids))
        and all(_lease(lease, sizes) for lease in snapshot.leases)
    )


def _device(device: Device) -> bool:
    return device.speed_milli == 1000


def _bid(bid: Bid) -> bool:
    return abs(bid.funds_micros) <= FUNDS_MAX and all(map(_package, bid.packages))


def _package(package: Package) -> bool:
    return package.devices_min == 0 and package.affinity is Affinity.ANY and not package.mig_profile


def _lease(lease: Lease, sizes: dict[str, Shape]) -> bool:
    """A lease has shares of a size that their devices have."""
    return (
        lease.resale_micros is None
        and abs(lease.funds_micros) <= FUNDS_MAX
        and len(lease.shares) > 0
        and all(
            share.mig is None
            and share.milli > 0
            and Shape(share.milli, share.memory_mib).fits(
                sizes.get(share.device, Shape(share.milli, share.memory_mib))
            )
            for share in lease.shares
        )
    )
