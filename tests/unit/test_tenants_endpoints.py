"""Endpoints and EndpointSlices: what is behind a Service, told as pods come, become ready and go."""

from typing import Any

import pytest
from support.world import AGENT, World, pod, tell

from walras.core.clock import rfc3339
from walras.tenants.backends import SLICE_MAX, Backend, find_port, spread

SERVICES, ENDPOINTS, SLICES = "services", "endpoints", "endpointslices.discovery.k8s.io"
Object = dict[str, Any]


def service(*ports: Object, selector: Object | None = None, **spec: Any) -> Object:
    chosen = {"app": "web"} if selector is None else selector
    listed = list(ports) or [{"port": 80, "targetPort": "http", "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {**({"selector": chosen} if chosen else {}), "ports": listed, **spec},
    }


def web(name: str) -> Object:
    made = pod(name, hostname=name, subdomain="web")
    made["metadata"]["labels"] = {"app": "web"}
    made["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    return made


async def run(world: World, name: str, ip: str, *, ready: bool = True) -> None:
    now = rfc3339(world.clock.now_ms())
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": now}]
    found = world.api.get(AGENT, "pods", "default", name)
    await world.set_status(found, phase="Running", podIP=ip, podIPs=[{"ip": ip}], conditions=conditions)
    await world.settle()


def endpoints(world: World) -> list[Object]:
    return list(world.api.get(AGENT, ENDPOINTS, "default", "web").get("subsets", []))


def slices(world: World) -> list[Object]:
    return world.api.list(AGENT, SLICES, "default")


def test_pods_are_told_when_they_have_an_address_and_whether_they_are_ready() -> None:
    async def story(world: World) -> None:
        await world.create(SERVICES, service())
        await world.settle()
        assert endpoints(world) == []
        (empty,) = slices(world)
        assert (empty["endpoints"], empty["metadata"]["labels"]["kubernetes.io/service-name"]) == ([], "web")
        for name in ("a", "b"):
            await world.create("pods", web(name))
        await world.settle()
        await run(world, "a", "10.0.0.1")
        await run(world, "b", "10.0.0.2", ready=False)
        (subset,) = endpoints(world)
        assert [each["ip"] for each in subset["addresses"]] == ["10.0.0.1"]
        assert [each["ip"] for each in subset["notReadyAddresses"]] == ["10.0.0.2"]
        assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]
        assert subset["addresses"][0]["targetRef"]["name"] == "a"
        assert subset["addresses"][0]["hostname"] == "a"
        (piece,) = slices(world)
        told = {each["targetRef"]["name"]: each["conditions"] for each in piece["endpoints"]}
        assert told["a"] == {"ready": True, "serving": True, "terminating": False}
        assert told["b"] == {"ready": False, "serving": False, "terminating": False}
        assert piece["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
        await world.api.delete(AGENT, "pods", "default", "a")
        await world.settle()
        (piece,) = slices(world)
        told = {each["targetRef"]["name"]: each["conditions"] for each in piece["endpoints"]}
        assert told["a"] == {"ready": False, "serving": True, "terminating": True}
        assert "addresses" not in endpoints(world)[0]

    tell(story)


def test_a_service_that_goes_takes_them_along() -> None:
    async def story(world: World) -> None:
        await world.create(SERVICES, service())
        await world.settle()
        await world.api.delete(AGENT, SERVICES, "default", "web")
        await world.settle()
        assert world.api.find(AGENT, ENDPOINTS, "default", "web") is None
        assert slices(world) == []

    tell(story)


def test_what_is_changed_or_deleted_by_hand_comes_back() -> None:
    async def story(world: World) -> None:
        await world.create(SERVICES, service())
        await world.create("pods", web("a"))
        await world.settle()
        await run(world, "a", "10.0.0.1")
        before = endpoints(world)
        await world.api.edit(AGENT, ENDPOINTS, "default", "web", lambda it: it.update(subsets=[]))
        await world.api.delete(AGENT, SLICES, "default", slices(world)[0]["metadata"]["name"])
        await world.settle()
        assert endpoints(world) == before
        assert len(slices(world)[0]["endpoints"]) == 1

    tell(story)


def test_publish_not_ready_addresses_calls_all_of_them_ready() -> None:
    async def story(world: World) -> None:
        await world.create(SERVICES, service(publishNotReadyAddresses=True, clusterIP="None"))
        await world.create("pods", web("a"))
        await world.settle()
        await run(world, "a", "10.0.0.1", ready=False)
        assert [each["ip"] for each in endpoints(world)[0]["addresses"]] == ["10.0.0.1"]
        assert slices(world)[0]["endpoints"][0]["conditions"]["ready"] is True
        assert "service.kubernetes.io/headless" in slices(world)[0]["metadata"]["labels"]

    tell(story)


def test_pods_with_other_ports_are_in_a_slice_of_their_own() -> None:
    async def story(world: World) -> None:
        await world.create(SERVICES, service())
        other = web("b")
        other["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090
        for each in (web("a"), other):
            await world.create("pods", each)
        await world.settle()
        await run(world, "a", "10.0.0.1")
        await run(world, "b", "10.0.0.2")
        assert sorted(each["ports"][0]["port"] for each in slices(world)) == [8080, 9090]
        assert sorted(each["ports"][0]["port"] for each in endpoints(world)) == [8080, 9090]

    tell(story)


def test_endpoints_that_somebody_wrote_are_mirrored() -> None:
    async def story(world: World) -> None:
        await world.create(SERVICES, service(selector={}))
        subset = {"addresses": [{"ip": "10.1.2.3"}, {"ip": "fd00::1"}], "ports": [{"name": "x", "port": 80}]}
        await world.create(ENDPOINTS, {"metadata": {"name": "web"}, "subsets": [subset]})
        await world.settle()
        assert sorted(each["addressType"] for each in slices(world)) == ["IPv4", "IPv6"]
        first = next(each for each in slices(world) if each["addressType"] == "IPv4")
        assert first["endpoints"] == [{"addresses": ["10.1.2.3"], "conditions": {"ready": True}}]

        def change(latest: Object) -> None:
            latest["subsets"][0]["addresses"] = [{"ip": "10.1.2.4"}]

        await world.api.edit(AGENT, ENDPOINTS, "default", "web", change)
        await world.settle()
        assert [each["endpoints"][0]["addresses"] for each in slices(world)] == [["10.1.2.4"]]
        await world.api.delete(AGENT, ENDPOINTS, "default", "web")
        await world.settle()
        assert slices(world) == []

    tell(story)


@pytest.mark.parametrize(("target", "number"), [(1234, 1234), ("http", 8080), ("nope", None)])
def test_a_target_port_is_a_number_or_a_name(target: Any, number: int | None) -> None:
    assert find_port(web("a"), {"port": 80, "targetPort": target, "protocol": "TCP"}) == number


def test_a_change_of_one_endpoint_leaves_other_slices_as_they_are() -> None:
    members = [Backend(str(number), {}) for number in range(2 * SLICE_MAX + 50)]
    first = spread(members, [])
    assert [len(each) for each in first] == [SLICE_MAX, SLICE_MAX, 50]
    keys = [[backend.key for backend in each] for each in first]
    after = spread([*members[1:], Backend("new", {})], keys)
    assert [len(each) for each in after] == [SLICE_MAX, SLICE_MAX, 50]
    assert after[1] == first[1]
