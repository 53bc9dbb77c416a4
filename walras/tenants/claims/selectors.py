"""Selectors of devices: CEL over one `device`, as k8s.io/dynamic-resource-allocation/cel has it.

What an expression says of a device is remembered, for all clusters alike: it depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from walras.core.errors import Invalid
from walras.core.quantity import exact
from walras.kube import cel
from walras.kube.cel.opaque import Quantity, parse_semver
from walras.tenants.claims.effort import COST_PER_STEP, Effort
from walras.tenants.claims.pools import Device

LENGTH_MAX: Final = 10 * 1024
# Upstream allows a million, which would hold up everybody for a second here; selectors cost some dozens.
COST_MAX: Final = 50_000
_REMEMBERED_MAX: Final = 50_000
_SAID_MAX: Final = 512


class _Answer(NamedTuple):
    selects: bool
    # Why it says nothing of the device; "" where it does.
    fault: str
    cost: int


_answers: dict[bytes, _Answer] = {}


class _Domains(dict[str, Any]):
    """A domain that nothing is known of is empty, as upstream has it."""

    def get(self, key: str, default: Any = None) -> Any:
        del default
        return super().get(key, {})

    def __missing__(self, key: str) -> Any:
        return {}


def selects(expression: str, device: Device, effort: Effort) -> bool:
    """Whether the expression is true of the device.

    Raises Invalid where it is none, fails, or takes more than `effort` has left.
    """
    if len(expression) > LENGTH_MAX:
        raise Invalid(f"CEL expression is longer than {LENGTH_MAX} characters")
    effort.spend()
    key = _key(expression, device)
    answer = _answers.get(key)
    if answer is None:
        effort.compile(expression)
        answer = _ask(expression, device)
        if len(_answers) >= _REMEMBERED_MAX:
            _answers.clear()
        _answers[key] = answer
        effort.spend(answer.cost // COST_PER_STEP)
    if answer.fault:
        raise Invalid(answer.fault)
    return answer.selects


def _key(expression: str, device: Device) -> bytes:
    raw = device.raw
    facts = [raw.get("attributes"), raw.get("capacity"), device.shared, device.id.driver, expression]
    return blake2b(msgspec.json.encode(facts), digest_size=16).digest()


def _ask(expression: str, device: Device) -> _Answer:
    try:
        program = cel.compile_dynamic(expression, ("device",), binds=True).program
        facts = _facts(device)
    except cel.SourceError as error:
        return _Answer(False, _short(f"CEL compile error: compilation failed: {error}"), 0)
    except (cel.CelError, Invalid) as error:
        return _Answer(False, _short(f"CEL runtime error: {error}"), 0)
    try:
        result, cost = program.run({"device": facts}, COST_MAX)
    except cel.CelError as error:
        return _Answer(False, _short(f"CEL runtime error: {error}"), getattr(error, "cost", 0))
    if not isinstance(result, bool):
        return _Answer(False, "CEL runtime error: the expression yields no bool", cost)
    return _Answer(result, "", cost)


def _short(text: str) -> str:
    return text if len(text) <= _SAID_MAX else f"{text[:_SAID_MAX]}..."


def _facts(device: Device) -> dict[str, Any]:
    """The `device` of expressions. Raises CelError, Invalid for values that are none."""
    driver = device.id.driver
    attributes, capacity = _Domains(), _Domains()
    for name, value in (device.raw.get("attributes") or {}).items():
        domain, known = _split(name, driver)
        attributes.setdefault(domain, {})[known] = _value(value)
    for name, value in (device.raw.get("capacity") or {}).items():
        domain, known = _split(name, driver)
        capacity.setdefault(domain, {})[known] = Quantity(exact(str(value.get("value", "0"))))
    return {
        "driver": driver,
        "allowMultipleAllocations": device.shared,
        "attributes": attributes,
        "capacity": capacity,
    }


def _split(name: str, driver: str) -> tuple[str, str]:
    domain, slash, known = name.partition("/")
    return (domain, known) if slash else (driver, name)


def _value(value: Mapping[str, Any]) -> Any:
    for kind, held in value.items():
        if kind == "version":
            return parse_semver(held)
        if kind == "versions":
            return [parse_semver(each) for each in held]
        return held
    raise cel.CelError("unsupported attribute value")
