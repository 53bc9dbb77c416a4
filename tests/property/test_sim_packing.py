"""What must hold of the packing study whatever the cluster, the pods and the policy."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.packing import Limit
from walras.devices.placement import Shape, fragmentation
from walras.sim.packing.clearings import LEASED, ONLINE, Outcome, run
from walras.sim.packing.cluster import columns
from walras.sim.packing.demand import rates, typical
from walras.sim.packing.fragments import fragments, starved
from walras.sim.packing.online import open_scene
from walras.sim.packing.ordering import fillings
from walras.sim.packing.rooms import fits, tightest
from walras.sim.traces.openb import Node, Pod

models = st.sampled_from(("T4", "A10"))
nodes = st.builds(Node, st.just("n"), st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), models)
shares = st.sampled_from((50, 110, 190, 320, 470, 530, 810, 1000))
wanted = st.lists(models, max_size=2, unique=True).map(tuple)
small = st.integers(0, 12)
pods = st.one_of(
    st.builds(Pod, st.just("p"), small, small, st.just(1), shares, wanted),
    st.builds(Pod, st.just("p"), small, small, st.integers(2, 8), st.just(1000), wanted),
    st.builds(Pod, st.just("p"), small, small, st.just(0), st.just(0)),
)
clusters = st.lists(nodes, min_size=1, max_size=5)
arriving = st.lists(pods, min_size=1, max_size=40)


def play(policy: str, cluster_nodes: list[Node], arrivals: list[Pod]) -> Outcome:
    cluster, shapes, of_pod = columns(cluster_nodes, arrivals)
    draws = np.random.default_rng(1).random((of_pod.size, 2))
    demand, pace = typical(of_pod, shapes), rates(of_pod, shapes)
    return run(policy, of_pod, cluster, shapes, demand, pace, draws, lambda _: None)


@settings(max_examples=60, deadline=None)
@given(clusters, arriving, st.sampled_from([*ONLINE, *LEASED]))
def test_pods_have_what_they_ask_for_and_nodes_no_more_than_they_have(
    cluster: list[Node], arrivals: list[Pod], policy: str
) -> None:
    outcome = play(policy, cluster, arrivals)
    cpu, memory, milli = Counter[int](), Counter[int](), Counter[tuple[int, int]]()
    for pod, where, devices in zip(arrivals, outcome.pods.node.tolist(), outcome.pods.devices, strict=True):
        if where < 0:
            assert devices == 0
            continue
        chosen = [device for device in range(cluster[where].gpus) if int(devices) >> device & 1]
        assert len(chosen) == int(devices).bit_count() == pod.gpus
        assert not pod.models or cluster[where].model in pod.models
        cpu[where] += pod.cpu_milli
        memory[where] += pod.memory_mib
        for device in chosen:
            milli[where, device] += pod.gpu_milli
    assert all(cpu[at] <= node.cpu_milli and memory[at] <= node.memory_mib for at, node in enumerate(cluster))
    assert max(milli.values(), default=0) <= 1000
    assert outcome.served[-1] == sum(milli.values())
    assert outcome.arrived[-1] == sum(pod.total_milli for pod in arrivals)


@settings(max_examples=60, deadline=None)
@given(clusters, arriving, st.sampled_from(list(ONLINE)))
def test_online_nobody_is_turned_away_for_whom_there_is_room_at_the_end(
    cluster: list[Node], arrivals: list[Pod], policy: str
) -> None:
    outcome = play(policy, cluster, arrivals)
    columns_of, shapes, of_pod = columns(cluster, arrivals)
    scene, _ = open_scene(columns_of, shapes, typical(of_pod, shapes), rates(of_pod, shapes))
    for pod, where, devices in zip(of_pod, outcome.pods.node, outcome.pods.devices, strict=True):
        if where >= 0:
            scene.board.cpu[where] -= shapes.cpu[pod]
            scene.board.memory[where] -= shapes.memory[pod]
            chosen = (devices >> np.arange(scene.board.left.shape[1])) & 1
            scene.board.left[where] -= chosen * shapes.milli[pod]
    for pod, where in zip(of_pod, outcome.pods.node, strict=True):
        assert where >= 0 or not any(
            fits(at, pod, scene.board, columns_of, shapes) for at in range(len(cluster))
        )


@settings(max_examples=60, deadline=None)
@given(clusters, arriving)
def test_a_clearing_among_leases_never_lowers_what_is_in_use(
    cluster: list[Node], arrivals: list[Pod]
) -> None:
    online, leased = play("walras", cluster, arrivals), play("walras-leased", cluster, arrivals)
    assert (np.diff(leased.served) >= 0).all()
    first = np.flatnonzero(online.served != leased.served)
    assert first.size == 0 or leased.served[first[0]] > online.served[first[0]]


@settings(max_examples=30, deadline=None)
@given(clusters, arriving, st.sampled_from([*ONLINE, *LEASED]))
def test_no_policy_passes_the_limit(cluster: list[Node], arrivals: list[Pod], policy: str) -> None:
    columns_of, shapes, of_pod = columns(cluster, arrivals)
    limit = Limit(columns_of, shapes, Counter(of_pod.tolist())).milli()
    assert play(policy, cluster, arrivals).served[-1] <= limit + 1e-3


def test_the_limit_is_what_devices_can_be_filled_with() -> None:
    cluster = [Node("n", 64, 64, 2, "T4")]
    shares = [Pod("p", 1, 1, 1, milli) for milli in (810, 810, 650, 350, 160)]
    columns_of, shapes, of_pod = columns(cluster, shares)
    # 810 with 160, and 650 with 350.
    assert round(Limit(columns_of, shapes, Counter(of_pod.tolist())).milli(), 3) == 1970


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=8),
    st.dictionaries(st.integers(1, 1000), st.integers(1, 9), min_size=1, max_size=5),
)
def test_fragments_are_those_of_the_devices_where_cpu_and_models_are_plenty(
    left: list[int], sizes: dict[int, int]
) -> None:
    demand = [Pod("p", 0, 0, 1, milli) for milli, count in sizes.items() for _ in range(count)]
    _, shapes, of_pod = columns([Node("n", 1, 1, 8, "T4")], demand)
    counted = typical(of_pod, shapes)
    kept = {Shape(int(milli), 0): int(pods) for milli, pods in zip(counted.milli, counted.pods, strict=True)}
    found = fragments(10**9, 0, np.array(left), len(left), counted)
    expected = sum(fragmentation(Shape(milli, 0), kept) for milli in left)
    # Where a pod fits no device at all nothing of the node is of use to it, which is the same sum.
    assert found == expected


@given(
    st.integers(0, 100_000),
    st.integers(0, 100_000),
    st.integers(0, 8000),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_what_is_starved_is_free_and_less_with_more_cpu(
    cpu: int, memory: int, free: int, cpu_rate: int, memory_rate: int
) -> None:
    pace = np.array([cpu_rate, memory_rate])
    assert 0 <= starved(cpu + 1, memory, free, pace) <= starved(cpu, memory, free, pace) <= free
    assert starved(0, memory, free, pace) == starved(cpu, 0, free, pace) == free


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8), st.integers(0, 8), st.integers(1, 1000))
def test_devices_taken_have_room_and_are_as_many_as_asked(left: list[int], number: int, milli: int) -> None:
    milli = milli if number == 1 else 1000
    if sum(each >= milli for each in left) < number:
        return
    devices = tightest(np.array(left), len(left), number, milli)
    chosen = [device for device in range(len(left)) if devices >> device & 1]
    assert len(chosen) == number
    assert all(left[device] >= milli for device in chosen)
    if number == 1 and milli < 1000:
        assert left[chosen[0]] == min(each for each in left if each >= milli)


@given(st.dictionaries(st.integers(1, 1000), st.integers(1, 6), max_size=6))
def test_fillings_have_every_pod_once_on_devices_that_add_up(counts: dict[int, int]) -> None:
    found = fillings(counts)
    assert {size: sum(part.pods for part in parts) for size, parts in found.items()} == counts
    full = Counter[int]()
    for size, parts in found.items():
        assert [part.milli for part in parts] == sorted((part.milli for part in parts), reverse=True)
        for part in parts:
            assert size <= part.milli <= 1000
            full[part.milli] += part.pods * size
    assert all(total % milli == 0 for milli, total in full.items())
