"""The openb study: what policies choose on clusters small enough to work out by hand, and the real trace."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.traces import trace_file

from walras.cli.compare import compare
from walras.core.errors import Invalid, NotFound
from walras.market.engine.jit import kernel
from walras.sim.packing.clearings import LEASED, ONLINE, Outcome, run
from walras.sim.packing.cluster import columns
from walras.sim.packing.demand import arrivals, rates, typical
from walras.sim.packing.online import no_places, open_scene, play
from walras.sim.packing.ordering import Filled, by_effective_size, by_size, fillings
from walras.sim.packing.rooms import move
from walras.sim.packing.study import POLICIES, PackingStudy, openb_study
from walras.sim.packing.table import PUBLISHED, read_published, rows
from walras.sim.study import Study
from walras.sim.traces.openb import Node, Pod

Placed = tuple[Pod, int, int]  # a pod, its node, bits of its devices there


def node(gpus: int, *, cpu: int = 96, model: str = "T4") -> Node:
    return Node("node", cpu * 1000, 500_000, gpus, model if gpus else "")


def pod(milli: int, *, gpus: int = 1, cpu: float = 1, models: tuple[str, ...] = ()) -> Pod:
    return Pod("pod", int(cpu * 1000), 1000, gpus, milli if gpus else 0, models)


def choice(
    policy: str,
    nodes: Sequence[Node],
    placed: Sequence[Placed],
    new: Pod,
    *,
    demand: Sequence[Pod] = (),
    draws: tuple[float, float] = (0, 0),
) -> tuple[int, int]:
    """Where a policy puts a pod on nodes with others there: the node and bits of its devices, or -1 and 0."""
    pods = [*(each for each, _, _ in placed), new, *demand]
    cluster, shapes, of_pod = columns(nodes, pods)
    wanted = of_pod[-len(demand) :] if demand else of_pod
    scene, scores = open_scene(cluster, shapes, typical(wanted, shapes), rates(wanted, shapes))
    for at, (_, where, devices) in enumerate(placed):
        move(where, devices, of_pod[at], 1, scene.board, shapes)
    pods_now = no_places(of_pod[len(placed) : len(placed) + 1])
    play(ONLINE[policy], 0, 1, pods_now, np.array([draws]), scene, scores, np.zeros(1, np.int64))
    return int(pods_now.node[0]), int(pods_now.devices[0])


def outcome(policy: str, nodes: Sequence[Node], pods: Sequence[Pod]) -> Outcome:
    """The pods in this order under a policy; of equal nodes the first comes first."""
    cluster, shapes, of_pod = columns(nodes, pods)
    demand, pace = typical(of_pod, shapes), rates(of_pod, shapes)
    draws = np.random.default_rng(1).random((of_pod.size, 2))
    return run(policy, of_pod, cluster, shapes, demand, pace, draws, lambda _: None)


def test_best_fit_leaves_the_least_cpu_and_gpu() -> None:
    # Left are 24 of 128 CPUs and 1 of 8 GPUs, 84 points; or 8 and 3, 78 points; or 8 and 1, 90 points.
    roomy, wide, tight = node(2, cpu=32), node(4, cpu=16), node(2, cpu=16)
    assert choice("best-fit", [roomy, wide], [], pod(1000, cpu=8)) == (0, 0b1)
    assert choice("best-fit", [roomy, wide, tight], [], pod(1000, cpu=8)) == (2, 0b1)
    assert choice("best-fit", [roomy, wide], [(pod(1000, gpus=2, cpu=0), 1, 0b101)], pod(1000, cpu=8)) == (
        1,
        0b10,
    )


def test_the_dot_product_is_least_where_least_is_left_of_what_is_asked() -> None:
    # (32 x 8) / 128^2 + (2 x 1) / 8^2 is 0.047, 97 points; 0.070 with 16 CPUs and 4 GPUs, 96 points.
    assert choice("dot-product", [node(4, cpu=16), node(2, cpu=32)], [], pod(1000, cpu=8)) == (1, 0b1)
    # Without GPUs only the CPU counts: 0.0078 x 8 and 0.0625 x 8 of 128 are 99 and 97 points.
    assert choice("dot-product", [node(2, cpu=128), node(8, cpu=16)], [], pod(0, gpus=0, cpu=8)) == (1, 0)


def test_clustering_keeps_pods_beside_their_like() -> None:
    nodes = [node(4), node(4), node(4)]
    placed = [(pod(300), 1, 0b1), (pod(1000, gpus=2), 2, 0b11)]
    assert choice("clustering", nodes, placed, pod(500)) == (1, 0b1)
    assert choice("clustering", nodes, placed, pod(1000, gpus=2)) == (2, 0b1100)
    assert choice("clustering", nodes, placed, pod(1000)) == (0, 0b1)  # an idle node before unlike ones
    mixed = [*placed, (pod(300), 2, 0b100), (pod(500), 0, 0b1)]
    assert choice("clustering", nodes, mixed, pod(200)) == (0, 0b1)  # purely alike before partly alike


def test_packing_takes_used_devices_then_used_nodes_then_free_ones() -> None:
    nodes = [node(8), node(2), node(2)]
    placed = [(pod(600), 1, 0b1), (pod(200), 2, 0b10)]
    assert choice("packing", nodes, placed, pod(300)) == (1, 0b1)  # 400 left are 96 points, 800 are 92
    assert choice("packing", nodes, placed, pod(500)) == (2, 0b10)
    assert choice("packing", nodes, placed, pod(1000)) == (1, 0b10)
    assert choice("packing", nodes, placed, pod(1000, gpus=2)) == (0, 0b11)
    assert choice("packing", [node(8), node(2)], [], pod(1000)) == (1, 0b1)  # 31 points, where 8 GPUs have 25


def test_fgd_puts_a_share_where_the_least_becomes_useless() -> None:
    # Three of four want half a device, one a whole. A half on a whole device costs the whole: 1000 + 500 lost
    # to it; a half on the other half frees 500 of being lost.
    demand = [pod(500), pod(500), pod(500), pod(1000)]
    nodes = [node(1), node(2)]
    assert choice("fgd", nodes, [(pod(500), 1, 0b10)], pod(500), demand=demand) == (1, 0b10)


def test_fgd_minds_the_cpu_that_the_typical_pods_need() -> None:
    # After it the first node has 5 CPUs and a free device, of no use to anybody; the second has 10.
    demand = [pod(1000, cpu=10)]
    assert choice("fgd", [node(2, cpu=15), node(2, cpu=20)], [], pod(1000, cpu=10), demand=demand) == (1, 0b1)


def test_fgd_tells_growth_apart_in_points_and_ours_to_the_milli() -> None:
    # After a pod with 2 CPUs 7 in 100 can no longer use what is free: 400 on the first node, 200 on the
    # second. 28 and 14 on average are both 49 points of FGD.
    demand = [*[pod(200, cpu=1)] * 93, *[pod(200, cpu=11)] * 7]
    nodes, new = [node(1, cpu=12), node(1, cpu=12)], pod(0, gpus=0, cpu=2)
    placed = [(pod(600, cpu=0), 0, 0b1), (pod(800, cpu=0), 1, 0b1)]
    assert choice("fgd", nodes, placed, new, demand=demand) == (0, 0)
    assert choice("walras", nodes, placed, new, demand=demand) == (1, 0)


def test_ours_sees_that_the_cpu_will_be_gone_before_the_devices_are() -> None:
    # A device comes with 12 CPUs on average. A pod with 16 leaves 32 for 3 devices on the first node, which
    # is too little by a third of one, and enough on the second; FGD sees that both have room for the next.
    nodes, demand = [node(4, cpu=48), node(4, cpu=96)], [pod(1000, cpu=12)]
    assert choice("fgd", nodes, [], pod(1000, cpu=16), demand=demand) == (0, 0b1)
    assert choice("walras", nodes, [], pod(1000, cpu=16), demand=demand) == (1, 0b1)
    # A pod with 2 is best where CPU is short anyway.
    short = [node(4, cpu=48), node(4, cpu=36)]
    assert choice("fgd", short, [], pod(1000, cpu=2), demand=demand) == (0, 0b1)
    assert choice("walras", short, [], pod(1000, cpu=2), demand=demand) == (1, 0b1)


def test_random_takes_any_node_and_any_device_with_room() -> None:
    nodes, placed = [node(1), node(2), node(2)], [(pod(900), 0, 0b1), (pod(800), 2, 0b1)]
    found = {choice("random", nodes, placed, pod(500), draws=(x, y)) for x in (0.1, 0.9) for y in (0.1, 0.9)}
    assert found == {(1, 0b1), (1, 0b10), (2, 0b10)}
    assert choice("random", nodes, placed, pod(1000, gpus=2), draws=(0.9, 0.9)) == (1, 0b11)


@pytest.mark.parametrize("policy", ONLINE)
def test_no_policy_passes_over_models_cpu_memory_or_devices(policy: str) -> None:
    nodes = [node(0), node(1), node(2, model="A10"), node(2, cpu=2), node(2)]
    assert choice(policy, nodes, [], pod(1000, gpus=2, cpu=8, models=("T4", "V100"))) == (4, 0b11)
    assert choice(policy, nodes, [], pod(1000, models=("A10",))) == (2, 0b1)
    assert choice(policy, nodes, [], pod(1000, gpus=3)) == (-1, 0)
    assert choice(policy, nodes, [], pod(1000, models=("V100",))) == (-1, 0)
    assert choice(policy, nodes, [], Pod("large", 0, 600_000, 0, 0)) == (-1, 0)
    assert choice(policy, nodes[1:2], [(pod(810), 0, 0b1)], pod(200)) == (-1, 0)


def test_a_lease_gives_way_to_who_is_worth_more_than_110_percent_of_it() -> None:
    came = outcome("walras-leased", [node(1)], [pod(810), pod(1000)])
    assert came.pods.node.tolist() == [-1, 0]
    assert (came.evictions, came.migrated_milli, came.served[-1]) == (1, 0, 1000)
    kept = outcome("walras-leased", [node(1)], [pod(470), pod(470), pod(1000)])
    assert kept.pods.node.tolist() == [0, 0, -1]
    assert (kept.evictions, kept.served[-1]) == (0, 940)


def test_who_gives_way_moves_where_there_is_room() -> None:
    # The first is placed so that the A10 stays free for the last two, for which no node has the memory.
    nodes, never = [node(1), node(1, model="A10")], Pod("never", 1000, 600_000, 1, 1000, ("A10",))
    moved = outcome("walras-leased", nodes, [pod(810), pod(1000, models=("T4",)), never, never])
    assert moved.pods.node.tolist() == [1, 0, -1, -1]
    assert (moved.evictions, moved.migrated_milli, moved.served[-1]) == (0, 810, 1810)


def test_only_who_is_in_the_way_gives_way() -> None:
    came = outcome("walras-leased", [node(1)], [pod(470), pod(320), pod(500)])
    assert came.pods.node.tolist() == [0, -1, 0]
    assert (came.evictions, came.served[-1]) == (1, 970)


def test_a_pod_that_takes_much_cpu_is_exchanged_when_a_device_lacks_it() -> None:
    pods = [pod(1000, cpu=20), pod(810, cpu=5), pod(1000, cpu=11), pod(1000, cpu=11)]
    assert outcome("walras", [node(2, cpu=30)], pods).served[-1] == 1810
    came = outcome("walras-leased", [node(2, cpu=30)], pods)
    assert came.pods.node.tolist() == [-1, -1, 0, 0]
    assert sorted(came.pods.devices.tolist()) == [0, 0, 0b1, 0b10]


def test_placing_anew_by_size_takes_what_strands_most_first() -> None:
    pods = [pod(650), pod(350), pod(810), pod(810)]
    by_size_alone, priced = (
        outcome(f"anew-by-{order}", [node(1)], pods) for order in ("size", "effective-size")
    )
    assert (by_size_alone.served[-1], by_size_alone.evictions) == (810, 2)
    assert (priced.served[-1], priced.evictions) == (1000, 0)


def test_devices_are_filled_as_often_as_there_are_pods_for_it() -> None:
    assert fillings({810: 3, 190: 1, 500: 3}) == {
        190: [Filled(1, 1000)],
        500: [Filled(2, 1000), Filled(1, 500)],
        810: [Filled(1, 1000), Filled(2, 810)],
    }
    assert fillings({1000: 2, 0: 5}) == {1000: [Filled(2, 1000)]}
    assert fillings({}) == {}


def test_the_order_by_effective_size_minds_companions_leases_and_cpu() -> None:
    pods = [pod(810), pod(810), pod(190), pod(1000, cpu=40), pod(0, gpus=0)]
    _, shapes, of_pod = columns([node(2)], pods)
    assert by_size(of_pod, shapes).tolist() == [3, 0, 1, 2]
    # The 810 under lease has the 190 beside it; 40 CPUs are those of four devices.
    leased = np.array([0, 1, 0, 0, 1])
    assert by_effective_size(of_pod, leased, shapes, 10_000).tolist() == [1, 2, 0, 3]


def test_the_trace_comes_once_and_then_again_in_part_until_the_load_is_reached() -> None:
    _, shapes, of_pod = columns([node(8)], [pod(1000), pod(500), pod(0, gpus=0)])
    order = arrivals(of_pod, shapes, 10_000, np.random.default_rng(3))
    assert sorted(order[:3].tolist()) == [0, 1, 2]
    asked = (shapes.gpus * shapes.milli)[of_pod[order]]
    assert 9_000 < asked.sum() <= 10_000
    fewer = arrivals(of_pod, shapes, 1_200, np.random.default_rng(3))
    assert (shapes.gpus * shapes.milli)[of_pod[fewer]].sum() <= 1_200
    assert len(set(fewer.tolist())) == fewer.size


def test_typical_are_the_most_frequent_until_they_are_95_in_100() -> None:
    pods = [*[pod(500)] * 60, *[pod(1000)] * 35, *[pod(0, gpus=0)] * 5]
    _, shapes, of_pod = columns([node(1)], pods)
    found = typical(of_pod, shapes)
    assert (found.milli.tolist(), found.pods.tolist()) == ([500, 1000], [60, 35])


SMALL: Study = PackingStudy(
    [node(1), node(4), node(8), node(2, cpu=8)],
    [pod(810), pod(470, cpu=6), pod(1000, cpu=10), pod(1000, gpus=2), pod(0, gpus=0, cpu=4), pod(190)] * 4,
)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_and_another_something_else(policy: str) -> None:
    seen: list[float] = []
    first, again = (SMALL.run(policy, seed=7, load=1.3, progress=seen.append) for _ in range(2))
    assert first == again
    assert (seen[-1], sorted(seen[: len(seen) // 2])) == (1.0, seen[: len(seen) // 2])
    others = [SMALL.run(policy, seed=seed, load=1.3, progress=seen.append) for seed in range(5)]
    assert any(other != first for other in others)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_result_tells_what_was_served_of_what_arrived(policy: str) -> None:
    result = SMALL.run(policy, seed=1, load=1.3, progress=lambda _: None)
    assert set(result.metrics) == {"allocation_pct", "unserved", "evictions", "migrated_milli"}
    assert 80 < result.metrics["allocation_pct"] <= 100
    assert (result.metrics["migrated_milli"] == result.metrics["evictions"] == 0) or policy in LEASED
    arrived, allocated = result.series["allocation"].columns.values()
    assert list(arrived) == sorted(arrived)
    assert 120 < arrived[-1] <= 130
    assert all(mine <= theirs + 1e-9 for mine, theirs in zip(allocated, arrived, strict=True))
    assert allocated[-1] == result.metrics["allocation_pct"]


def test_so_little_that_nobody_comes_is_a_result_too() -> None:
    whole = PackingStudy([node(1)], [pod(1000), pod(1000)])
    result = whole.run("walras-leased", seed=1, load=0.5, progress=lambda _: None)
    assert set(result.metrics.values()) == {0.0}
    assert result.series["allocation"].columns == {"arrived": [0.0], "allocated": [0.0]}


def test_what_cannot_be_run_is_refused_with_what_can() -> None:
    with pytest.raises(NotFound, match="walras-leased, fgd"):
        SMALL.run("best", seed=1, load=1.3, progress=lambda _: None)
    for load in (0, -1, float("nan"), 1e9):
        with pytest.raises(Invalid, match="load"):
            SMALL.run("fgd", seed=1, load=load, progress=lambda _: None)
    with pytest.raises(Invalid, match="no GPUs"):
        PackingStudy([node(0)], [pod(1000)])
    with pytest.raises(Invalid, match="more than 32"):
        PackingStudy([node(33)], [pod(1000)])
    with pytest.raises(Invalid, match="GPU models"):
        PackingStudy([node(1)], [pod(1000, models=tuple(f"m{i}" for i in range(70)))])
    with pytest.raises(Invalid, match="no pod asks"):
        PackingStudy([node(1)], [pod(0, gpus=0)])


def test_numba_is_loaded_only_by_who_makes_a_study() -> None:
    code = "import sys, walras.sim.packing.study; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fgd_is_within_03_points_of_what_was_published_on_the_real_trace() -> None:
    published = read_published(trace_file("fgd/published_allocation_at_130pct.csv"))["default", "fgd"]
    study = openb_study(
        trace_file("openb/openb_node_list_gpu_node.csv"), trace_file("openb/openb_pod_list_default.csv")
    )
    runs = [study.run("fgd", seed=seed, load=1.3, progress=lambda _: None) for seed in (1, 2, 3)]
    assert fmean(run.metrics["allocation_pct"] for run in runs) == pytest.approx(published, abs=0.3)
    ours = [study.run("walras", seed=seed, load=1.3, progress=lambda _: None) for seed in (1, 2, 3)]
    assert fmean(run.metrics["allocation_pct"] for run in ours) > published
    leased = study.run("walras-leased", seed=1, load=1.3, progress=lambda _: None)
    assert leased.metrics["allocation_pct"] > 98.0


def test_the_table_has_what_was_published_beside_what_was_found() -> None:
    data = trace_file("openb/openb_node_list_gpu_node.csv").parent.parent
    found = list(rows(data, workloads=["default"], policies=["best-fit", "walras"], seeds=1))
    assert [row.published_pct for row in found] == [93.08, None]
    given = ["--data", str(data), "--seeds", "1", "--workload", "default", "--policy", "best-fit"]
    done = CliRunner().invoke(compare, ["openb", *given])
    assert done.exit_code == 0
    heading, line = done.stdout.splitlines()
    assert heading.split()[:2] == ["workload", "policy"]
    assert line.split()[:2] == ["default", "best-fit"]
    assert line.split()[2] == f"{found[0].allocation_pct:.2f}"
    refused = CliRunner().invoke(compare, ["openb", *given, "--load", "0"])
    assert isinstance(refused.exception, Invalid) and "a load of 0.0 cannot be" in str(refused.exception)


def test_published_means_are_read_where_there_are_any(tmp_path: Path) -> None:
    found = read_published(trace_file("fgd/published_allocation_at_130pct.csv"))
    assert {policy for _, policy in found} == set(PUBLISHED)
    assert found["gpushare100", "fgd"] == 86.9
    assert read_published(tmp_path / "none.csv") == {}
    other = tmp_path / "other.csv"
    other.write_text("workload,mean\ndefault,1\n")
    with pytest.raises(Invalid, match=r"other\.csv: no '06-FGD_mean' in it"):
        read_published(other)


def test_a_kernel_is_told_apart_by_the_files_of_its_folder(tmp_path: Path) -> None:
    names = set()
    for text in ("one = 1\n", "two = 2\n"):
        folder = tmp_path / text[:3]
        folder.mkdir()
        (folder / "kernels.py").write_text(text + "@kernel\ndef same(x):\n    return x\n")
        made: dict[str, Any] = {"__name__": "kernels", "kernel": kernel}
        exec(compile((folder / "kernels.py").read_text(), folder / "kernels.py", "exec"), made)
        names.add(made["same"].py_func.__qualname__)
    assert len(names) == 2
