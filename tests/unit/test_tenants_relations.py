"""Pods beside other pods: affinity, anti-affinity, topology spread and host ports, each where it matters."""

from __future__ import annotations

from typing import Any

import pytest
from support.world import AGENT, World, pod, scheduled, tell

from walras.tenants.demands import demand_of
from walras.tenants.fit import Node, Usage
from walras.tenants.relations import AFFINITY, ANTI_AFFINITY, NO_LABEL, REPELLED, SPREAD, Relation

Object = dict[str, Any]
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
NODES = {
    "a1": {HOST: "a1", ZONE: "a"},
    "a2": {HOST: "a2", ZONE: "a"},
    "b1": {HOST: "b1", ZONE: "b"},
    "bare": {HOST: "bare"},
}


def node(name: str) -> Node:
    return Node(name, NODES[name], (), {"pods": 10}, ())


def labelled(name: str, app: str, namespace: str = "default", **spec: Any) -> Object:
    made = pod(name, **spec)
    made["metadata"] |= {"labels": {"app": app}, "namespace": namespace}
    return made


def term(app: str, key: str = HOST, **more: Any) -> Object:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def affinity(kind: str, *terms: Object) -> Object:
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}}


def refusals(
    made: Object, *placed: tuple[Object, str], namespaces: dict[str, dict[str, str]] | None = None
) -> dict[str, str]:
    """Why the pod cannot be on each node, with these pods where they are; only of nodes that refuse."""
    peers = [(demand_of(other), node(where)) for other, where in placed]
    nodes = [node(name) for name in NODES]
    relation = Relation(demand_of(made), nodes, peers, lambda name: (namespaces or {}).get(name, {}))
    return {each.name: why for each in nodes if (why := relation.refusal(each))}


def test_a_pod_that_wants_company_goes_where_it_is() -> None:
    wants = labelled("x", "web", **affinity("podAffinity", term("db", ZONE)))
    assert set(refusals(wants).values()) == {AFFINITY}
    assert refusals(wants, (labelled("d", "db"), "a1")) == {"b1": AFFINITY, "bare": AFFINITY}
    # In another namespace it is somebody else's.
    assert set(refusals(wants, (labelled("d", "db", "other"), "a1"))) == set(NODES)


def test_the_first_of_pods_that_want_to_be_together_may_go_anywhere_with_the_label() -> None:
    wants = labelled("x", "gang", **affinity("podAffinity", term("gang", ZONE)))
    assert refusals(wants) == {"bare": AFFINITY}
    assert refusals(wants, (labelled("y", "gang"), "b1")) == {
        "a1": AFFINITY,
        "a2": AFFINITY,
        "bare": AFFINITY,
    }


def test_a_pod_that_wants_to_be_alone_is_kept_away_and_keeps_away() -> None:
    alone = labelled("x", "db", **affinity("podAntiAffinity", term("db")))
    other = labelled("y", "db")
    assert refusals(alone, (other, "a1")) == {"a1": ANTI_AFFINITY}
    assert refusals(other, (alone, "b1")) == {"b1": REPELLED}
    assert refusals(labelled("z", "web"), (alone, "b1")) == {}


@pytest.mark.parametrize(
    ("more", "found"),
    [({"namespaces": ["team"]}, True), ({"namespaceSelector": {"matchLabels": {"of": "us"}}}, True),
     ({"namespaceSelector": {}}, True), ({"namespaceSelector": {"matchLabels": {"of": "them"}}}, False),
     ({}, False)],
)  # fmt: skip
def test_terms_choose_their_namespaces(more: Object, found: bool) -> None:
    alone = labelled("x", "db", **affinity("podAntiAffinity", term("db", **more)))
    placed = (labelled("y", "db", "team"), "a1")
    assert bool(refusals(alone, placed, namespaces={"team": {"of": "us"}})) is found


def test_a_term_may_take_values_from_the_pod_itself() -> None:
    alone = labelled("x", "db", **affinity("podAntiAffinity", {
        "labelSelector": {}, "topologyKey": HOST, "matchLabelKeys": ["app"]}))  # fmt: skip
    assert refusals(alone, (labelled("y", "web"), "a1"), (labelled("z", "db"), "b1")) == {"b1": ANTI_AFFINITY}


def spread(key: str = ZONE, **more: Any) -> Object:
    constraint = {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
                  "labelSelector": {"matchLabels": {"app": "web"}}, **more}  # fmt: skip
    return {"topologySpreadConstraints": [constraint]}


def test_pods_are_spread_over_domains_as_evenly_as_they_say() -> None:
    web = labelled("x", "web", **spread())
    one, two = (labelled("y", "web"), "a1"), (labelled("z", "web"), "a2")
    assert refusals(web) == {"bare": NO_LABEL}
    assert refusals(web, one) == {"a1": SPREAD, "a2": SPREAD, "bare": NO_LABEL}
    assert refusals(labelled("x", "web", **spread(maxSkew=2)), one) == {"bare": NO_LABEL}
    assert set(refusals(labelled("x", "web", **spread(maxSkew=2)), one, two)) == {"a1", "a2", "bare"}
    # Too few domains count as one that is empty.
    assert refusals(labelled("x", "web", **spread(minDomains=3)), one, (labelled("w", "web"), "b1")) == {
        "a1": SPREAD, "a2": SPREAD, "b1": SPREAD, "bare": NO_LABEL,
    }  # fmt: skip
    # Pods that leave, or are of another namespace, do not count.
    leaving = labelled("y", "web")
    leaving["metadata"]["deletionTimestamp"] = "now"
    assert refusals(web, (leaving, "a1"), (labelled("w", "web", "other"), "a1")) == {"bare": NO_LABEL}


def test_wishes_order_nodes_that_are_all_possible() -> None:
    like = {"weight": 10, "podAffinityTerm": term("db", ZONE)}
    dislike = {"weight": 4, "podAffinityTerm": term("noise")}
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    made = labelled("x", "web", **{
        "affinity": {"podAffinity": {preferred: [like]}, "podAntiAffinity": {preferred: [dislike]}},
        **spread(whenUnsatisfiable="ScheduleAnyway"),
    })  # fmt: skip
    peers = [
        (demand_of(labelled(app + where, app)), node(where))
        for app, where in (("db", "a1"), ("noise", "a1"), ("web", "b1"))
    ]
    relation = Relation(demand_of(made), [node(name) for name in NODES], peers, lambda _: {})
    assert not any(relation.refusal(node(name)) for name in NODES)
    assert sorted(NODES, key=lambda name: relation.score(node(name))) == ["a2", "a1", "b1", "bare"]


def test_host_ports_clash_by_address_protocol_and_number() -> None:
    def at(port: int, address: str = "", protocol: str = "TCP") -> Object:
        made = pod("x")
        made["spec"]["containers"][0]["ports"] = [
            {"containerPort": 80, "hostPort": port, "hostIP": address, "protocol": protocol}
        ]
        return made

    usage = Usage()
    usage.add(demand_of(at(8080, "10.0.0.1")))
    assert usage.clashes(demand_of(at(8080)).ports)
    assert usage.clashes(demand_of(at(8080, "10.0.0.1")).ports)
    for other in (at(8081), at(8080, "10.0.0.2"), at(8080, "10.0.0.1", "UDP"), pod("y")):
        assert not usage.clashes(demand_of(other).ports)
    usage.remove(demand_of(at(8080, "10.0.0.1")))
    assert not usage.clashes(demand_of(at(8080)).ports)


def on(world: World, name: str) -> str:
    return str(world.api.get(AGENT, "pods", "default", name)["spec"].get("nodeName", ""))


def test_a_pod_that_waits_for_company_goes_when_it_comes() -> None:
    async def story(world: World) -> None:
        await world.create("pods", labelled("x", "web", **affinity("podAffinity", term("db"))))
        await world.settle()
        assert AFFINITY in scheduled(world.api.get(AGENT, "pods", "default", "x"))["message"]
        await world.create("pods", labelled("d", "db"))
        await world.settle()
        assert on(world, "x") == "base"

    tell(story)


def test_a_pod_that_waits_to_be_alone_goes_when_the_other_changes_its_labels() -> None:
    async def story(world: World) -> None:
        await world.create("pods", labelled("d", "db"))
        await world.create("pods", labelled("x", "web", **affinity("podAntiAffinity", term("db"))))
        await world.settle()
        assert on(world, "x") == ""
        await world.api.edit(
            AGENT, "pods", "default", "d", lambda it: it["metadata"].update(labels={"app": "else"})
        )
        await world.settle()
        assert on(world, "x") == "base"

    tell(story)
