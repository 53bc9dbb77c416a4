"""The cheapest shares on a device that must go, as `walras.devices.placement.cheapest_cover` finds them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from walras.market.engine.amounts import hourly
from walras.market.engine.jit import LIMIT, NONE, Grid, Ints, kernel, part
from walras.market.engine.leases import ACTIVE, RENEWING, Shares

FEW_PARTS: Final = 5  # for every set of which there is room on the stack
EXACT_PARTS: Final = 12  # leases on a device above which the cheapest set is looked for greedily


class Held(NamedTuple):
    """Columns of leases. `density` is read where they are up for renewal, `told` decides between equals."""

    agent: Ints
    latency: Ints
    price: Ints
    restart: Ints
    start: Ints
    milli: Ints
    state: Ints
    told: Ints
    density: Ints


class Claim(NamedTuple):
    """Who wants the room, for what. Leases go that are up for renewal and less dense than `density`, at their
    value; or, where that is NONE, those that may be displaced, with the margin and their restart."""

    kind: int
    agent: int
    price: int
    term: int
    density: int
    begun: int  # leases that started after this may not be displaced yet
    percent: int  # of what leases are worth that must be offered
    budget: int  # micro x milli an hour that it is worth, in parts of 1 / percent


class Parts(NamedTuple):
    """The interruptible shares on one device, cheapest first, and room for the search among them."""

    lease: Ints
    milli: Ints
    memory: Ints
    cost: Ints
    told: Ints
    rest_milli: Ints
    rest_memory: Ints
    chosen: Ints  # 1 for each part of the set that was found
    stack: Grid
    order: Ints


@part
def worth(lease: int, held: Held, claim: Claim) -> int:
    """What the going of a lease costs: its value, and to displace it its restart over the claim's term."""
    value = held.price[lease] * held.milli[lease] * claim.percent
    if claim.density == NONE:
        value += hourly(held.restart[lease], claim.term)
    return int(value)


@part
def may_go(lease: int, held: Held, claim: Claim) -> bool:
    """Whether the rules let this claim have that lease's place."""
    state = held.state[lease]
    if claim.density != NONE:
        return bool(state == RENEWING and held.density[lease] < claim.density)
    if state < ACTIVE or held.start[lease] > claim.begun:
        return False
    lower = held.price[lease] < claim.price
    return bool(lower or (held.latency[lease] == 0 and held.agent[lease] != claim.agent))


@part
def gather(device: int, gone: Ints, shares: Shares, held: Held, claim: Claim, parts: Parts) -> int:
    """The parts of a device that may go and are not gone, by cost and then as told; returns how many."""
    count, share = 0, shares.on_device[device]
    while share and count < parts.lease.size:
        lease = shares.lease[share - 1]
        cost = worth(lease, held, claim)
        # One that costs more than all that the claim is worth is no part of what could go.
        if gone[lease] == 0 and cost <= claim.budget and may_go(lease, held, claim):
            told, at = held.told[lease], count
            while at > 0 and (
                parts.cost[at - 1] > cost or (parts.cost[at - 1] == cost and parts.told[at - 1] > told)
            ):
                parts.lease[at], parts.cost[at] = parts.lease[at - 1], parts.cost[at - 1]
                parts.milli[at], parts.memory[at] = parts.milli[at - 1], parts.memory[at - 1]
                parts.told[at] = parts.told[at - 1]
                at -= 1
            parts.lease[at], parts.cost[at], parts.told[at] = lease, cost, told
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
def cheaper(a: int, b: int, parts: Parts) -> bool:
    """Whether part a costs less per milli than part b, exactly; on equal cost, whether it was told first."""
    by, than = max(1, parts.milli[a]), max(1, parts.milli[b])
    whole, other = parts.cost[a] // by, parts.cost[b] // than
    if whole == other:
        whole, other = (parts.cost[a] - whole * by) * than, (parts.cost[b] - other * than) * by
    return bool(whole < other or (whole == other and parts.told[a] < parts.told[b]))


@part
def cheap(milli: int, memory: int, count: int, most: int, parts: Parts) -> int:
    """As `cheapest`, for many parts: the cheapest per milli first, then those not needed left out."""
    order, has_milli, has_memory, cost = parts.order, 0, 0, 0
    for at in range(count):
        parts.chosen[at], place = 0, at
        while place > 0 and cheaper(at, order[place - 1], parts):
            order[place] = order[place - 1]
            place -= 1
        order[place] = at
    chosen = 0
    while chosen < count and (has_milli < milli or has_memory < memory):
        at = order[chosen]
        parts.chosen[at] = 1
        has_milli += parts.milli[at]
        has_memory += parts.memory[at]
        cost += parts.cost[at]
        chosen += 1
    if has_milli < milli or has_memory < memory:
        return LIMIT
    # The dearest are left out first; of equal ones, the first in the order above.
    for _ in range(chosen):
        dearest = 0
        for place in range(1, chosen):
            if parts.cost[order[place]] > parts.cost[order[dearest]]:
                dearest = place
        at = order[dearest]
        chosen -= 1
        for place in range(dearest, chosen):
            order[place] = order[place + 1]
        if has_milli - parts.milli[at] >= milli and has_memory - parts.memory[at] >= memory:
            parts.chosen[at] = 0
            has_milli -= parts.milli[at]
            has_memory -= parts.memory[at]
            cost -= parts.cost[at]
    return int(cost) if cost <= most else LIMIT


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
        np.empty(size, np.int64),
        np.empty((1 << FEW_PARTS, 6), np.int64),
        np.empty(size, np.int64),
    )
