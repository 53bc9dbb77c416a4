"""Selectors of devices: whether an expression is CEL over a `device`, and what it may cost.

Follows k8s.io/dynamic-resource-allocation/cel. What is compiled of one object is bounded: that takes time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from walras.kube import cel
from walras.kube.cel.types import BOOL, DYN, Field, Type, map_of, read
from walras.kube.validation.faults import Faults

LENGTH_MAX: Final = 10 * 1024
COST_MAX: Final = 1_000_000
# All expressions of one object; upstream compiles any number of them.
COMPILED_CHARACTERS_MAX: Final = 32 * 1024
_REMEMBERED_MAX: Final = 1024
_ENTRIES_MAX: Final = 32
_DOMAIN_MAX: Final = 63
_ID_MAX: Final = 32
_VALUE_MAX: Final = 64


def _text(size_max: int) -> Type:
    return Type("string", size_max=size_max)


def _by_domain(value: Type) -> Type:
    inner = map_of(_text(_ID_MAX), value, _ENTRIES_MAX)
    return map_of(_text(_DOMAIN_MAX), inner, _ENTRIES_MAX)


# Any of the types that attributes have.
_ATTRIBUTE: Final = Type("dyn", size_max=_VALUE_MAX)
_DEVICE: Final = Type("kubernetes.DRADevice", fields={
    "driver": Field(_text(_DOMAIN_MAX), "driver"),
    "allowMultipleAllocations": Field(BOOL, "allowMultipleAllocations"),
    "attributes": Field(_by_domain(_ATTRIBUTE), "attributes"),
    "capacity": Field(_by_domain(read("kubernetes.Quantity")), "capacity"),
})  # fmt: skip


class _Compiled(NamedTuple):
    # What is wrong with it; "" where nothing is.
    fault: str
    cost: int


class Selectors:
    """The selectors of one object, as they come."""

    def __init__(self) -> None:
        self._left = COMPILED_CHARACTERS_MAX

    def check(self, faults: Faults, path: str, expression: str) -> None:
        """Faults of one expression that is there."""
        if len(expression) > LENGTH_MAX:
            faults.too_long(path, LENGTH_MAX)
            return
        self._left -= len(expression)
        if self._left < 0:
            detail = (
                f"the expressions of one object must not have more than {COMPILED_CHARACTERS_MAX} characters"
            )
            faults.forbidden(path, detail)
            return
        found = _compiled(expression)
        if found.fault:
            faults.invalid(path, expression, found.fault)
        elif found.cost > COST_MAX:
            faults.forbidden(path, "too complex, exceeds cost limit")


@lru_cache(maxsize=_REMEMBERED_MAX)
def _compiled(expression: str) -> _Compiled:
    try:
        found = cel.compile_typed(expression, {"device": _DEVICE}, binds=True)
    except cel.SourceError as error:
        return _Compiled(f"compilation failed: {error}", 0)
    if found.type not in (BOOL, DYN):
        shown = str(found.type).replace("dyn", "google.protobuf.Any")
        return _Compiled(f"must evaluate to bool or the unknown type, not {shown}", 0)
    return _Compiled("", found.cost_max())
