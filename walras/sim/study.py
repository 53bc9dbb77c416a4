"""What every kind of simulation offers to the command line and to reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Progress = Callable[[float], None]  # called with how much is done, from 0 to 1


@dataclass(frozen=True, slots=True)
class Series:
    """Columns of equal length, for a plot and its CSV: the first is the x axis."""

    title: str
    columns: Mapping[str, Sequence[float]]
    x_unit: str = ""
    y_unit: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What one policy did on one trace.

    metrics: of `allocation_pct, unserved, evictions, jct_mean_s, rho_worst, unfair_pct, makespan_s,
    wait_p99_s, utilisation` those that apply, and more of a study's own. series: by a short name, the same
    for all policies of a study, so that they can be drawn over each other.
    """

    metrics: Mapping[str, float]
    series: Mapping[str, Series] = field(default_factory=dict)


class Study(Protocol):
    """One trace, ready to be run under any of its policies. The same seed gives the same result."""

    @property
    def notes(self) -> Sequence[str]:
        """What to know of the trace beside its results, such as what of it is not played."""

    @property
    def policies(self) -> Sequence[str]:
        """The names that `run` takes, the default ones first."""

    def run(self, policy: str, *, seed: int, load: float, progress: Progress) -> Result:
        """Play the trace once. Raises NotFound for a policy that it does not have.

        load: of what the trace or the cluster holds, 1.0 for all of it; what that means each study says.
        """
