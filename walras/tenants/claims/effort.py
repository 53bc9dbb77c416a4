"""How much may be spent on finding devices for one pod: steps, so that the answer is the same everywhere."""

from __future__ import annotations

from typing import Final

from walras.core.errors import Invalid

STEPS_MAX: Final = 20_000
# So much of CEL's cost counts as one step.
COST_PER_STEP: Final = 100


class Effort:
    """A step is a device that is tried, an expression that is asked about one, or part of what that cost."""

    def __init__(self, steps: int = STEPS_MAX) -> None:
        self._steps = steps
        self.spent = 0

    def spend(self, steps: int = 1) -> None:
        """Raises Invalid once there are none left."""
        self.spent += steps
        if self.spent > self._steps:
            raise Invalid(
                f"the search for devices was given up after {self._steps} steps: claim fewer devices, with "
                "fewer alternatives and constraints or simpler selectors"
            )
