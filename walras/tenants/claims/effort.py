"""How much may be spent on finding devices for one pod: steps, each of some microseconds."""

from __future__ import annotations

from typing import Final

from walras.core.errors import Invalid

STEPS_MAX: Final = 20_000
# What takes as long as a step: so much of CEL's cost, and so many characters of an expression to compile.
COST_PER_STEP: Final = 5
TEXT_PER_STEP: Final = 4


class Effort:
    """A step is a device that is tried, an expression that is asked about one, or part of what that cost.

    What is known already costs no more than to ask.
    """

    def __init__(self, steps: int = STEPS_MAX) -> None:
        self._steps = steps
        self._read: set[str] = set()
        self.spent = 0

    def compile(self, expression: str) -> None:
        """Counts what an expression takes to be compiled, once. Raises as `spend`."""
        if expression not in self._read:
            self._read.add(expression)
            self.spend(len(expression) // TEXT_PER_STEP)

    def spend(self, steps: int = 1) -> None:
        """Raises Invalid once there are none left."""
        self.spent += steps
        if self.spent > self._steps:
            raise Invalid(
                f"the search for devices was given up after {self._steps} steps: claim fewer devices, with "
                "fewer alternatives and constraints or simpler selectors"
            )
