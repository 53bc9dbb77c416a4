"""Which node a pod fits on, and kube-scheduler's words where it fits on none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.world import lease_node, pod

from walras.core.errors import Invalid
from walras.devices.request import GpuRequest
from walras.tenants.demands import demand_of
from walras.tenants.fit import Choice, Node, Usage, choose, node_of

Object = dict[str, Any]


def base(name: str = "base", *, cpu: str = "2", labels: Object | None = None, **spec: Any) -> Object:
    capacity = {"cpu": cpu, "memory": "4Gi", "pods": "110"}
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec,
        "status": {"allocatable": capacity},
    }


def place(wanted: Object, *nodes: Object, on: dict[str, list[Object]] | None = None, **held: Any) -> Choice:
    """The choice for a pod, with the pods of `on` on the nodes already."""
    described: list[tuple[Node, Usage]] = []
    for node in nodes:
        usage = Usage()
        for other in (on or {}).get(node["metadata"]["name"], ()):
            usage.add(demand_of(other))
        described.append((node_of(node), usage))
    return choose(demand_of(wanted), described, **held)


def milli(name: str, amount: int, memory: int = 0) -> Object:
    limits = {"walras.dev/milligpu": str(amount)}
    return pod(name, limits=limits | ({"walras.dev/gpu-memory-mib": str(memory)} if memory else {}))


def test_without_nodes_kubernetes_has_a_sentence_of_its_own() -> None:
    assert place(pod("p")) == Choice(None, "no nodes available to schedule pods")


def test_a_refusal_counts_the_reasons_over_all_nodes() -> None:
    choice = place(
        pod("p", limits={"cpu": "3"}),
        base(),
        base("other"),
        base("closed", unschedulable=True),
        base("tainted", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]),
    )
    assert choice.message == (
        "0/4 nodes are available: 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable, "
        "2 Insufficient cpu."
    )


def test_a_node_may_lack_several_things_at_once() -> None:
    choice = place(pod("p", limits={"cpu": "3", "memory": "8Gi"}), base())
    assert choice.message == "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."


def test_what_other_pods_take_is_not_there() -> None:
    half = {"cpu": "1500m"}
    assert (
        place(pod("p", limits={"cpu": "500m"}), base(), on={"base": [pod("q", limits=half)]}).node == "base"
    )
    assert place(pod("p", limits={"cpu": "501m"}), base(), on={"base": [pod("q", limits=half)]}).node is None


def test_pods_are_counted() -> None:
    node = base()
    node["status"]["allocatable"]["pods"] = "1"
    assert place(pod("p"), node, on={"base": [pod("q")]}).message.endswith("1 Too many pods.")


def test_init_containers_need_their_maximum_and_sidecars_stay() -> None:
    wanted = pod("p", limits={"cpu": "500m"})
    wanted["spec"]["initContainers"] = [
        {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "600m"}}},
        {"name": "first", "resources": {"requests": {"cpu": "1"}}},
    ]
    # The sidecar runs beside both: 0.6 + max(0.5, 1.0).
    assert demand_of(wanted).requests == {"cpu": 1600}


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "k", "value": "other"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "j", "operator": "Exists"}, False),
    ],
)
def test_tolerations_as_in_kubernetes(toleration: Object, fits: bool) -> None:
    node = base(taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    assert (place(pod("p", tolerations=[toleration]), node).node is not None) == fits


def test_a_cordoned_node_takes_only_who_tolerates_it() -> None:
    toleration = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}
    assert place(pod("p"), base(unschedulable=True)).node is None
    assert place(pod("p", tolerations=[toleration]), base(unschedulable=True)).node == "base"


def test_selector_and_required_affinity_must_both_hold() -> None:
    east = base("east", labels={"zone": "east", "rank": "3"})
    west = base("west", labels={"zone": "west", "rank": "7"})
    assert place(pod("p", nodeSelector={"zone": "west"}), east, west).node == "west"

    def terms(*expressions: Object) -> Object:
        required = {"nodeSelectorTerms": [{"matchExpressions": [each]} for each in expressions]}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}

    big = {"key": "rank", "operator": "Gt", "values": ["5"]}
    absent = {"key": "zone", "operator": "DoesNotExist"}
    assert place(pod("p", affinity=terms(big)), east, west).node == "west"
    assert place(pod("p", affinity=terms(absent, big)), east, west).node == "west"
    refused = place(pod("p", affinity=terms(absent)), east, west)
    assert refused.message == (
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    )


def test_lease_nodes_are_for_gpu_pods_and_the_base_node_is_not() -> None:
    lease = lease_node("lease-1")
    gpu = pod("gpu", limits={"nvidia.com/gpu": "1"})
    assert place(pod("web"), lease, base()).node == "base"
    assert "lease only take pods that ask for a GPU" in place(pod("web"), lease).message
    assert place(gpu, base(), lease).node == "lease-1"
    assert place(gpu, base()).message == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def test_a_fraction_names_what_is_short() -> None:
    lease = lease_node("lease-1", milli=500)
    assert place(milli("p", 600), lease).message.endswith("1 Insufficient walras.dev/milligpu.")
    assert place(milli("p", 500, 20_000), lease).message.endswith("1 Insufficient walras.dev/gpu-memory-mib.")
    assert place(milli("p", 500, 16_384), lease).node == "lease-1"


def test_a_device_is_asked_for_in_either_unit_but_there_only_once() -> None:
    lease = lease_node("lease-1")
    whole = pod("p", limits={"nvidia.com/gpu": "1"})
    assert place(whole, lease).node == "lease-1"
    assert place(milli("p", 1000), lease).node == "lease-1"
    assert place(milli("q", 1), lease, on={"lease-1": [whole]}).node is None


def cut_node(*instances: str) -> Object:
    """A lease's node with these MIG instances, each on a device of its own."""
    lease = lease_node("lease-1")
    listed = [
        {"device": f"gpu-{at}", "milliGPU": 142, "memoryMiB": 9984, "mig": cut}
        for at, cut in enumerate(instances)
    ]
    lease["metadata"]["annotations"] = {"walras.dev/devices": json.dumps(listed)}
    return lease


def instances(name: str, profile: str, count: int = 1) -> Object:
    return pod(name, limits={f"nvidia.com/mig-{profile}": str(count)})


def test_an_instance_goes_to_one_pod_that_asks_for_its_profile() -> None:
    lease, wanted = cut_node("1g.10gb@4"), instances("p", "1g.10gb")
    assert place(wanted, lease).node == "lease-1"
    assert place(wanted, lease, on={"lease-1": [wanted]}).message.endswith(
        "1 Insufficient nvidia.com/mig-1g.10gb."
    )
    media = instances("p", "1g.10gb.me")
    assert place(media, lease).message.endswith("1 Insufficient nvidia.com/mig-1g.10gb.me.")
    assert place(media, cut_node("1g.10gb+me@0")).node == "lease-1"


def test_an_instance_is_no_share_and_a_share_no_instance() -> None:
    assert place(milli("p", 100), cut_node("1g.10gb@0")).message.endswith(
        "1 Insufficient walras.dev/milligpu."
    )
    assert place(instances("p", "1g.10gb"), lease_node("lease-1")).node is None


def test_instances_are_counted() -> None:
    lease = cut_node("1g.10gb@0", "1g.10gb@6")
    assert place(instances("p", "1g.10gb", 2), lease).node == "lease-1"
    assert place(instances("p", "1g.10gb", 3), lease).node is None
    assert (
        place(instances("p", "1g.10gb", 2), lease, on={"lease-1": [instances("q", "1g.10gb")]}).node is None
    )


def test_without_a_list_of_devices_instances_are_those_that_are_allocatable() -> None:
    node = base("mig", labels={"walras.dev/lease": "l"})
    node["status"]["allocatable"]["nvidia.com/mig-2g.20gb"] = "2"
    assert place(instances("p", "2g.20gb", 2), node).node == "mig"
    assert place(instances("p", "1g.10gb"), node).node is None


def test_two_halves_of_different_devices_are_no_whole_device() -> None:
    lease = lease_node("lease-1")
    lease["metadata"]["annotations"] = {
        "walras.dev/devices": '[{"device":"a","milliGPU":500,"memoryMiB":8192},'
        '{"device":"b","milliGPU":500,"memoryMiB":8192}]'
    }
    assert place(pod("p", limits={"nvidia.com/gpu": "1"}), lease).node is None
    assert place(milli("p", 500), lease, on={"lease-1": [milli("q", 500)]}).node == "lease-1"
    assert place(milli("p", 500), lease, on={"lease-1": [milli("q", 400)]}).node == "lease-1"
    assert place(milli("p", 200), lease, on={"lease-1": [milli("q", 400), milli("r", 400)]}).node is None


def test_memory_not_named_is_the_part_that_goes_with_the_compute() -> None:
    lease = lease_node("lease-1")
    assert place(milli("p", 100, 8192), lease, on={"lease-1": [milli("q", 500)]}).node == "lease-1"
    assert place(milli("p", 100, 8193), lease, on={"lease-1": [milli("q", 500)]}).node is None


def test_a_pod_prefers_the_node_that_its_own_bid_won() -> None:
    nodes = [lease_node("a", bid="other"), lease_node("b", bid="mine"), lease_node("c", milli=600)]
    assert place(milli("mine", 500), *nodes).node == "b"


def test_a_node_is_held_for_the_waiting_pod_that_won_it() -> None:
    node = lease_node("a", bid="other")
    refused = place(milli("mine", 500), node, held=frozenset({"other"}))
    assert refused.message.endswith("1 node(s) were won by another pod's bid.")
    assert place(milli("mine", 500), node).node == "a"


def test_a_pod_goes_where_least_is_left_over() -> None:
    wide, tight = lease_node("a-wide"), lease_node("tight", milli=300)
    assert place(milli("p", 250), wide, tight).node == "tight"


def test_avoided_taints_and_preferences_only_order_the_nodes() -> None:
    avoided = base("a", taints=[{"key": "k", "effect": "PreferNoSchedule"}])
    assert place(pod("p"), avoided, base("b")).node == "b"
    assert place(pod("p"), avoided).node == "a"
    liked = {"weight": 5, "preference": {"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["b"]}]}}  # fmt: skip
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [liked]}}
    assert place(pod("p", affinity=affinity), base("a"), base("b")).node == "b"


def test_a_request_that_no_node_can_have_is_an_error() -> None:
    with pytest.raises(Invalid, match="not both"):
        demand_of(pod("p", limits={"nvidia.com/gpu": "1", "walras.dev/milligpu": "100"}))


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 20_000)), max_size=12),
    st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 20_000)), min_size=1, max_size=3),
)
def test_no_sequence_of_placements_overcommits_a_node(
    asked: list[tuple[int, int]], shares: list[tuple[int, int]]
) -> None:
    lease = lease_node("lease-1")
    devices = ",".join(f'{{"milliGPU":{share},"memoryMiB":{memory}}}' for share, memory in shares)
    lease["metadata"]["annotations"] = {"walras.dev/devices": f"[{devices}]"}
    node, usage = node_of(lease), Usage()
    for number, (share, memory) in enumerate(asked):
        demand = demand_of(milli(f"p{number}", share, memory))
        if choose(demand, [(node, usage)]).node is not None:
            usage.add(demand)
    placed: list[GpuRequest] = usage.gpus
    assert sum(each.total_milli for each in placed) <= sum(share for share, _ in shares)
    assert sum(each.memory_mib * each.devices for each in placed) <= sum(memory for _, memory in shares)
    assert usage.pods <= 16
