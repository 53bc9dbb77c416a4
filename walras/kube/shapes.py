"""The shape of an object: what fields it has, whatever their values.

Two objects of one shape have the same fields set, so what follows from that is worked out once. Items of a
list may be told apart by their values, and what is zero may count as not set, so both are part of the shape.
"""

from __future__ import annotations

from typing import Final

from walras.kube.record import Object, encode

BYTES_MAX: Final = 2048
_SET: Final = 1


def of(obj: Object) -> bytes:
    """Equal for objects of one shape and for no others; empty for one that is too large to remember."""
    shape = encode(_of(obj))
    return shape if len(shape) <= BYTES_MAX else b""


def _of(obj: Object) -> Object:
    shape: Object = {}
    for key, value in obj.items():
        kind = type(value)
        if kind is dict:
            shape[key] = _of(value)
        else:
            shape[key] = [value] if kind is list or not value else _SET
    return shape
