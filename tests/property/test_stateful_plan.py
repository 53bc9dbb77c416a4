"""A stateful set under any order of events: in order, one at a time, and where it should be in the end."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from walras.tenants.stateful_plan import REVISION_LABEL, Plan, ordinals, plan

Object = dict[str, Any]
READY = [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]


@dataclass
class Cluster:
    """The pods of one set and what a kubelet does with them."""

    spec: Object
    update: str = "r1"
    current: str = "r1"
    pods: dict[int, Object] = field(default_factory=dict)

    def owner(self) -> Object:
        return {"metadata": {"name": "db", "generation": 1}, "spec": self.spec, "status": {}}

    def step(self) -> Plan:
        planned = plan(
            self.owner(), list(self.pods.values()), current=self.current, update=self.update, now_ms=0
        )
        for at, revision in planned.create.items():
            assert at not in self.pods, "one pod an ordinal"
            self.pods[at] = {
                "metadata": {"name": f"db-{at}", "labels": {REVISION_LABEL: revision}},
                "spec": {},
                "status": {"phase": "Pending"},
            }
        for pod in planned.delete:
            pod["metadata"]["deletionTimestamp"] = "now"
        self.current = planned.status["currentRevision"]
        return planned

    def going(self, at: int) -> bool:
        return "deletionTimestamp" in self.pods[at]["metadata"]

    def serves(self, at: int) -> bool:
        return at in self.pods and bool(self.pods[at]["status"].get("conditions")) and not self.going(at)

    def kubelet(self, at: int, event: str) -> None:
        pod = self.pods.get(at)
        if pod is None:
            return
        if event == "remove" and self.going(at):
            del self.pods[at]
        elif event == "run" and pod["status"]["phase"] == "Pending":
            pod["status"] = {"phase": "Running", "conditions": READY}
        elif event == "fail":
            pod["status"] = {"phase": "Failed"}
        elif event == "unready" and pod["status"]["phase"] == "Running":
            pod["status"] = {"phase": "Running"}


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["run", "remove", "fail", "unready"]), st.integers(0, 7)),
        st.tuples(st.just("scale"), st.integers(0, 5)),
        st.tuples(st.just("update"), st.integers(1, 3)),
        st.tuples(st.just("partition"), st.integers(0, 4)),
    ),
    max_size=60,
)


def run(cluster: Cluster, event: str, value: int) -> None:
    match event:
        case "scale":
            cluster.spec["replicas"] = value
        case "update":
            cluster.update = f"r{value}"
        case "partition":
            cluster.spec["updateStrategy"]["rollingUpdate"]["partition"] = value
        case _:
            cluster.kubelet(value, event)


def fresh(policy: str, start: int) -> Cluster:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    ordinal = {"ordinals": {"start": start}} if start else {}
    return Cluster({"replicas": 3, "podManagementPolicy": policy, "updateStrategy": strategy, **ordinal})


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.integers(0, 2))
def test_in_order_a_pod_is_made_only_when_those_before_it_serve(events: Any, start: int) -> None:
    cluster = fresh("OrderedReady", start)
    for event, value in events:
        run(cluster, event, value)
        before = {at for at in cluster.pods if cluster.serves(at)}
        planned = cluster.step()
        wanted = ordinals(cluster.spec)
        assert len(planned.create) + len(planned.delete) <= 1
        for at in planned.create:
            assert at in wanted
            assert all(lower in before for lower in wanted if lower < at)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_an_update_by_itself_takes_at_most_one_pod_that_serves(events: Any) -> None:
    cluster = fresh("Parallel", 0)
    for event, value in events:
        run(cluster, event, value)
        serving = {at for at in ordinals(cluster.spec) if cluster.serves(at)}
        cluster.step()
        assert len(serving - {at for at in ordinals(cluster.spec) if cluster.serves(at)}) <= 1


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.sampled_from(["OrderedReady", "Parallel"]), st.integers(0, 2))
def test_left_alone_it_comes_to_what_was_asked_for(events: Any, policy: str, start: int) -> None:
    cluster = fresh(policy, start)
    for event, value in events:
        run(cluster, event, value)
        cluster.step()
    # What is not ready by its own fault stays so, and in order nothing goes on past it: somebody mends it.
    for pod in cluster.pods.values():
        if pod["status"] == {"phase": "Running"}:
            pod["status"] = {"phase": "Running", "conditions": READY}
    planned = cluster.step()
    for _ in range(100):
        for at in list(cluster.pods):
            cluster.kubelet(at, "remove")
            cluster.kubelet(at, "run")
        planned = cluster.step()
    assert sorted(cluster.pods) == list(ordinals(cluster.spec))
    assert not planned.create
    assert not planned.delete
    partition = cluster.spec["updateStrategy"]["rollingUpdate"]["partition"]
    for at, pod in cluster.pods.items():
        if at >= ordinals(cluster.spec).start + partition:
            assert pod["metadata"]["labels"][REVISION_LABEL] == cluster.update
