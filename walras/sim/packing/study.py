"""The openb trace as a study: of so much of a cluster's GPUs that is asked for, how much is served?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from walras.core.errors import Invalid, NotFound
from walras.sim.study import Progress, Result, Series
from walras.sim.traces.openb import Node, Pod, read_nodes, read_pods

if TYPE_CHECKING:
    from walras.sim.packing.clearings import Outcome

POLICIES: Final = (
    "walras",
    "walras-leased",
    "fgd",
    "best-fit",
    "packing",
    "clustering",
    "dot-product",
    "random",
    "anew-by-size",
    "anew-by-effective-size",
)
LOAD_MAX: Final = 100.0


class PackingStudy:
    """Pods of a trace, in random order and some of them more than once, arrive at an empty cluster and stay.

    The published experiment of Weng et al. (USENIX ATC 2023) is a load of 1.3.
    """

    def __init__(self, nodes: Sequence[Node], pods: Sequence[Pod]) -> None:
        """Raises Invalid when there are no GPUs or nobody asks for one."""
        from walras.sim.packing.cluster import columns  # noqa: PLC0415 - loads numba, as all below do
        from walras.sim.packing.demand import rates, typical  # noqa: PLC0415

        self.notes: Sequence[str] = ()
        if not any(pod.gpus for pod in pods):
            raise Invalid("no pod asks for a GPU; give a list of pods of which some do")
        self._cluster, self._shapes, self._of_pod = columns(nodes, pods)
        self._typical = typical(self._of_pod, self._shapes)
        self._rates = rates(self._of_pod, self._shapes)

    @property
    def policies(self) -> Sequence[str]:
        """Ours, online and with leases; the six of the paper; and clearings that place everybody anew."""
        return POLICIES

    def run(self, policy: str, *, seed: int, load: float, progress: Progress) -> Result:
        """Play the trace once. load: what arrives, of the milli-GPU that the cluster has.

        metrics: allocation_pct of the cluster's milli-GPU, pods unserved, leases ended by clearings
        (evictions), milli-GPU of leases moved by them (migrated_milli). series: allocation, by arrived load.
        Raises NotFound for a policy that there is not, Invalid for a load that is not above 0.
        """
        from walras.sim.packing.clearings import run  # noqa: PLC0415
        from walras.sim.packing.cluster import capacity_milli  # noqa: PLC0415
        from walras.sim.packing.demand import arrivals  # noqa: PLC0415

        if policy not in POLICIES:
            raise NotFound(f'no policy "{policy[:64]}"; there are {", ".join(POLICIES)}')
        if not 0 < load <= LOAD_MAX:
            raise Invalid(
                f"a load of {load} cannot be; give one above 0 and up to {LOAD_MAX:g}, 1.3 for 130%"
            )
        chance = np.random.default_rng(seed)
        capacity = capacity_milli(self._cluster)
        order = arrivals(self._of_pod, self._shapes, round(load * capacity), chance)
        rank, draws = chance.permutation(self._cluster.gpus.size), chance.random((order.size, 2))
        outcome = run(
            policy,
            self._of_pod[order],
            self._cluster._replace(rank=rank),
            self._shapes,
            self._typical,
            self._rates,
            draws,
            progress,
        )
        return _result(outcome, capacity)


def _result(outcome: Outcome, capacity: int) -> Result:
    arrived = np.append(0, outcome.arrived) * 100 / capacity
    served = np.append(0, outcome.served) * 100 / capacity
    points = np.searchsorted(arrived, np.arange(0, int(arrived[-1]) + 1), "right") - 1
    points = np.unique(np.append(points, arrived.size - 1))
    series = Series(
        "GPU allocation by arrived load",
        {"arrived": arrived[points].tolist(), "allocated": served[points].tolist()},
        "% of the cluster's GPUs",
        "% of the cluster's GPUs",
    )
    metrics = {
        "allocation_pct": float(served[-1]),
        "unserved": float(np.count_nonzero(outcome.pods.node < 0)),
        "evictions": float(outcome.evictions),
        "migrated_milli": float(outcome.migrated_milli),
    }
    return Result(metrics, {"allocation": series})


def openb_study(nodes_file: Path, pods_file: Path) -> PackingStudy:
    """The study of these files of the openb trace.

    Raises NotFound for a file that is not there, Invalid for one that is not such a file.
    """
    return PackingStudy(list(read_nodes(nodes_file)), list(read_pods(pods_file)))
