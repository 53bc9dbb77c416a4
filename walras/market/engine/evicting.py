"""The cheapest leases that must go to make room, as `walras.market.eviction` has it, over columns."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from walras.market.engine.amounts import MILLI_MAX, VALUE_MAX, hourly
from walras.market.engine.board import Devices, Kinds
from walras.market.engine.jit import LIMIT, NONE, Grid, Ints, kernel, part
from walras.market.engine.leases import ACTIVE, Shares

FEW_PARTS: Final = 5  # for every set of which there is room on the stack
EXACT_PARTS: Final = 12  # leases on a device above which the cheapest set is looked for greedily

# The row of `Shares.least` for leases that may have so many milli: rounded down to a power of two.
_SIZE = np.array([max(0, milli.bit_length() - 1) for milli in range(MILLI_MAX + 1)])


class Held(NamedTuple):
    """Columns of leases."""

    agent: Ints
    latency: Ints
    price: Ints
    restart: Ints
    start: Ints
    milli: Ints
    state: Ints
    told: Ints


class Claim(NamedTuple):
    """Who wants the room, for what."""

    kind: int
    agent: int
    price: int
    term: int
    begun: int  # leases that started after this may not be displaced yet
    percent: int  # of what leases are worth that must be offered
    budget: int  # hundredths of micro x milli an hour that it is worth


class Parts(NamedTuple):
    """The interruptible shares on one device, cheapest first, and room for the search among them."""

    lease: Ints
    milli: Ints
    memory: Ints
    cost: Ints
    rest_milli: Ints
    rest_memory: Ints
    chosen: Ints  # 1 for each part of the set that was found
    stack: Grid
    order: Ints


class Scratch(NamedTuple):
    """What the search writes: `gone` is 0 for every lease before and after; picked are the devices."""

    parts: Parts
    gone: Ints
    bounds: Ints
    exact: Ints  # 1 where the bound is the cost
    picked: Ints
    victims: Ints


@part
def worth(lease: int, held: Held, claim: Claim) -> int:
    """What displacing a lease costs: its value with the margin, and its restart over the claim's term."""
    return int(held.price[lease] * held.milli[lease] * claim.percent) + hourly(
        held.restart[lease], claim.term
    )


@part
def interruptible(lease: int, held: Held, claim: Claim) -> bool:
    """Whether the rules let this claim displace that lease."""
    if held.state[lease] != ACTIVE or held.start[lease] > claim.begun:
        return False
    lower = held.price[lease] < claim.price
    return bool(lower or (held.latency[lease] == 0 and held.agent[lease] != claim.agent))


@part
def gather(device: int, gone: Ints, shares: Shares, held: Held, claim: Claim, parts: Parts) -> int:
    """The parts of a device that may go and are not gone, by cost and then as told; returns how many."""
    count, share = 0, shares.on_device[device]
    while share and count < parts.lease.size:
        lease = shares.lease[share - 1]
        if gone[lease] == 0 and interruptible(lease, held, claim):
            cost, at = worth(lease, held, claim), count
            while at > 0 and (
                parts.cost[at - 1] > cost
                or (parts.cost[at - 1] == cost and held.told[parts.lease[at - 1]] > held.told[lease])
            ):
                parts.lease[at], parts.cost[at] = parts.lease[at - 1], parts.cost[at - 1]
                parts.milli[at], parts.memory[at] = parts.milli[at - 1], parts.memory[at - 1]
                at -= 1
            parts.lease[at], parts.cost[at] = lease, cost
            parts.milli[at], parts.memory[at] = shares.milli[share - 1], shares.memory[share - 1]
            count += 1
        share = shares.after[share - 1]
    return count


@part
def cheapest(milli: int, memory: int, count: int, most: int, parts: Parts) -> int:
    """The least cost of parts that together have so much, at most `most`, else LIMIT; marks them in `chosen`.

    By branch and bound in the order of `walras.devices.placement.cheapest_cover`: with before without.
    """
    stack = parts.stack
    parts.rest_milli[count] = parts.rest_memory[count] = 0
    for at in range(count - 1, -1, -1):
        parts.rest_milli[at] = parts.rest_milli[at + 1] + parts.milli[at]
        parts.rest_memory[at] = parts.rest_memory[at + 1] + parts.memory[at]
    best, fewest, found, top = LIMIT, LIMIT, 0, 1
    stack[0, 0] = stack[0, 1] = stack[0, 2] = stack[0, 3] = stack[0, 4] = stack[0, 5] = 0
    while top > 0:
        top -= 1
        at, chosen, size = stack[top, 0], stack[top, 1], stack[top, 2]
        has_milli, has_memory, cost = stack[top, 3], stack[top, 4], stack[top, 5]
        if cost > most or cost > best or (cost == best and size >= fewest):
            continue
        if has_milli >= milli and has_memory >= memory:
            best, fewest, found = cost, size, chosen
            continue
        if has_milli + parts.rest_milli[at] < milli or has_memory + parts.rest_memory[at] < memory:
            continue
        stack[top, 0] = at + 1
        for field in range(6):
            stack[top + 1, field] = stack[top, field]
        top += 1
        stack[top, 1], stack[top, 2] = chosen | (1 << at), size + 1
        stack[top, 3], stack[top, 4] = has_milli + parts.milli[at], has_memory + parts.memory[at]
        stack[top, 5] = cost + parts.cost[at]
        top += 1
    for at in range(count):
        parts.chosen[at] = found >> at & 1
    return best


@part
def cheapest_of_few(milli: int, memory: int, count: int, most: int, parts: Parts) -> int:
    """As `cheapest`, by looking at every set of so few parts. A set is a number, bit by part."""
    stack, best, fewest, found = parts.stack, LIMIT, LIMIT, 0
    for field in range(4):
        stack[0, field] = 0
    for chosen in range(1, 1 << count):
        part = 0
        while chosen >> part & 1 == 0:
            part += 1
        rest = chosen & (chosen - 1)
        stack[chosen, 0], stack[chosen, 1] = (
            stack[rest, 0] + parts.milli[part],
            stack[rest, 1] + parts.memory[part],
        )
        stack[chosen, 2], stack[chosen, 3] = stack[rest, 2] + parts.cost[part], stack[rest, 3] + 1
        cost, size = stack[chosen, 2], stack[chosen, 3]
        if stack[chosen, 0] < milli or stack[chosen, 1] < memory or cost > min(best, most):
            continue
        # Of equal sets that which has the first part in which they differ, as branch and bound finds first.
        differ = chosen ^ found
        if cost < best or size < fewest or (size == fewest and chosen & (differ & -differ) != 0):
            best, fewest, found = cost, size, chosen
    for part in range(count):
        parts.chosen[part] = found >> part & 1
    return best


@part
def cheap(milli: int, memory: int, count: int, most: int, parts: Parts) -> int:
    """As `cheapest`, for many parts: the cheapest per milli first, then those not needed left out."""
    order, has_milli, has_memory, cost = parts.order, 0, 0, 0
    for at in range(count):
        parts.chosen[at], order[at] = 0, at
        place = at
        rate = parts.cost[at] / max(1, parts.milli[at])
        while place > 0 and parts.cost[order[place - 1]] / max(1, parts.milli[order[place - 1]]) > rate:
            order[place] = order[place - 1]
            place -= 1
        order[place] = at
    for place in range(count):
        at = order[place]
        if has_milli >= milli and has_memory >= memory:
            break
        parts.chosen[at] = 1
        has_milli += parts.milli[at]
        has_memory += parts.memory[at]
        cost += parts.cost[at]
        if cost > most:
            return LIMIT
    if has_milli < milli or has_memory < memory:
        return LIMIT
    for at in range(count - 1, -1, -1):
        spare = has_milli - parts.milli[at] >= milli and has_memory - parts.memory[at] >= memory
        if parts.chosen[at] and spare:
            parts.chosen[at] = 0
            has_milli -= parts.milli[at]
            has_memory -= parts.memory[at]
            cost -= parts.cost[at]
    return int(cost)


@part
def evict_from(
    device: int, most: int, kinds: Kinds, devices: Devices, shares: Shares, held: Held, claim: Claim,
    scratch: Scratch,
) -> int:  # fmt: skip
    """The least cost of leases whose going makes room on a device, at most `most`, else LIMIT; marks them in
    `chosen`."""
    missing = max(0, shortage(device, False, kinds, devices, claim))
    short = max(0, shortage(device, True, kinds, devices, claim))
    count = gather(device, scratch.gone, shares, held, claim, scratch.parts)
    if count <= FEW_PARTS:
        return cheapest_of_few(missing, short, count, most, scratch.parts)
    if count <= EXACT_PARTS:
        return cheapest(missing, short, count, most, scratch.parts)
    return cheap(missing, short, count, most, scratch.parts)


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
        going, cheap = max(missing, 0), shares.cheapest[device]
        cost = shares.value[device] - shares.dearest[device] * max(later - going, 0)
        single = shares.least[_SIZE[min(going, MILLI_MAX)], device]
        several = min(shares.least[0, device], VALUE_MAX) + min(shares.second[device], VALUE_MAX)
        cost = percent * max(cost, cheap * going, min(single, several, VALUE_MAX))
        has_room = (missing <= 0) & (short <= 0)
        never = (need == LIMIT) | ((not has_room) & ((cheap == LIMIT) | (cost > budget)))
        scratch.exact[device] = has_room
        scratch.bounds[device] = LIMIT if never else (0 if has_room else cost)


@part
def next_device(
    most: int, kinds: Kinds, devices: Devices, shares: Shares, held: Held, claim: Claim, scratch: Scratch
) -> int:
    """The device where room costs least, at most `most`; on equal cost that which is left with the least,
    then the lowest. NONE when there is none."""
    bounds, best, likely = scratch.bounds, NONE, NONE
    for device in range(bounds.size):
        if bounds[device] <= most and (likely == NONE or bounds[device] < bounds[likely]):
            likely = device
    if likely == NONE:
        return NONE
    # A likely one first, so that most others are left out by their bound alone.
    for turn in range(-1, bounds.size):
        device = likely if turn == -1 else turn
        if bounds[device] > most or (turn == likely and turn >= 0):
            continue
        if scratch.exact[device] == 0:
            going = evict_from(device, most, kinds, devices, shares, held, claim, scratch)
            if going > most:
                continue
            scratch.exact[device], bounds[device] = 1, going
        if best == NONE or precedes(device, best, kinds, devices, claim, scratch):
            best, most = device, bounds[device]
    return best


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
    kinds: Kinds, devices: Devices, shares: Shares, held: Held, first: Ints, claim: Claim, scratch: Scratch
) -> int:
    """The cheapest leases that must go so that the claim has its devices: how many `victims`, or NONE.

    Device by device, each the cheapest given what is gone already, within the budget.
    """
    count, spent, found = 0, 0, True
    assess(0, devices.kind.size, kinds, devices, shares, claim, scratch)
    for nth in range(kinds.devices[claim.kind]):
        device = next_device(claim.budget - spent, kinds, devices, shares, held, claim, scratch)
        found = device != NONE
        if not found:
            break
        scratch.picked[nth] = device
        if scratch.bounds[device] > 0:
            spent += scratch.bounds[device]
            evict_from(device, scratch.bounds[device], kinds, devices, shares, held, claim, scratch)
            before, count = count, note(device, count, shares, held, claim, scratch)
            for at in range(before, count):
                drop(scratch.victims[at], -1, first, shares, held, devices)
                reassess(scratch.victims[at], first, kinds, devices, shares, claim, scratch)
        for at in range(nth + 1):
            scratch.bounds[scratch.picked[at]] = LIMIT
    for at in range(count):
        drop(scratch.victims[at], 1, first, shares, held, devices)
        scratch.gone[scratch.victims[at]] = 0
    return count if found else NONE


@part
def reassess(
    lease: int, first: Ints, kinds: Kinds, devices: Devices, shares: Shares, claim: Claim, scratch: Scratch
) -> None:
    """Assess the devices anew on which a lease that has gone had shares."""
    share = first[lease]
    while share:
        device = shares.device[share - 1]
        assess(device, device + 1, kinds, devices, shares, claim, scratch)
        share = shares.next[share - 1]


@part
def note(device: int, count: int, shares: Shares, held: Held, claim: Claim, scratch: Scratch) -> int:
    """Put the chosen parts' leases among the victims, as told; returns how many victims there are."""
    victims, parts, before = scratch.victims, scratch.parts, count
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


@kernel
def parts_for(most: int) -> Parts:
    """Room for the shares on a device, of which there are at most so many."""
    size = max(most, EXACT_PARTS) + 1
    return Parts(
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty((1 << FEW_PARTS, 6), np.int64),
        np.empty(size, np.int64),
    )
