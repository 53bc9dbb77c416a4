"""What the simulator's functions share: how they become C functions, handles, return codes."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_char_p, c_uint, c_ulonglong, c_void_p, memmove
from typing import Any, Final

import pynvml

from walras.runtimes.gpus.simulated_cards import SimulatedCard, SimulatedInstance, State

CARD, MIG, GI, CI, SET = 0x10000, 0x20000, 0x30000, 0x40000, 0x50000
NONE: Final = 0xFFFFFFFF
# By the name that the library exports: the function and the C types of its arguments.
FUNCTIONS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {}
# Pointers, unsigned integers of 32 and 64 bits, strings.
P, U, L, S = c_void_p, c_uint, c_ulonglong, c_char_p


class Refused(Exception):
    """A function's return code that is not success."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def c(name: str, *types: Any) -> Callable[[Any], Any]:
    def keep(function: Any) -> Any:
        FUNCTIONS[name] = (function, types)
        return function

    return keep


# Handles are numbers that say what they are of.


def at_(handle: int) -> int:
    return (handle & 0xFF00) >> 8


def card_of(state: State, handle: int) -> SimulatedCard:
    if not 0 <= at_(handle) < len(state.cards) or handle < CARD:
        raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    card = state.cards[at_(handle)]
    if card.lost:
        raise Refused(pynvml.NVML_ERROR_GPU_IS_LOST)
    return card


def instance_of(state: State, handle: int) -> tuple[SimulatedCard, SimulatedInstance]:
    card = card_of(state, handle)
    for each in card.instances:
        if each.id == handle & 0xFF:
            return card, each
    raise Refused(pynvml.NVML_ERROR_NOT_FOUND)


def put(address: int, type_: Any, value: int) -> None:
    type_.from_address(address).value = value


def put_text(address: int, size: int, text: str) -> None:
    data = text.encode() + b"\0"
    if len(data) > size:
        raise Refused(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    memmove(address, data, len(data))
