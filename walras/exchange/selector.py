"""Which devices a package may use: a CEL expression over DRA-style attributes, as in KEP-4381."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from walras.core.errors import Invalid
from walras.exchange.supply import ATTRIBUTE_DOMAIN, EMULATED_DRIVER, EMULATED_TYPE
from walras.kube.cel import RuleError, check_cost
from walras.market.types import Device

# How an expression gets at a device's attributes.
ATTRIBUTES: Final = f"device.attributes['{ATTRIBUTE_DOMAIN}']"

_environment: Any = None


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> Any:
    global _environment  # noqa: PLW0603  made on first use: building it costs what most starts never need
    if _environment is None:
        _environment = cel.NewEnv(variables={"device": cel.Type.DYN})
    try:
        return _environment.compile(expression)
    except Exception as error:  # the library raises plain RuntimeError and ValueError
        raise Invalid(f"selector: {error}") from None


def eligible(expression: str, devices: Sequence[Device]) -> frozenset[str] | None:
    """Ids of the devices for which the expression is true; None, meaning all, when it is empty.

    A device on which it fails, say for want of an attribute, is not eligible, as in DRA.
    Raises Invalid for an expression that does not compile, or may cost too much.
    """
    if not expression:
        return None
    program = _compiled(expression)
    chosen = set()
    for device in devices:
        facts = {
            "driver": EMULATED_DRIVER if device.attributes.get("type") == EMULATED_TYPE else ATTRIBUTE_DOMAIN,
            "attributes": {ATTRIBUTE_DOMAIN: dict(device.attributes)},
            "capacity": {ATTRIBUTE_DOMAIN: {"memory": device.memory_mib * 2**20}},
        }
        try:
            check_cost(expression, facts)
        except RuleError as error:
            raise Invalid(f"selector: {error}") from None
        try:
            matches = program.eval(data={"device": facts}).plain_value()
        except Exception:  # noqa: S112  the library raises RuntimeError for whatever goes wrong inside
            continue
        if matches is True:
            chosen.add(device.id)
    return frozenset(chosen)
