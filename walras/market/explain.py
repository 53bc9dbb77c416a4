"""Why a bid lost: the constraint that bound, the price that would have won, what to do."""

from __future__ import annotations

from dataclasses import replace

from walras.core.money import format_credits
from walras.core.quantity import format_duration
from walras.devices.placement import Shape
from walras.market.prepared import Option, Prepared, well_formed
from walras.market.types import Bid, Constraint, Explanation, Package, Reason
from walras.market.winning import Decide, Decision, WinningPrice


class Explainer:
    """Explains the refusals of one clearing; `decide` runs it again with another price."""

    def __init__(
        self,
        prepared: Prepared,
        decide: Decide,
        *,
        only: str | None = None,
    ) -> None:
        self.only = only
        self._prepared = prepared
        self._winning = WinningPrice(prepared, decide, only=only)
        self._positions: dict[str, int] | None = None
        self._rules = prepared.snapshot.rules
        self._now = prepared.snapshot.now_ms

    def explain(self, bid: Bid, decision: Decision) -> Explanation:
        """The explanation of a bid that `decision` refused."""
        impossible = self._impossible(bid)
        if impossible is not None:
            return replace(impossible, clearing_price_micros=decision.price_micros)
        options = self._prepared.options[bid.id]
        if self._positions is None:
            self._positions = {name: place for place, name in enumerate(decision.clearing.order(), 1)}
        position = self._positions.get(bid.id, 0)
        unfunded = bid.id in decision.result.unfunded
        best = max(options, key=lambda option: (option.density(option.package.price_micros), -option.index))
        priced = self._winning.find(bid, decision)
        winning, unaffordable = priced.price_micros, priced.unaffordable_micros
        if winning is not None:
            best = next(option for option in options if option.index == priced.package)
        lower = winning is not None and winning <= best.package.price_micros
        if unfunded or lower:
            reason, constraint = Reason.INSUFFICIENT_FUNDS, Constraint.FUNDS
        elif position == 0 and best.package.price_micros < self._rules.reserve_micros:
            reason, constraint = Reason.BELOW_RESERVE, Constraint.PRICE
        elif winning is not None or not priced.searched:
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
            best.index,
        )
        if not priced.searched and reason is Reason.OUTBID:
            text = (
                f"no room for {describe(best.package)} this time; too many bids to say what price would win"
            )
            return replace(found, message=text)
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

    def _tightest(self, option: Option) -> Constraint:
        """What was short for a package before anything was awarded in this clearing."""
        rooms = {device: self._prepared.board.room_later(device) for device in option.needs}
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
            micros, available = option.package.cost_max_micros, self._prepared.funds[option.bid.agent]
            cost, funds = format_credits(micros), format_credits(available)
            term = format_duration(option.package.term_ms)
            if micros <= available:
                cost += " beside what the agent's other wins, renewals or restarts take"
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
