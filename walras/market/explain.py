"""Why a bid lost: the constraint that bound, the price that would have won, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Protocol

from walras.core.money import CREDITS_MAX, MICROS, format_credits
from walras.core.quantity import format_duration
from walras.devices.placement import Shape
from walras.market.clearing import Clearing, Override, Pass
from walras.market.eviction import evict
from walras.market.placement import Board
from walras.market.prepared import Option, Prepared, value, well_formed
from walras.market.types import Bid, Constraint, Explanation, Package, Reason

PRICE_MAX: Final = CREDITS_MAX * MICROS
_Found = tuple[int | None, int | None, int]  # price that wins, price that would with more funds, package


class Decision(Protocol):
    """The outcome of one clearing, of which this is an explanation."""

    @property
    def clearing(self) -> Clearing: ...
    @property
    def result(self) -> Pass: ...
    @property
    def price_micros(self) -> int: ...


class Explainer:
    """Explains the refusals of one clearing; `decide` runs it again with a price overridden."""

    def __init__(
        self,
        prepared: Prepared,
        decide: Callable[[Override | None], Decision],
        *,
        only: str | None = None,
    ) -> None:
        self.only = only
        self._prepared = prepared
        self._decide = decide
        self._rules = prepared.snapshot.rules
        self._now = prepared.snapshot.now_ms
        self._known: dict[tuple[str, str, Package], _Found] = {}

    def explain(self, bid: Bid, decision: Decision) -> Explanation:
        """The explanation of a bid that `decision` refused."""
        impossible = self._impossible(bid)
        if impossible is not None:
            return replace(impossible, clearing_price_micros=decision.price_micros)
        options = self._prepared.options[bid.id]
        position = decision.result.order.index(bid.id) + 1 if bid.id in decision.result.order else 0
        unfunded = bid.id in decision.result.unfunded
        best = max(options, key=lambda option: (option.density(option.package.price_micros), -option.index))
        winning, unaffordable, package = self._winning(bid, options, decision, unfunded=unfunded)
        if unfunded:
            reason, constraint = Reason.INSUFFICIENT_FUNDS, Constraint.FUNDS
        elif position == 0 and best.package.price_micros < self._rules.reserve_micros:
            reason, constraint = Reason.BELOW_RESERVE, Constraint.PRICE
        elif winning is not None:
            reason, constraint = Reason.OUTBID, self._tightest(best)
        elif unaffordable is not None:
            reason, constraint = Reason.OUTBID, Constraint.FUNDS
        else:
            reason, constraint = Reason.NO_CAPACITY, self._tightest(best)
        found = Explanation(
            reason,
            constraint,
            decision.price_micros,
            winning,
            position,
            "",
            package if winning else best.index,
        )
        return replace(found, message=self._message(found, best, unaffordable))

    def _impossible(self, bid: Bid) -> Explanation | None:
        """Refusals that no price changes."""
        if bid.deadline_ms is not None and bid.deadline_ms <= self._now:
            late = format_duration((self._now - bid.deadline_ms) // 1000 * 1000)
            text = f"the deadline passed {late} ago; bid again with a later one"
            return Explanation(Reason.EXPIRED, Constraint.DEADLINE, 0, None, 0, text)
        if self._prepared.options[bid.id]:
            return None
        return unfit(bid, self._prepared.capacity)

    def _winning(
        self, bid: Bid, options: tuple[Option, ...], decision: Decision, *, unfunded: bool
    ) -> _Found:
        """The lowest price found that wins, over all packages."""
        found = [self._winning_package(bid, option, decision, unfunded=unfunded) for option in options]
        return min(found, key=_cheapness)

    def _winning_package(self, bid: Bid, option: Option, decision: Decision, *, unfunded: bool) -> _Found:
        """As `_winning`; bids of one agent for the same package share the search, unless order decides."""
        key = (bid.agent, bid.job_class, replace(option.package, price_micros=0))
        known = self._known.get(key) if len(bid.packages) == 1 and not unfunded else None
        if known is not None and self._same_for(option, known, decision):
            return known[0], known[1], option.index
        price = self._search(option, decision, 1 if unfunded else option.package.price_micros + 1)
        affordable = price is not None and self._wins(option, price, funded=False)
        found = (price if affordable else None, None if affordable else price, option.index)
        if len(bid.packages) == 1 and not unfunded:
            self._known[key] = found
        return found

    def _same_for(self, option: Option, known: _Found, decision: Decision) -> bool:
        price = known[0]
        if price is None:
            return True
        density = option.density(price)
        tie = any(win.density == density for win in decision.result.wins)
        return price > option.package.price_micros and not tie

    def _wins(self, option: Option, price: int, *, funded: bool) -> bool:
        """Whether the bid wins this very clearing with that price, and with any funds if `funded`."""
        again = self._decide(Override(option.bid.id, option.index, price, funded))
        return any(win.option.bid.id == option.bid.id for win in again.result.wins)

    def _search(self, option: Option, decision: Decision, least: int) -> int | None:
        """The lowest price that matters and wins if it can be paid, tried by clearing again."""

        def wins(price: int) -> bool:
            return self._wins(option, price, funded=True)

        if not wins(PRICE_MAX):
            return None
        prices = sorted({price for price in self._prices(option, decision) if least <= price < PRICE_MAX})
        low, high = 0, len(prices)
        while low < high:
            middle = (low + high) // 2
            if wins(prices[middle]):
                high = middle
            else:
                low = middle + 1
        if low < len(prices):
            return prices[low]
        return _bisect(wins, prices[-1] if prices else least - 1, PRICE_MAX)

    def _prices(self, option: Option, decision: Decision) -> Iterable[int]:
        """Where something changes for this package: it passes a winner, or is worth a displacement."""
        result, clearing = decision.result, decision.clearing
        yield self._rules.reserve_micros
        yield max(self._rules.reserve_micros, self._prepared.snapshot.price_micros)
        levels = {win.density for win in result.wins}
        for lease in (*clearing.renewing, *result.given_up.values(), *result.displaced.values()):
            levels.add(self._prepared.densities[lease.id])
        for level in levels:
            yield option.price_for(level)
            yield option.price_for(level + 1)
        start = Clearing(self._prepared, only=self.only)
        board = Board(self._prepared.capacity, self._prepared.snapshot.leases)
        milli = option.package.total_milli
        due = evict(
            option.needs,
            option.package.devices,
            board,
            list(self._prepared.due),
            lambda lease: value(lease.max_price_micros, lease.total_milli),
        )
        if due is not None:
            yield -(-due.cost // milli)
        for state in (start, clearing):
            found = state.displaceable(option, PRICE_MAX)
            if found is not None:
                yield -(-found.cost // (100 * milli * option.package.term_ms))
                yield from (lease.max_price_micros + 1 for lease in found.victims)

    def _tightest(self, option: Option) -> Constraint:
        """What was short for a package before anything was awarded in this clearing."""
        board = Board(self._prepared.capacity, self._prepared.snapshot.leases)
        rooms = {device: board.room_later(device) for device in option.needs}
        milli = sum(option.needs[device].milli <= room.milli for device, room in rooms.items())
        memory = sum(option.needs[device].memory_mib <= room.memory_mib for device, room in rooms.items())
        if milli >= option.package.devices > memory:
            return Constraint.MEMORY
        if 0 < milli < option.package.devices:
            return Constraint.DEVICES
        return Constraint.MILLI_GPU

    def _message(self, found: Explanation, option: Option, unaffordable: int | None) -> str:
        asks, clearing = describe(option.package), format_credits(found.clearing_price_micros)
        offer = format_credits(option.package.price_micros)
        winning = found.winning_price_micros
        if found.reason is Reason.BELOW_RESERVE:
            reserve = format_credits(self._rules.reserve_micros)
            text = f"{offer} is below the pool's reserve price of {reserve} per GPU-hour"
            return text + (f"; {format_credits(winning)} would have won" if winning else "; raise maxPrice")
        if found.reason is Reason.INSUFFICIENT_FUNDS:
            cost = format_credits(option.package.cost_max_micros)
            term = format_duration(option.package.term_ms)
            funds = format_credits(self._prepared.funds[option.bid.agent])
            advice = (
                f"a maxPrice of {format_credits(winning)} would have won"
                if winning
                else "wait for income, shorten the term or lower maxPrice"
            )
            return f"{asks} at {offer} for {term} costs up to {cost} but {funds} is available; {advice}"
        if winning is not None:
            return (
                f"outbid for {asks}: it offers {offer} where the clearing price is {clearing}; "
                f"a maxPrice of {format_credits(winning)} would have won"
            )
        if unaffordable is not None:
            return (
                f"outbid for {asks}: winning takes {format_credits(unaffordable)}, which the agent's funds "
                "do not cover for the term; wait for income, shorten the term or ask for a smaller share"
            )
        return f"{asks} is under leases that no bid may displace now; {self._next_chance(option)}"

    def _next_chance(self, option: Option) -> str:
        """When capacity that the package could use may change hands."""
        times = []
        for lease in self._prepared.snapshot.leases:
            if any(share.device in option.needs for share in lease.shares):
                times.append(max(lease.drains_at_ms or lease.end_ms, self._now))
                if option.bid.job_class == "latency" and lease.job_class != "latency":
                    times.append(max(lease.start_ms + self._rules.quantum_ms, self._now))
        later = [time for time in times if time > self._now]
        if not later:
            return "it is considered again every tick"
        wait = format_duration(-(-(min(later) - self._now) // 1000) * 1000)
        return f"it is considered again every tick, the next lease may end in {wait}"


def _cheapness(found: _Found) -> tuple[int, int]:
    """Sorts what can be paid before what cannot, the cheaper first."""
    winning, unaffordable, _ = found
    return (winning or PRICE_MAX + 1, unaffordable or PRICE_MAX + 1)


def _bisect(wins: Callable[[int], bool], loses: int, most: int) -> int:
    """The least price between one that loses and one that wins."""
    while most - loses > 1:
        middle = (loses + most) // 2
        if wins(middle):
            most = middle
        else:
            loses = middle
    return most


def describe(package: Package) -> str:
    """The package in words."""
    memory = f" with {package.memory_mib} MiB" if package.memory_mib else ""
    each = " each" if package.devices > 1 else ""
    plural = "s" if package.devices > 1 else ""
    return f"{package.milli_gpu} milli-GPU{memory}{each} on {package.devices} device{plural}"


def unfit(bid: Bid, capacity: dict[str, Shape]) -> Explanation:
    """Why none of a bid's packages could be held by the pool when it is empty."""
    package = next((package for package in bid.packages if well_formed(package)), None)
    if package is None:
        text = "every package needs at least one device, a share, a term and a price of zero or more"
        return Explanation(Reason.INVALID, Constraint.DEVICES, 0, None, 0, text)
    rooms = [
        room for device, room in capacity.items() if package.eligible is None or device in package.eligible
    ]
    if not rooms:
        text = f"none of the pool's {len(capacity)} devices matches the selector"
        if not capacity:
            text = "the pool has no devices"
        return Explanation(Reason.NO_DEVICE, Constraint.DEVICES, 0, None, 0, text)
    if all(room.milli < package.milli_gpu for room in rooms):
        constraint, most = Constraint.MILLI_GPU, f"{max(room.milli for room in rooms)} milli-GPU"
    elif all(room.memory_mib < package.memory_mib for room in rooms):
        constraint, most = Constraint.MEMORY, f"{max(room.memory_mib for room in rooms)} MiB"
    else:
        fitting = sum(Shape(package.milli_gpu, package.memory_mib).fits(room) for room in rooms)
        constraint, most = Constraint.DEVICES, f"{fitting} such devices"
    text = f"{describe(package)} is more than the pool has: at most {most}; ask for less"
    return Explanation(Reason.TOO_LARGE, constraint, 0, None, 0, text)
