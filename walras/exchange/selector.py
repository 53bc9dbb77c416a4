"""Which devices a package may use: a CEL expression over DRA-style attributes, as in KEP-4381."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from walras.core.errors import Invalid
from walras.exchange.supply import ATTRIBUTE_DOMAIN, EMULATED_DRIVER, EMULATED_TYPE
from walras.kube import cel
from walras.market.types import Device

# How an expression gets at a device's attributes.
ATTRIBUTES: Final = f"device.attributes['{ATTRIBUTE_DOMAIN}']"


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> cel.Expression:
    try:
        return cel.compile_dynamic(expression, ("device",))
    except cel.SourceError as error:
        raise Invalid(f"selector: {error}") from None


def eligible(expression: str, devices: Sequence[Device]) -> frozenset[str] | None:
    """Ids of the devices for which the expression is true; None, meaning all, when it is empty.

    A device on which it fails, say for want of an attribute, is not eligible, as in DRA.
    Raises Invalid for an expression that does not compile, or may cost too much.
    """
    if not expression:
        return None
    program = _compiled(expression).program
    chosen = set()
    for device in devices:
        facts = {
            "driver": EMULATED_DRIVER if device.attributes.get("type") == EMULATED_TYPE else ATTRIBUTE_DOMAIN,
            "attributes": {ATTRIBUTE_DOMAIN: dict(device.attributes)},
            "capacity": {ATTRIBUTE_DOMAIN: {"memory": device.memory_mib * 2**20}},
        }
        try:
            matches, _ = program.run({"device": facts})
        except cel.CostExceeded as error:
            raise Invalid(f"selector: {error}") from None
        except cel.CelError:
            continue
        if matches is True:
            chosen.add(device.id)
    return frozenset(chosen)
