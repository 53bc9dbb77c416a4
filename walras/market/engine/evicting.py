"""The cheapest leases that must go to make room, as `walras.market.eviction` has it, over columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from walras.market.engine.amounts import MILLI_MAX, PRICE_MAX, VALUE_MAX
from walras.market.engine.board import Devices, Kinds
from walras.market.engine.covering import (
    EXACT_PARTS,
    FEW_PARTS,
    Claim,
    Held,
    Parts,
    cheap,
    cheapest,
    cheapest_of_few,
    gather,
)
from walras.market.engine.jit import LIMIT, NONE, Ints, part
from walras.market.engine.leases import Shares

# The row of `Shares.least` for leases that may have so many milli: rounded down to a power of two.
_SIZE = np.array([max(0, milli.bit_length() - 1) for milli in range(MILLI_MAX + 1)])


class Scratch(NamedTuple):
    """What the search writes, by device but for the first and the last two: `gone` and `listed` are 0 before
    and after, picked are the devices found. `spots` are devices with leases that are up for renewal."""

    gone: Ints  # by lease
    bounds: Ints  # at least what making room costs, LIMIT for more than the budget
    exact: Ints  # 1 where the bound is the cost
    places: Ints  # the devices to look at
    listed: Ints  # 1 for each of them
    spots: Ints
    picked: Ints
    victims: Ints


@part
def evict_from(
    device: int, most: int, kinds: Kinds, devices: Devices, shares: Shares, held: Held, claim: Claim,
    parts: Parts, scratch: Scratch,
) -> int:  # fmt: skip
    """The least cost of leases whose going makes room on a device, at most `most`, else LIMIT; marks them in
    `chosen`."""
    missing = max(0, shortage(device, False, kinds, devices, claim))
    short = max(0, shortage(device, True, kinds, devices, claim))
    count = gather(device, scratch.gone, shares, held, claim, parts)
    if count <= FEW_PARTS:
        return cheapest_of_few(missing, short, count, most, parts)
    if count <= EXACT_PARTS:
        return cheapest(missing, short, count, most, parts)
    return cheap(missing, short, count, most, parts)


@part
def drop(lease: int, sign: int, first: Ints, shares: Shares, held: Held, devices: Devices) -> None:
    """Count a lease out of what is taken later, or in again."""
    share = first[lease]
    while share:
        device = shares.device[share - 1]
        devices.later_milli[device] += sign * shares.milli[share - 1]
        devices.later_memory[device] += sign * shares.memory[share - 1]
        shares.value[device] += sign * held.price[lease] * shares.milli[share - 1]
        share = shares.next[share - 1]


@part
def shortage(device: int, memory: bool, kinds: Kinds, devices: Devices, claim: Claim) -> int:
    """What a device is short of for the claim once drains are over; below zero it is what would be left."""
    device_class = devices.kind[device]
    if memory:
        free = devices.class_memory[device_class] - devices.later_memory[device]
        return int(kinds.memory[claim.kind, device_class] - free)
    return int(kinds.milli[claim.kind] - devices.class_milli[device_class] + devices.later_milli[device])


@part
def assess(
    first: int, end: int, kinds: Kinds, devices: Devices, shares: Shares, claim: Claim, scratch: Scratch
) -> None:
    """Set, for some devices, what making room there costs at least: LIMIT when the budget does not cover it.

    What goes is one lease with enough or at least two; it has at least the cheapest price there, and what
    stays at most the dearest.
    """
    milli, memory, percent, budget = kinds.milli[claim.kind], kinds.memory, claim.percent, claim.budget
    for device in range(first, end):
        device_class, later = devices.kind[device], devices.later_milli[device]
        need = memory[claim.kind, device_class]
        missing = milli + later - devices.class_milli[device_class]
        short = need + devices.later_memory[device] - devices.class_memory[device_class]
        going, cheap = max(missing, 0), min(shares.cheapest[device], PRICE_MAX + 1)
        cost = shares.value[device] - shares.dearest[device] * max(later - going, 0)
        single = shares.least[_SIZE[min(going, MILLI_MAX)], device]
        several = min(shares.least[0, device], VALUE_MAX) + min(shares.second[device], VALUE_MAX)
        cost = percent * max(cost, cheap * going, min(single, several, VALUE_MAX))
        has_room = (missing <= 0) & (short <= 0)
        never = (need == LIMIT) | ((not has_room) & ((cheap > PRICE_MAX) | (cost > budget)))
        scratch.exact[device] = has_room
        scratch.bounds[device] = LIMIT if never else (0 if has_room else cost)


@part
def least_part(device: int, kind: int, percent: int, kinds: Kinds, devices: Devices, shares: Shares) -> int:
    """What the leases on a device cost at least that must go for one share of a kind there; LIMIT if it may
    not go there. Several devices cost no less than the sum, as a lease's value is that of its shares."""
    device_class, later = devices.kind[device], devices.later_milli[device]
    need = kinds.memory[kind, device_class]
    missing = kinds.milli[kind] + later - devices.class_milli[device_class]
    short = need + devices.later_memory[device] - devices.class_memory[device_class]
    if need != LIMIT and missing <= 0 and short <= 0:
        return 0
    if need == LIMIT or shares.cheapest[device] == LIMIT:
        return LIMIT
    going = max(missing, 0)
    cost = shares.value[device] - shares.dearest[device] * max(later - going, 0)
    cost = max(cost, shares.cheapest[device] * going)
    return int(percent * cost)


@part
def assess_renewal(
    device: int, kinds: Kinds, devices: Devices, shares: Shares, claim: Claim, scratch: Scratch
) -> None:
    """As `assess`, where only leases that are up for renewal may go."""
    missing = shortage(device, False, kinds, devices, claim)
    has_room = missing <= 0 and shortage(device, True, kinds, devices, claim) <= 0
    never = kinds.memory[claim.kind, devices.kind[device]] == LIMIT or (
        not has_room and shares.cheapest[device] == LIMIT
    )
    scratch.exact[device] = has_room
    scratch.bounds[device] = LIMIT if never else shares.cheapest[device] * max(missing, 0)
    if has_room:
        scratch.bounds[device] = 0


@part
def listing(device: int, count: int, claim: Claim, scratch: Scratch) -> int:
    """Put a device among the places if the budget covers room there; returns how many there are."""
    if scratch.bounds[device] <= claim.budget and scratch.listed[device] == 0:
        scratch.places[count], scratch.listed[device] = device, 1
        return count + 1
    return count


@part
def lacks(device: int, kinds: Kinds, devices: Devices, claim: Claim) -> bool:
    """Whether the device is short of anything for the claim."""
    missing, short = (
        shortage(device, False, kinds, devices, claim),
        shortage(device, True, kinds, devices, claim),
    )
    return bool(missing > 0 or short > 0)


@part
def survey(kinds: Kinds, devices: Devices, shares: Shares, claim: Claim, scratch: Scratch) -> int:
    """Assess all devices, list the places; returns how many there are."""
    count = 0
    if claim.density != NONE and kinds.devices[claim.kind] == 1:
        # A bid for one device that comes to this has room nowhere.
        for device in scratch.spots:
            assess_renewal(device, kinds, devices, shares, claim, scratch)
            count = listing(device, count, claim, scratch)
        return count
    if claim.density == NONE:
        assess(0, devices.kind.size, kinds, devices, shares, claim, scratch)
    else:
        for device in range(devices.kind.size):
            scratch.exact[device] = not lacks(device, kinds, devices, claim)
            scratch.bounds[device] = 0 if scratch.exact[device] else LIMIT
        # On other devices no lease is up for renewal.
        for device in scratch.spots:
            assess_renewal(device, kinds, devices, shares, claim, scratch)
    for device in range(devices.kind.size):
        count = listing(device, count, claim, scratch)
    return count


@part
def next_device(
    count: int, most: int, kinds: Kinds, devices: Devices, shares: Shares, held: Held, claim: Claim,
    parts: Parts, scratch: Scratch,
) -> int:  # fmt: skip
    """Of so many places the device where room costs least, at most `most`; on equal cost that which is left
    with the least, then the lowest. NONE when there is none."""
    best = NONE
    for at in range(count):
        device = scratch.places[at]
        if work_out(device, most, kinds, devices, shares, held, claim, parts, scratch) and (
            best == NONE or precedes(device, best, kinds, devices, claim, scratch)
        ):
            best, most = device, scratch.bounds[device]
    return best


@part
def work_out(
    device: int, most: int, kinds: Kinds, devices: Devices, shares: Shares, held: Held, claim: Claim,
    parts: Parts, scratch: Scratch,
) -> bool:  # fmt: skip
    """Whether room on a device costs at most so much; if so, its bound is the cost."""
    if scratch.bounds[device] > most:
        return False
    if scratch.exact[device] == 0:
        cost = evict_from(device, most, kinds, devices, shares, held, claim, parts, scratch)
        if cost > most:
            return False
        scratch.exact[device], scratch.bounds[device] = 1, cost
    return True


@part
def shortlist(
    count: int, kinds: Kinds, devices: Devices, shares: Shares, held: Held, claim: Claim, parts: Parts,
    scratch: Scratch,
) -> int:  # fmt: skip
    """Leave of the places as many as are wanted, the best in order; returns how many. The others are not
    better until a lease goes that was not on one device alone."""
    places, listed, wanted, kept, likely = scratch.places, scratch.listed, kinds.devices[claim.kind], 0, 0
    for at in range(count):
        if scratch.bounds[places[at]] < scratch.bounds[places[likely]]:
            likely = at
    # A likely one first, so that most others are left out by their bound alone.
    if count:
        places[0], places[likely] = places[likely], places[0]
    for at in range(count):
        device = places[at]
        most = scratch.bounds[places[kept - 1]] if kept == wanted else claim.budget
        listed[device] = 0
        if not work_out(device, most, kinds, devices, shares, held, claim, parts, scratch):
            continue
        place = kept
        while place > 0 and precedes(device, places[place - 1], kinds, devices, claim, scratch):
            place -= 1
        if place == wanted:
            continue
        if kept == wanted:
            kept -= 1
            listed[places[kept]] = 0
        for later in range(kept, place, -1):
            places[later] = places[later - 1]
        places[place], listed[device] = device, 1
        kept += 1
    return kept


@part
def precedes(a: int, b: int, kinds: Kinds, devices: Devices, claim: Claim, scratch: Scratch) -> bool:
    """Whether device a is the better one to make room on."""
    if scratch.bounds[a] != scratch.bounds[b]:
        return bool(scratch.bounds[a] < scratch.bounds[b])
    for memory in (False, True):
        left, other = shortage(a, memory, kinds, devices, claim), shortage(b, memory, kinds, devices, claim)
        if left != other:
            return bool(left > other)
    return a < b


@part
def displace(
    kinds: Kinds, devices: Devices, shares: Shares, held: Held, first: Ints, claim: Claim, parts: Parts,
    scratch: Scratch,
) -> int:  # fmt: skip
    """The cheapest leases that must go so that the claim has its devices: how many `victims`, or NONE.

    Device by device, each the cheapest given what is gone already, within the budget.
    """
    count, spent, found = 0, 0, True
    places = survey(kinds, devices, shares, claim, scratch)
    places = shortlist(places, kinds, devices, shares, held, claim, parts, scratch)
    for nth in range(kinds.devices[claim.kind]):
        device = next_device(
            places, claim.budget - spent, kinds, devices, shares, held, claim, parts, scratch
        )
        found = device != NONE
        if not found:
            break
        scratch.picked[nth] = device
        spent += scratch.bounds[device]
        if lacks(device, kinds, devices, claim):
            evict_from(device, scratch.bounds[device], kinds, devices, shares, held, claim, parts, scratch)
            before, count = count, note(device, count, shares, held, claim, parts, scratch)
            elsewhere = False
            for at in range(before, count):
                lease = scratch.victims[at]
                drop(lease, -1, first, shares, held, devices)
                elsewhere |= reassess(lease, device, first, kinds, devices, shares, claim, scratch)
            for at in range(nth + 1):
                scratch.bounds[scratch.picked[at]] = LIMIT
            if elsewhere and nth + 1 < kinds.devices[claim.kind]:
                places = relist(places, devices, claim, scratch)
                places = shortlist(places, kinds, devices, shares, held, claim, parts, scratch)
        scratch.bounds[device] = LIMIT
    for at in range(count):
        drop(scratch.victims[at], 1, first, shares, held, devices)
        scratch.gone[scratch.victims[at]] = 0
    for at in range(places):
        scratch.listed[scratch.places[at]] = 0
    return count if found else NONE


@part
def reassess(
    lease: int, picked: int, first: Ints, kinds: Kinds, devices: Devices, shares: Shares, claim: Claim,
    scratch: Scratch,
) -> bool:  # fmt: skip
    """Assess the devices anew on which a lease that has gone had shares; whether there are others than the
    one for which it went."""
    share, elsewhere = first[lease], False
    while share:
        device = shares.device[share - 1]
        elsewhere |= device != picked
        if claim.density == NONE:
            assess(device, device + 1, kinds, devices, shares, claim, scratch)
        else:
            assess_renewal(device, kinds, devices, shares, claim, scratch)
        share = shares.next[share - 1]
    return bool(elsewhere)


@part
def relist(count: int, devices: Devices, claim: Claim, scratch: Scratch) -> int:
    """List the places anew, from among all devices; returns how many there are."""
    for at in range(count):
        scratch.listed[scratch.places[at]] = 0
    count = 0
    for device in range(devices.kind.size):
        count = listing(device, count, claim, scratch)
    return count


@part
def note(
    device: int, count: int, shares: Shares, held: Held, claim: Claim, parts: Parts, scratch: Scratch
) -> int:
    """Put the chosen parts' leases among the victims, as told; returns how many victims there are."""
    victims, before = scratch.victims, count
    for at in range(gather(device, scratch.gone, shares, held, claim, parts)):
        if parts.chosen[at]:
            lease, place = parts.lease[at], count
            while place > before and held.told[victims[place - 1]] > held.told[lease]:
                victims[place] = victims[place - 1]
                place -= 1
            victims[place] = lease
            count += 1
    for place in range(before, count):
        scratch.gone[victims[place]] = 1
    return count
