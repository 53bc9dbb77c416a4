"""Every strategy by the name that an agent's policy uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from walras.market.strategies.deadline import Deadline
from walras.market.strategies.fixed import Fixed
from walras.market.strategies.pacing import Pacing
from walras.market.strategies.slo import Slo
from walras.market.strategies.strategy import Strategy

PACING: Final = Pacing()
STRATEGIES: Final[Mapping[str, Strategy]] = {
    "fixed": Fixed(),
    "pacing": PACING,
    "deadline": Deadline(),
    "slo": Slo(),
}
