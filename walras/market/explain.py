"""Why a bid lost: the constraint that bound, the price that would have won, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from walras.core.money import format_credits
from walras.core.quantity import format_duration
from walras.devices.topology import Affinity
from walras.market.ground import Ground, need_on
from walras.market.prepared import Option, Prepared, well_formed
from walras.market.types import Bid, Constraint, Device, Explanation, Package, Reason
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
        best = max(options, key=lambda option: (option.offered_density, -option.index))
        priced = self._winning.find(bid, decision)
        winning, unaffordable = priced.price_micros, priced.unaffordable_micros
        if winning is not None:
            best = priced.option
        lower = winning is not None and winning <= best.package.price_micros
        if unfunded or lower:
            reason, constraint = Reason.INSUFFICIENT_FUNDS, Constraint.FUNDS
        elif position == 0 and best.package.price_micros < best.at_speed(self._rules.reserve_micros):
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
            # The price to name, which is more than what is left of it now where the bid decays.
            None if winning is None else bid.price_for(winning, self._now),
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
        return unfit(bid, self._prepared.ground)

    def _tightest(self, option: Option) -> Constraint:
        """What was short for a package before anything was awarded in this clearing."""
        board, ask = self._prepared.board, option.ask
        rooms = board.rooms(ask, now=False)
        milli = sum(ask.needs[device].milli <= room.milli for device, room in rooms.items())
        memory = sum(ask.needs[device].memory_mib <= room.memory_mib for device, room in rooms.items())
        if milli >= ask.fewest > memory:
            return Constraint.MEMORY
        if 0 < milli < ask.fewest:
            return Constraint.DEVICES
        if milli >= ask.fewest and ask.affinity is not Affinity.ANY:
            return Constraint.TOPOLOGY
        return Constraint.MILLI_GPU

    def _message(self, found: Explanation, option: Option, unaffordable: int | None) -> str:
        asks = describe(option.package)
        clearing = format_credits(option.at_speed(found.clearing_price_micros))
        offer = format_credits(option.package.price_micros) + (" by now" if self._fades(option.bid) else "")
        winning = found.winning_price_micros
        if found.reason is Reason.BELOW_RESERVE:
            reserve = format_credits(option.at_speed(self._rules.reserve_micros))
            text = f"{offer} is below the pool's reserve price of {reserve} per GPU-hour"
            return text + (f"; {format_credits(winning)} would have won" if winning else "; raise maxPrice")
        if found.reason is Reason.INSUFFICIENT_FUNDS:
            micros = option.cost(option.package.price_micros, option.ask.fewest)
            available = self._prepared.funds[option.bid.agent]
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

    def _fades(self, bid: Bid) -> bool:
        return bid.decays_ms is not None and bid.decays_ms < self._now

    def _next_chance(self, option: Option) -> str:
        """When capacity that the package could use may change hands."""
        times = []
        for lease in self._prepared.snapshot.leases:
            if any(share.device in option.ask.needs for share in lease.shares):
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
    share = f"{package.milli_gpu} milli-GPU"
    if package.mig_profile:
        share = f"a MIG instance {package.mig_profile}"
    elif package.memory_mib:
        share += f" with {package.memory_mib} MiB"
    each = " each" if package.devices > 1 else ""
    plural = "s" if package.devices > 1 else ""
    count = str(package.devices)
    if package.fewest < package.devices:
        count = f"{package.fewest} to {package.devices}"
    return f"{share}{each} on {count} device{plural}{_TOGETHER[package.affinity]}"


_TOGETHER = {
    Affinity.ANY: "",
    Affinity.NODE: " of one node",
    Affinity.NVLINK: " of one NVLink domain",
    Affinity.SPREAD: " of as many nodes",
}


def unfit(bid: Bid, ground: Ground) -> Explanation:
    """Why none of a bid's packages could be held by the pool when it is empty."""
    package = next((package for package in bid.packages if well_formed(package)), None)
    if package is None:
        text = (
            "every package needs at least one device, a share, a term, a price of zero or more, and no more "
            "devices at the least than at the most"
        )
        return Explanation(Reason.INVALID, Constraint.DEVICES, 0, None, 0, text)
    devices = [
        device
        for device in ground.devices.values()
        if package.eligible is None or device.id in package.eligible
    ]
    if not devices:
        text = f"none of the pool's {len(ground.devices)} devices matches the selector"
        if not ground.devices:
            text = "the pool has no devices"
        return Explanation(Reason.NO_DEVICE, Constraint.DEVICES, 0, None, 0, text)
    if package.mig_profile and not any(need_on(package, device) for device in devices):
        known = sorted({each.name for device in devices if device.mig for each in device.mig.profiles})
        has = f"the profiles there are: {', '.join(known)}" if known else "no device of the pool has MIG"
        text = f"no device can be cut into {package.mig_profile}; {has}"
        return Explanation(Reason.NO_DEVICE, Constraint.DEVICES, 0, None, 0, text)
    constraint, most = _least_short(package, devices, ground)
    text = f"{describe(package)} is more than the pool has: at most {most}; ask for less"
    return Explanation(Reason.TOO_LARGE, constraint, 0, None, 0, text)


def _least_short(package: Package, devices: Sequence[Device], ground: Ground) -> tuple[Constraint, str]:
    """What a package that fits nowhere asks too much of, and how much of it there is."""
    fitting = len(ground.ask(package).needs)
    if fitting >= package.fewest:
        return Constraint.TOPOLOGY, f"{max(map(len, ground.groups(ground.ask(package))))} such devices"
    if all(device.milli < package.milli_gpu for device in devices):
        return Constraint.MILLI_GPU, f"{max(device.milli for device in devices)} milli-GPU"
    if all(device.memory_mib < package.memory_mib for device in devices):
        return Constraint.MEMORY, f"{max(device.memory_mib for device in devices)} MiB"
    return Constraint.DEVICES, f"{fitting} such devices"
