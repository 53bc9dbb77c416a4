"""The openb study beside the most that any packing could have: `scripts/bench packing --data DIR`."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import highspy
import numpy as np

from walras.market.engine.jit import Ints
from walras.sim.packing.cluster import Cluster, Shapes, capacity_milli, columns
from walras.sim.packing.demand import arrivals
from walras.sim.packing.rooms import DEVICE, suits
from walras.sim.packing.study import PackingStudy
from walras.sim.packing.table import FIRST_SEED, LOAD, WORKLOADS, read_published
from walras.sim.traces.openb import read_nodes, read_pods

POLICIES: Final = ("fgd", "walras", "walras-leased")
ROUNDS: Final = 400  # of new patterns, at most


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that are alike: how many there are, with so much CPU and so many devices of a model."""

    cpu: int
    gpus: int
    model: int
    nodes: int


class Limit:
    """The most milli-GPU that pods with these requests can have, by a linear program over filled devices.

    Column generation (Gilmore and Gomory, 1961): a column fills a device of a group with pods. Relaxed, so
    that no packing has more: memory is plenty, the nodes of a group share their CPU, and pods without GPUs,
    and parts of pods, can be left out.
    """

    def __init__(self, cluster: Cluster, shapes: Shapes, wanted: Counter[int]) -> None:
        self.shapes = shapes
        alike = Counter(zip(cluster.cpu.tolist(), cluster.gpus.tolist(), cluster.model.tolist(), strict=True))
        self.groups = [Group(*key, nodes) for key, nodes in alike.items() if key[1]]
        self.single = [shape for shape in wanted if shapes.gpus[shape] == 1]
        several = [shape for shape in wanted if shapes.gpus[shape] > 1]
        self.row = {shape: at for at, shape in enumerate([*self.single, *several])}
        self.unit = int(np.gcd.reduce([*shapes.milli[self.single], DEVICE]))
        self.program = highspy.Highs()  # type: ignore[no-untyped-call]
        self.program.setOptionValue("output_flag", False)
        self.program.setOptionValue("threads", 1)
        devices = [group.nodes * group.gpus for group in self.groups]
        cpu = [group.nodes * group.cpu / DEVICE for group in self.groups]
        for most in [*(wanted[shape] for shape in self.row), *devices, *cpu]:
            self.program.addRow(-highspy.kHighsInf, float(most), 0, [], [])
        for at, group in enumerate(self.groups):
            for shape in several:
                if shapes.gpus[shape] <= group.gpus and suits(shapes.models[shape], group.model):
                    self.add(at, Counter({shape: 1}), int(shapes.gpus[shape]))

    def add(self, group: int, pods: Counter[int], devices: int) -> None:
        """A column: these pods on so many devices of a group."""
        shapes, first = self.shapes, len(self.row)
        milli = sum(int(shapes.milli[shape] * shapes.gpus[shape]) * count for shape, count in pods.items())
        cpu = sum(int(shapes.cpu[shape]) * count for shape, count in pods.items()) / DEVICE
        rows = [*(self.row[shape] for shape in pods), first + group, first + len(self.groups) + group]
        values = [*(float(count) for count in pods.values()), float(devices), cpu]
        self.program.addCol(-float(milli), 0, highspy.kHighsInf, len(rows), rows, values)

    def milli(self) -> float:
        """The program's optimum, or what it is at most after so many rounds."""
        bound = float("inf")
        for _ in range(ROUNDS):
            self.program.run()
            price = -np.array(self.program.getSolution().row_dual)
            value, missed = -self.program.getInfo().objective_function_value, 0.0
            for at, group in enumerate(self.groups):
                worth, pods = self.best_fill(group, price, price[len(self.row) + len(self.groups) + at])
                gain = worth - price[len(self.row) + at]
                if gain > 1e-6:
                    missed += gain * group.nodes * group.gpus
                    self.add(at, pods, 1)
            bound = min(bound, value + missed)
            if missed < 1e-4 * value:
                break
        return bound

    def best_fill(self, group: Group, price: np.ndarray, cpu_price: float) -> tuple[float, Counter[int]]:
        """The pods that are worth most on one device at these prices: a knapsack without a limit on each."""
        able = [shape for shape in self.single if suits(self.shapes.models[shape], group.model)]
        size = self.shapes.milli[able] // self.unit
        cost = price[[self.row[shape] for shape in able]] + cpu_price * self.shapes.cpu[able] / DEVICE
        gain = self.shapes.milli[able] - cost
        room = DEVICE // self.unit
        worth, last = np.zeros(room + 1), np.full(room + 1, -1)
        for full in range(1, room + 1):
            worth[full] = worth[full - 1]
            fitting = np.flatnonzero((size <= full) & (gain > 1e-9))
            if fitting.size:
                total = worth[full - size[fitting]] + gain[fitting]
                if total.max() > worth[full] + 1e-9:
                    worth[full], last[full] = total.max(), fitting[total.argmax()]
        pods = Counter[int]()
        while room > 0:
            if last[room] >= 0:
                pods[able[last[room]]] += 1
            room -= int(size[last[room]]) if last[room] >= 0 else 1
        return float(worth[-1]), pods


def figures(data: Path, workload: str, seed: int) -> dict[str, float]:
    """Of one workload: allocation of the published FGD, of ours, and of the limit, in % of the cluster."""
    nodes = list(read_nodes(data / "openb" / "openb_node_list_gpu_node.csv"))
    pods = list(read_pods(data / "openb" / f"openb_pod_list_{workload}.csv"))
    study, found = PackingStudy(nodes, pods), {}
    for policy in POLICIES:
        study.run(policy, seed=seed, load=0.1, progress=lambda _: None)  # compiles
        started = time.perf_counter()
        run = study.run(policy, seed=seed, load=LOAD, progress=lambda _: None)
        name = policy.replace("-", "_")
        found[f"{name}_ms"] = (time.perf_counter() - started) * 1000
        found[f"{name}_pct"] = run.metrics["allocation_pct"]
    cluster, shapes, of_pod = columns(nodes, pods)
    capacity = capacity_milli(cluster)
    order: Ints = arrivals(of_pod, shapes, round(LOAD * capacity), np.random.default_rng(seed))
    found["limit_pct"] = Limit(cluster, shapes, Counter(of_pod[order].tolist())).milli() * 100 / capacity
    published = read_published(data / "fgd" / "published_allocation_at_130pct.csv")
    if (workload, "fgd") in published:
        found["fgd_published_pct"] = published[workload, "fgd"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with openb/ and, if there is one, fgd/"
    )
    parser.add_argument("--workload", action="append", help=f"of {', '.join(WORKLOADS)}; all of them")
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    asked = parser.parse_args()
    workloads = asked.workload or WORKLOADS
    found = {workload: figures(asked.data, workload, asked.seed) for workload in workloads}
    print(json.dumps({w: {name: round(each, 2) for name, each in f.items()} for w, f in found.items()}))


if __name__ == "__main__":
    main()
