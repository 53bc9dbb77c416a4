"""Which devices a claim gets: selectors, counts, alternatives, constraints, taints, capacity, counters."""

from fractions import Fraction
from typing import Any

import pytest
from support.devices import DRIVER, claim, device, device_class, device_slice, exactly, request

from walras.core.errors import Invalid
from walras.tenants.claims import asks
from walras.tenants.claims.effort import Effort
from walras.tenants.claims.pools import DeviceId, Pools
from walras.tenants.claims.result import allocation, taken_by
from walras.tenants.claims.search import Search, Taken
from walras.tenants.fit import Node

Object = dict[str, Any]

NODE = Node("n", {"zone": "a"}, (), {}, ())
CLASS = device_class("gpu", f"device.driver == '{DRIVER}'", config=[{"opaque": {"driver": DRIVER}}])


def asked(found: Object, *classes: Object) -> asks.Asked:
    known = {each["metadata"]["name"]: each for each in (CLASS, *classes)}
    return asks.read(found, known.get)


def search(
    slices: list[Object],
    *claims: Object,
    classes: tuple[Object, ...] = (),
    taken: Taken | None = None,
    effort: Effort | None = None,
    node: Node = NODE,
) -> list[list[str]] | None:
    """The devices of each claim."""
    every = [asked(each, *classes) for each in claims]
    found = Search(every, Pools(slices).on(node), taken or Taken(), effort or Effort()).run()
    return None if found is None else [[pick.device.id.name for pick in picks] for picks in found]


def gpus(*names: str, **said: Any) -> list[Object]:
    return [device_slice("n", *(device(name, **said) for name in names))]


def attribute(name: str) -> str:
    return f"device.attributes['{DRIVER}'].{name}"


def test_requests_take_devices_in_their_order_and_none_twice() -> None:
    assert search(gpus("a", "b", "c"), claim("x", request("one", count=2), request("two"))) == [
        ["a", "b", "c"]
    ]
    assert search(gpus("a", "b"), claim("x", request(count=2)), claim("y", request())) is None
    held = Taken({DeviceId(DRIVER, "n", "a")})
    assert search(gpus("a", "b"), claim("x", request()), taken=held) == [["b"]]


def test_selectors_see_driver_attributes_versions_and_capacity() -> None:
    slices = [
        device_slice(
            "n",
            device("old", attributes={"cc": {"version": "7.5.0"}}, capacity={"memory": "16Gi"}),
            device("new", attributes={"cc": {"version": "9.0.0"}}, capacity={"memory": "80Gi"}),
        )
    ]
    for expression in (
        f"{attribute('cc')}.isGreaterThan(semver('8.0.0'))",
        f"device.capacity['{DRIVER}'].memory.compareTo(quantity('40Gi')) >= 0",
        "!('x' in device.attributes['other.com']) && device.capacity"
        f"['{DRIVER}'].memory.isGreaterThan(quantity('20Gi'))",
    ):
        assert search(slices, claim("x", request("gpu", expression))) == [["new"]], expression


def test_a_selector_that_fails_says_whose_it_is_and_why() -> None:
    with pytest.raises(Invalid, match=r"claim default/x: selector #0: CEL runtime error: no such key: model"):
        search(gpus("a"), claim("x", request("gpu", f"{attribute('model')} == 'x'")))
    with pytest.raises(Invalid, match=r"class odd: selector #0: CEL compile error"):
        search(gpus("a"), claim("x", request(deviceClassName="odd")), classes=(device_class("odd", "((("),))
    with pytest.raises(Invalid, match="yields no bool"):
        search(gpus("a"), claim("x", request("gpu", "device.driver")))
    with pytest.raises(Invalid, match="longer than 10240"):
        search(gpus("a"), claim("x", request("gpu", "true || " * 2000 + "true")))


def test_a_class_that_is_not_there_is_named() -> None:
    with pytest.raises(Invalid, match="request gpu: device class none does not exist"):
        search(gpus("a"), claim("x", request(deviceClassName="none")))


def test_all_takes_every_device_that_is_selected_or_nothing() -> None:
    everything = claim("x", request(allocationMode="All"))
    assert search(gpus("a", "b"), everything) == [["a", "b"]]
    assert search(gpus("a", "b"), everything, taken=Taken({DeviceId(DRIVER, "n", "b")})) is None
    assert search([], everything) is None
    half = [device_slice("n", device("a"))]
    half[0]["spec"]["pool"]["resourceSliceCount"] = 2
    with pytest.raises(Invalid, match="currently being updated"):
        search(half, everything)
    assert search(half, claim("x", request())) is None


def test_the_first_alternative_that_can_be_had_is_taken() -> None:
    either: Object = {
        "name": "gpu",
        "firstAvailable": [
            {"name": "two", **exactly(count=2)},
            {"name": "one", **exactly()},
        ],
    }
    every = Search([asked(claim("x", either))], Pools(gpus("a")).on(NODE), Taken(), Effort()).run()
    assert every is not None
    assert [(pick.ask.name, pick.device.id.name) for pick in every[0]] == [("gpu/one", "a")]
    assert search(gpus("a", "b"), claim("x", either)) == [["a", "b"]]
    assert search(gpus("a", "b"), claim("x", either, request("other"))) == [["a", "b"]]


def test_constraints_hold_over_the_requests_that_they_name() -> None:
    slices = [
        device_slice(
            "n",
            device("a", attributes={"numa": 0}),
            device("b", attributes={"numa": 1}),
            device("c", attributes={"numa": 1}),
            device("d"),
        )
    ]
    same = {"matchAttribute": f"{DRIVER}/numa"}
    other = {"distinctAttribute": f"{DRIVER}/numa"}
    assert search(slices, claim("x", request(count=2), constraints=[same])) == [["b", "c"]]
    assert search(slices, claim("x", request(count=2), constraints=[other])) == [["a", "b"]]
    assert search(slices, claim("x", request(count=3), constraints=[same])) is None
    # An attribute that a device lacks is like no other.
    assert search(slices, claim("x", request(count=4))) == [["a", "b", "c", "d"]]
    named = [{**same, "requests": ["one", "two"]}]
    picked = search(slices, claim("x", request("one"), request("free"), request("two"), constraints=named))
    assert picked == [["b", "a", "c"]]


def test_a_tainted_device_is_for_who_tolerates_it() -> None:
    slices = gpus("a", taints=[{"key": "sick", "value": "yes", "effect": "NoSchedule"}])
    assert search(slices, claim("x", request())) is None
    for toleration in (
        {"key": "sick", "operator": "Exists"},
        {"key": "sick", "operator": "Equal", "value": "yes"},
        {"operator": "Exists"},
    ):
        assert search(slices, claim("x", request(tolerations=[toleration]))) == [["a"]]
    wrong = {"key": "sick", "operator": "Equal", "value": "no"}
    assert search(slices, claim("x", request(tolerations=[wrong]))) is None
    informed = gpus("a", taints=[{"key": "sick", "effect": "None"}])
    assert search(informed, claim("x", request())) == [["a"]]


def test_administrators_see_devices_that_others_have_and_take_none() -> None:
    held = Taken({DeviceId(DRIVER, "n", "a")})
    look = claim("x", request("look", adminAccess=True))
    assert search(gpus("a"), look, taken=held) == [["a"]]
    assert search(gpus("a"), look, claim("y", request())) == [["a"], ["a"]]
    assert search(gpus("a"), claim("x", request(adminAccess=True, count=2))) is None


def test_a_shared_device_gives_parts_until_it_has_no_more() -> None:
    memory = {
        "value": "16Gi",
        "requestPolicy": {"default": "16Gi", "validRange": {"min": "1Gi", "step": "1Gi"}},
    }
    slices = gpus("a", allowMultipleAllocations=True, capacity={"memory": memory})

    def part(name: str, amount: str) -> Object:
        return claim(name, request(capacity={"requests": {"memory": amount}}))

    assert search(slices, part("x", "6Gi"), part("y", "10Gi")) == [["a"], ["a"]]
    assert search(slices, part("x", "6Gi"), part("y", "11Gi")) is None
    # Amounts are rounded up to the next step: 1.5Gi is 2Gi.
    assert search(slices, part("x", "1536Mi"), part("y", "14Gi")) == [["a"], ["a"]]
    assert search(slices, part("x", "1536Mi"), part("y", "14592Mi")) is None
    # Who asks for nothing takes the default, here all of it.
    assert search(slices, claim("x", request()), part("y", "1Gi")) is None
    assert search(slices, claim("x", request(capacity={"requests": {"cores": "1"}}))) is None
    held = Taken()
    held.add(DeviceId(DRIVER, "n", "a"), {"memory": Fraction(10 * 2**30)})
    assert search(slices, part("x", "7Gi"), taken=held) is None
    assert search(slices, part("x", "6Gi"), taken=held) == [["a"]]


def test_a_device_that_is_not_shared_has_to_have_what_is_asked_of_it() -> None:
    slices = [
        device_slice("n", device("a", capacity={"memory": "8Gi"}), device("b", capacity={"memory": "16Gi"}))
    ]
    assert search(slices, claim("x", request(capacity={"requests": {"memory": "10Gi"}}))) == [["b"]]


def test_partitions_draw_on_the_counters_of_their_pool() -> None:
    def part(name: str, slices: int) -> Object:
        draws = [{"counterSet": "gpu", "counters": {"slices": {"value": str(slices)}}}]
        return device(name, consumesCounters=draws)

    pool = {"name": "n", "generation": 1, "resourceSliceCount": 2}
    counters = {"name": "gpu", "counters": {"slices": {"value": "7"}}}
    slices = [
        device_slice("n", part("whole", 7), part("big", 4), part("half", 3), part("small", 1), pool=pool),
        {"metadata": {"name": "counters"}, "spec": {"driver": DRIVER, "pool": pool, "nodeName": "n",
                                                    "sharedCounters": [counters]}},
    ]  # fmt: skip
    assert search(slices, claim("x", request(count=2))) == [["big", "half"]]
    assert search(slices, claim("x", request(count=3))) is None
    held = Taken({DeviceId(DRIVER, "n", "half")})
    assert search(slices, claim("x", request()), taken=held) == [["big"]]
    assert search(slices, claim("x", request(count=2)), taken=held) is None


def test_only_the_newest_generation_of_a_pool_counts() -> None:
    old, new = device_slice("n", device("old")), device_slice("n", device("new"))
    new["spec"]["pool"]["generation"] = 2
    new["metadata"]["name"] = "newer"
    assert search([old, new], claim("x", request())) == [["new"]]
    twice = [device_slice("n", device("a"), device("a"))]
    assert search(twice, claim("x", request())) is None


def test_devices_are_for_the_nodes_that_their_slices_name() -> None:
    assert search([device_slice("other", device("a"))], claim("x", request())) is None
    zone = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    shared = device_slice("pool", device("net"), nodeName="", nodeSelector={"nodeSelectorTerms": [zone]})
    assert search([shared], claim("x", request())) == [["net"]]
    assert search([shared], claim("x", request()), node=Node("n", {"zone": "b"}, (), {}, ())) is None
    each = device_slice(
        "pool",
        device("here", nodeName="n"),
        device("there", nodeName="m"),
        device("anywhere", allNodes=True),
        nodeName="",
        perDeviceNodeSelection=True,
    )
    assert search([each], claim("x", request(allocationMode="All"))) == [["here", "anywhere"]]


def test_an_allocation_says_what_was_given_with_what_configuration_and_where() -> None:
    own = {"requests": ["gpu"], "opaque": {"driver": DRIVER, "parameters": {"fast": True}}}
    unused = {"requests": ["gpu/other"], "opaque": {"driver": DRIVER}}
    tolerations = [{"key": "sick", "operator": "Exists"}]
    found = asked(claim("x", request(tolerations=tolerations, count=2), config=[own, unused]))
    picked = Search([found], Pools(gpus("a", "b")).on(NODE), Taken(), Effort()).run()
    assert picked is not None
    said = allocation(found, picked[0], "n", iter(("1", "2")).__next__)
    assert [each["device"] for each in said["devices"]["results"]] == ["a", "b"]
    assert said["devices"]["results"][0]["tolerations"] == tolerations
    assert said["devices"]["config"] == [
        {"source": "FromClass", "requests": ["gpu"], "opaque": {"driver": DRIVER}},
        {"source": "FromClaim", **own},
    ]


def test_a_share_says_what_it_consumes_and_is_counted_by_that() -> None:
    memory = {"value": "16Gi", "requestPolicy": {"default": "16Gi", "validRange": {"min": "1Gi"}}}
    slices = gpus("a", allowMultipleAllocations=True, capacity={"memory": memory})
    found = asked(claim("x", request(capacity={"requests": {"memory": "512Mi"}})))
    picked = Search([found], Pools(slices).on(NODE), Taken(), Effort()).run()
    assert picked is not None
    said = allocation(found, picked[0], "n", lambda: "share-1")
    (result,) = said["devices"]["results"]
    assert (result["shareID"], result["consumedCapacity"]) == ("share-1", {"memory": "1Gi"})
    taken = taken_by([{"status": {"allocation": said}}])
    assert taken.parts == {DeviceId(DRIVER, "n", "a"): {"memory": Fraction(2**30)}}


def test_devices_that_no_node_holds_alone_keep_the_nodes_that_reach_them() -> None:
    zone = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    shared = device_slice("pool", device("net"), nodeName="", nodeSelector={"nodeSelectorTerms": [zone]})
    found = asked(claim("x", request()))
    picked = Search([found], Pools([shared]).on(NODE), Taken(), Effort()).run()
    assert picked is not None
    assert allocation(found, picked[0], "n", str)["nodeSelector"] == {"nodeSelectorTerms": [zone]}


def test_a_search_that_leads_nowhere_is_given_up() -> None:
    named = [{"distinctAttribute": f"{DRIVER}/numa"}]
    slices = [device_slice("n", *(device(f"d{at}", attributes={"numa": at % 7}) for at in range(64)))]
    effort = Effort(5_000)
    with pytest.raises(Invalid, match="was given up after 5000 steps"):
        search(slices, claim("x", request(count=8), constraints=named), effort=effort)
    assert effort.spent < 6_000


def test_more_requests_than_a_pod_may_have_are_refused_before_any_search() -> None:
    many = [claim(f"c{at}", *(request(f"r{each}") for each in range(32))) for at in range(8)]
    slices = [device_slice("n", *(device(f"d{at}") for at in range(128)))]
    with pytest.raises(Invalid, match="at most 128 requests"):
        search(slices, *many)
    too_many = claim("x", *(request(f"r{at}") for at in range(33)))
    with pytest.raises(Invalid, match="number of requested devices 33 exceeds the claim limit of 32"):
        search(slices, too_many)
    assert search(slices, *many[:4]) is not None


def test_an_expression_that_costs_too_much_stops_the_search_and_not_the_server() -> None:
    items = ",".join(str(at) for at in range(200))
    costly = f"[{items}].all(a, [{items}].all(b, [{items}].all(c, a + b + c >= 0)))"
    with pytest.raises(Invalid, match=r"CEL runtime error: .*cost|given up"):
        search(gpus("a", "b"), claim("x", request("gpu", costly)))


def test_all_devices_that_break_a_constraint_are_an_error_that_says_so() -> None:
    slices = [device_slice("n", device("a", attributes={"numa": 0}), device("b", attributes={"numa": 1}))]
    same = {"matchAttribute": f"{DRIVER}/numa"}
    with pytest.raises(Invalid, match=f"cannot add device {DRIVER}/n/b because a claim constraint"):
        search(slices, claim("x", request(allocationMode="All"), constraints=[same]))


def test_selectors_are_asked_of_devices_in_their_order_and_no_further_than_needed() -> None:
    slices = [device_slice("n", device("a", attributes={"zone": 1}), device("b"))]
    asked = request("gpu", f"{attribute('zone')} == 1")
    assert search(slices, claim("x", asked)) == [["a"]]
    with pytest.raises(Invalid, match="no such key: zone"):
        search(slices, claim("x", asked), taken=Taken({DeviceId(DRIVER, "n", "a")}))


def test_what_all_devices_are_is_asked_before_any_is_picked() -> None:
    slices = [device_slice("n", device("a", attributes={"zone": 1}), device("b"))]
    either: Object = {
        "name": "gpu",
        "firstAvailable": [
            {"name": "one", **exactly()},
            {"name": "all", **exactly(f"{attribute('zone')} == 1", allocationMode="All")},
        ],
    }
    with pytest.raises(Invalid, match="no such key: zone"):
        search(slices, claim("x", either))
