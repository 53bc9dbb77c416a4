"""What a claim asks for, ready to be searched for: requests, their alternatives, and constraints. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, NamedTuple

from walras.core.errors import Invalid
from walras.core.quantity import exact

Raw = Mapping[str, Any]
Classes = Callable[[str], Raw | None]
"""A DeviceClass by its name."""

# As resource.k8s.io has it: how many devices the allocation of one claim may list.
RESULTS_MAX: Final = 32


class Selector(NamedTuple):
    # Whose it is, for messages, such as "class gpu.nvidia.com: selector #0".
    where: str
    expression: str


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A request, or one alternative of it. `count` is 0 for every device that it selects."""

    name: str
    parent: str
    count: int
    device_class: Raw
    selectors: tuple[Selector, ...]
    admin: bool
    tolerations: tuple[Raw, ...]
    capacity: Mapping[str, Fraction]
    raw: Raw

    @property
    def expressions(self) -> tuple[str, ...]:
        return tuple(selector.expression for selector in self.selectors)

    def is_called(self, names: tuple[str, ...]) -> bool:
        """Whether one of the names is of this request; no names are of all."""
        return not names or self.parent in names or self.name in names


class Rule(NamedTuple):
    """A constraint: devices alike in the attribute, or each with another value of it."""

    attribute: str
    distinct: bool
    requests: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A claim. `requests` holds for each request its alternatives, the best first."""

    name: str
    raw: Raw
    requests: tuple[tuple[Ask, ...], ...]
    rules: tuple[Rule, ...]


def read(claim: Raw, classes: Classes) -> Asked:
    """Raises Invalid for a class that is not there, too many devices, and amounts that cannot be read."""
    metadata, spec = claim["metadata"], (claim.get("spec") or {}).get("devices") or {}
    name = f"{metadata['namespace']}/{metadata['name']}"
    requests = tuple(_alternatives(name, each, classes) for each in spec.get("requests") or ())
    rules = tuple(_rule(name, number, each) for number, each in enumerate(spec.get("constraints") or ()))
    least = sum(min((max(1, ask.count) for ask in each), default=0) for each in requests)
    if least > RESULTS_MAX:
        raise Invalid(
            f"claim {name}: number of requested devices {least} exceeds the claim limit of {RESULTS_MAX}"
        )
    return Asked(name, claim, requests, rules)


def _alternatives(claim: str, request: Raw, classes: Classes) -> tuple[Ask, ...]:
    name = request["name"]
    exact_one = request.get("exactly")
    if exact_one is not None:
        return (_ask(claim, name, name, exact_one, classes),)
    return tuple(
        _ask(claim, f"{name}/{each['name']}", name, each, classes)
        for each in request.get("firstAvailable") or ()
    )


def _ask(claim: str, name: str, parent: str, raw: Raw, classes: Classes) -> Ask:
    class_name = str(raw.get("deviceClassName") or "")
    device_class = classes(class_name)
    if device_class is None:
        raise Invalid(f"request {name}: device class {class_name} does not exist")
    try:
        capacity = {
            key: exact(str(value))
            for key, value in ((raw.get("capacity") or {}).get("requests") or {}).items()
        }
    except Invalid as error:
        raise Invalid(f"claim {claim}, request {name}: {error.message}") from None
    if any(amount < 0 for amount in capacity.values()):
        raise Invalid(f"claim {claim}, request {name}: a capacity must not be negative")
    selectors = [
        *_selectors(f"class {class_name}", device_class.get("spec") or {}),
        *_selectors(f"claim {claim}", raw),
    ]
    everything = raw.get("allocationMode") == "All"
    return Ask(
        name=name,
        parent=parent,
        count=0 if everything else int(raw.get("count") or 1),
        device_class=device_class,
        selectors=tuple(selectors),
        admin=bool(raw.get("adminAccess")),
        tolerations=tuple(raw.get("tolerations") or ()),
        capacity=capacity,
        raw=raw,
    )


def _selectors(whose: str, spec: Raw) -> list[Selector]:
    return [
        Selector(f"{whose}: selector #{number}", str((each.get("cel") or {}).get("expression", "")))
        for number, each in enumerate(spec.get("selectors") or ())
    ]


def _rule(claim: str, number: int, raw: Raw) -> Rule:
    requests = tuple(raw.get("requests") or ())
    for field, distinct in (("matchAttribute", False), ("distinctAttribute", True)):
        if raw.get(field):
            return Rule(str(raw[field]), distinct, requests)
    raise Invalid(f"claim {claim}, constraint #{number}: empty constraint (unsupported constraint type?)")
