"""Finds devices for the claims of one pod on one node, by backtracking. Pure.

As k8s.io/dynamic-resource-allocation/structured: claims, requests and devices in their order, the first
complete solution is taken. Within a request devices go up, so that no set of them is tried twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NamedTuple

from walras.core.errors import Invalid
from walras.tenants.claims.asks import RESULTS_MAX, Ask, Asked, Rule
from walras.tenants.claims.capacity import consumed, fits
from walras.tenants.claims.effort import Effort
from walras.tenants.claims.pools import Counter, Device, DeviceId, Pool
from walras.tenants.claims.selectors import selects

Raw = Mapping[str, Any]
# How many requests and devices the claims of one pod may have together.
POD_MAX: Final = 128
_PREVENTING: Final = ("NoSchedule", "NoExecute")
_NOTHING: Final[Mapping[str, Fraction]] = {}


@dataclass(slots=True)
class Taken:
    """What claims hold: devices whole, and parts of those that several may share."""

    devices: set[DeviceId] = field(default_factory=set)
    parts: dict[DeviceId, dict[str, Fraction]] = field(default_factory=dict)

    def add(self, device: DeviceId, part: Mapping[str, Fraction] | None) -> None:
        """`part` is None for a whole device."""
        if part is None:
            self.devices.add(device)
            return
        held = self.parts.setdefault(device, {})
        for name, amount in part.items():
            held[name] = held.get(name, Fraction(0)) + amount


class Pick(NamedTuple):
    """A device for a request; `part` is what it takes of one that others may share."""

    ask: Ask
    device: Device
    part: Mapping[str, Fraction] | None


class _Held:
    """A constraint, and the values that were added under it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._values: list[Any] = []

    def add(self, device: Device) -> bool:
        value = device.attribute(self.rule.attribute)
        if value is None:
            return False
        if self.rule.distinct and value in self._values:
            return False
        if not self.rule.distinct and self._values and self._values[-1] != value:
            return False
        self._values.append(value)
        return True

    def drop(self) -> None:
        self._values.pop()


class Search:
    """One search. What it picks is taken into account as it goes; `taken` is left as it is."""

    def __init__(self, claims: Sequence[Asked], pools: Sequence[Pool], taken: Taken, effort: Effort) -> None:
        """Raises Invalid for claims that ask for too much to be searched for."""
        if sum(len(claim.requests) for claim in claims) > POD_MAX:
            raise Invalid(f"the claims of a pod may have at most {POD_MAX} requests together")
        self._claims, self._pools, self._taken, self._effort = claims, pools, taken, effort
        self._rules = [[_Held(rule) for rule in claim.rules] for claim in claims]
        self._picks: list[list[Pick]] = [[] for _ in claims]
        self._used: set[DeviceId] = set()
        self._parts: dict[DeviceId, list[Mapping[str, Fraction]]] = {}
        self._by_name = {(pool.driver, pool.name): pool for pool in pools}
        self._drawn: dict[tuple[str, str], dict[Counter, Fraction]] = {}
        self._devices = [device for pool in pools if not pool.fault for device in pool.devices]
        self._free = [device for device in self._devices if device.id not in taken.devices]
        self._alls: dict[Ask, list[Device]] = {}
        self._selected: dict[tuple[tuple[str, ...], DeviceId], bool] = {}

    def run(self) -> list[list[Pick]] | None:
        """Picks for each claim; None where there is no solution on the node.

        Raises Invalid for selectors that fail, and when the effort is spent.
        """
        every = ((asked, ask) for asked in self._claims for group in asked.requests for ask in group)
        # What "all" is, is known before anything is picked; an expression that fails then ends the search.
        self._alls = {ask: self._all(asked, ask) for asked, ask in every if not ask.count}
        return self._picks if self._request(0, 0) else None

    def _request(self, claim: int, number: int) -> bool:
        if claim == len(self._claims):
            return True
        asked = self._claims[claim]
        if number == len(asked.requests):
            return self._request(claim + 1, 0)
        for ask in asked.requests[number]:
            devices = (self._devices if ask.admin else self._free) if ask.count else self._alls[ask]
            count = ask.count or len(devices)
            if not count or len(self._picks[claim]) + count > RESULTS_MAX:
                continue
            if sum(map(len, self._picks)) + count > POD_MAX:
                raise Invalid(f"the claims of a pod may have at most {POD_MAX} devices together")
            if self._pick(claim, number, ask, devices, count, 0):
                return True
        return False

    def _pick(
        self, claim: int, number: int, ask: Ask, devices: Sequence[Device], left: int, start: int
    ) -> bool:
        if not left:
            return self._request(claim, number + 1)
        for at in range(start, len(devices) - left + 1):
            self._effort.spend()
            if self._take(claim, ask, devices[at]):
                if self._pick(claim, number, ask, devices, left - 1, at + 1):
                    return True
                self._give_back(claim)
        return False

    def _all(self, asked: Asked, ask: Ask) -> list[Device]:
        """Every device that a request selects and that has what it asks of it, whoever has it."""
        unsure = next((pool for pool in self._pools if pool.fault), None)
        if unsure is not None:
            raise Invalid(
                f"claim {asked.name}, request {ask.name}: asks for all devices, but resource pool "
                f"{unsure.driver}/{unsure.name} {unsure.fault}"
            )
        found = []
        for device in self._devices:
            part = consumed(device, ask.capacity)
            held = self._taken.parts.get(device.id, _NOTHING)
            if part is not None and fits(device, part, held) and self._is_selected(ask, device):
                found.append(device)
        return found

    def _is_selected(self, ask: Ask, device: Device) -> bool:
        key = (ask.expressions, device.id)
        known = self._selected.get(key)
        if known is None:
            known = self._selected[key] = is_selected(ask, device, self._effort)
        return known

    def _take(self, claim: int, ask: Ask, device: Device) -> bool:
        if not self._is_free(claim, ask, device) or not self._is_selected(ask, device):
            return False
        part = self._part(ask, device)
        if part is None or any(_prevents(taint, ask) for taint in device.raw.get("taints") or ()):
            return False
        draws = {} if ask.admin else self._draws(device)
        if draws is None:
            return False
        bound = [rule for rule in self._rules[claim] if ask.is_called(rule.rule.requests)]
        for number, rule in enumerate(bound):
            if not rule.add(device):
                for added in bound[:number]:
                    added.drop()
                if not ask.count:
                    raise Invalid(
                        f"claim {self._claims[claim].name}, request {ask.name}: cannot add device "
                        f"{device.id} because a claim constraint would not be satisfied"
                    )
                return False
        self._draw(device, draws, 1)
        shares = device.shared and not ask.admin
        if shares:
            self._parts.setdefault(device.id, []).append(part)
        elif not ask.admin:
            self._used.add(device.id)
        self._picks[claim].append(Pick(ask, device, part if shares else None))
        return True

    def _is_free(self, claim: int, ask: Ask, device: Device) -> bool:
        """Whether nobody has the device whole; of an administrator's, whether the claim has it not yet."""
        if ask.admin:
            return all(pick.device.id != device.id for pick in self._picks[claim])
        if device.id in self._taken.parts and not device.shared:
            return False
        return device.id not in self._taken.devices and device.id not in self._used

    def _part(self, ask: Ask, device: Device) -> Mapping[str, Fraction] | None:
        """What the request takes of the device; None where there is no room for it."""
        part = consumed(device, ask.capacity)
        if part is None or ask.admin:
            return part
        held = self._taken.parts.get(device.id, _NOTHING)
        return part if fits(device, part, held, *self._parts.get(device.id, ())) else None

    def _draws(self, device: Device) -> Mapping[Counter, Fraction] | None:
        """What the device takes of its pool's counters; None where they do not have that."""
        pool = self._by_name[device.id.driver, device.id.pool]
        draws = pool.draws.get(device.id.name)
        if not draws or device.id in self._taken.parts or self._parts.get(device.id):
            return {}
        drawn = self._drawn_of(pool)
        having = pool.counters
        if any(drawn.get(each, 0) + amount > having.get(each, 0) for each, amount in draws.items()):
            return None
        return draws

    def _drawn_of(self, pool: Pool) -> dict[Counter, Fraction]:
        key = (pool.driver, pool.name)
        if key not in self._drawn:
            drawn: dict[Counter, Fraction] = {}
            for name, draws in pool.draws.items():
                held = DeviceId(*key, name)
                if held in self._taken.devices or held in self._taken.parts:
                    for each, amount in draws.items():
                        drawn[each] = drawn.get(each, Fraction(0)) + amount
            self._drawn[key] = drawn
        return self._drawn[key]

    def _draw(self, device: Device, draws: Mapping[Counter, Fraction], sign: int) -> None:
        if draws:
            drawn = self._drawn_of(self._by_name[device.id.driver, device.id.pool])
            for each, amount in draws.items():
                drawn[each] = drawn.get(each, Fraction(0)) + sign * amount

    def _give_back(self, claim: int) -> None:
        """Undoes the claim's last pick."""
        ask, device, part = self._picks[claim].pop()
        if part is not None:
            self._parts[device.id].pop()
        elif not ask.admin:
            self._used.discard(device.id)
        if not ask.admin:
            # A device that is shared draws once, for the first that has a part of it.
            self._draw(device, self._draws_of_last(device), -1)
        for rule in self._rules[claim]:
            if ask.is_called(rule.rule.requests):
                rule.drop()

    def _draws_of_last(self, device: Device) -> Mapping[Counter, Fraction]:
        if device.id in self._taken.parts or self._parts.get(device.id):
            return {}
        pool = self._by_name[device.id.driver, device.id.pool]
        return pool.draws.get(device.id.name) or {}


def is_selected(ask: Ask, device: Device, effort: Effort) -> bool:
    """Whether the request's class and selectors select the device.

    Raises Invalid for selectors that fail, and when the effort is spent.
    """
    if device.raw.get("bindingConditions"):
        return False
    for where, expression in ask.selectors:
        try:
            if not selects(expression, device, effort):
                return False
        except Invalid as error:
            said = error.message
            raise Invalid(f"{where}: {said}" if said.startswith("CEL") else said) from None
    return True


def suits(ask: Ask, device: Device, effort: Effort) -> bool:
    """Whether the request could have the device if nobody else had any of it. Raises as `is_selected`."""
    part = consumed(device, ask.capacity)
    if part is None or not fits(device, part):
        return False
    if any(_prevents(taint, ask) for taint in device.raw.get("taints") or ()):
        return False
    return is_selected(ask, device, effort)


def _prevents(taint: Raw, ask: Ask) -> bool:
    return taint.get("effect") in _PREVENTING and not any(_tolerates(each, taint) for each in ask.tolerations)


def _tolerates(toleration: Raw, taint: Raw) -> bool:
    """As `ToleratesTaint` of k8s.io/dynamic-resource-allocation/resourceclaim."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("value", "") == taint.get("value", ""))
