"""Addresses and ports of Services: given, kept over updates, and never given twice."""

from typing import Any

from walras.kube import services

Object = dict[str, Any]


def service(uid: str = "u", ports: tuple[Object, ...] = ({"port": 80},), **spec: Any) -> Object:
    made: Object = {"type": "ClusterIP", "ports": [dict(port) for port in ports], **spec}
    return {"metadata": {"name": "s", "namespace": "default", "uid": uid}, "spec": made, "status": {}}


def allocated(new: Object, *others: Object, old: Object | None = None) -> list[str]:
    if old is None:
        services.match(new)
    else:
        services.carry(old, new)
    return [f"{cause.field}: {cause.message}" for cause in services.allocate(new, old, others)]


def test_each_gets_an_address_of_its_own_and_the_families_that_follow() -> None:
    taken: list[Object] = []
    for number in range(300):
        new = service(f"u{number}")
        assert allocated(new, *taken) == []
        taken.append(new)
    addresses = {each["spec"]["clusterIP"] for each in taken}
    assert len(addresses) == 300
    spec = taken[0]["spec"]
    assert spec["clusterIPs"] == [spec["clusterIP"]] and spec["ipFamilies"] == ["IPv4"]
    assert spec["ipFamilyPolicy"] == "SingleStack"


def test_an_address_that_is_taken_or_out_of_range_is_refused() -> None:
    first = service(clusterIP="10.0.3.4")
    assert allocated(first) == []
    assert first["spec"]["clusterIPs"] == ["10.0.3.4"]
    (taken,) = allocated(service("v", clusterIP="10.0.3.4"), first)
    assert taken.startswith("spec.clusterIPs") and "provided IP is already allocated" in taken
    (outside,) = allocated(service("v", clusterIP="192.168.0.1"))
    assert "the provided network does not match the current range" in outside


def test_headless_services_and_names_of_elsewhere_get_none() -> None:
    headless = service(clusterIP="None")
    assert allocated(headless) == [] and headless["spec"]["clusterIPs"] == ["None"]
    elsewhere = service(type="ExternalName", externalName="example.com")
    assert allocated(elsewhere) == [] and "clusterIP" not in elsewhere["spec"]


def test_node_ports_are_given_and_never_twice() -> None:
    first = service(type="NodePort", ports=({"port": 80, "nodePort": 30080}, {"port": 81, "name": "b"}))
    assert allocated(first) == []
    given = [port["nodePort"] for port in first["spec"]["ports"]]
    assert given[0] == 30080 and given[1] in services.NODE_PORTS and given[1] != 30080
    (taken,) = allocated(service("v", type="NodePort", ports=({"port": 1, "nodePort": 30080},)), first)
    assert taken == ("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated")


def test_a_port_without_a_number_is_given_a_node_port_before_it_is_refused() -> None:
    for asked in ({}, {"nodePort": 30080}):
        first = service(type="NodePort", ports=(asked, {"port": 81, "name": "b"}))
        assert allocated(first) == []
        assert all(port["nodePort"] in services.NODE_PORTS for port in first["spec"]["ports"])


def test_an_update_that_says_nothing_of_them_keeps_what_was_given() -> None:
    old = service(type="NodePort")
    assert allocated(old) == []
    new = service(type="NodePort")
    assert allocated(new, old=old) == []
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ports"):
        assert new["spec"][field] == old["spec"][field]


def test_what_belongs_to_a_type_goes_with_it() -> None:
    old = service(type="NodePort")
    assert allocated(old) == []
    plain = service()
    plain["spec"]["ports"] = [dict(port) for port in old["spec"]["ports"]]
    assert allocated(plain, old=old) == []
    assert "nodePort" not in plain["spec"]["ports"][0]
    elsewhere = {**service(), "spec": {**old["spec"], "type": "ExternalName", "externalName": "example.com"}}
    assert allocated(elsewhere, old=old) == []
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & elsewhere["spec"].keys()


def test_ports_of_one_number_share_a_node_port_whatever_their_protocol() -> None:
    dns = ({"port": 53, "name": "t"}, {"port": 53, "name": "u", "protocol": "UDP"})
    both = service(type="NodePort", ports=dns)
    assert allocated(both) == []
    first, second = both["spec"]["ports"]
    assert first["nodePort"] == second["nodePort"]
    said = service("v", type="NodePort", ports=(dns[0], {**dns[1], "nodePort": 30053}))
    assert allocated(said, both) == []
    assert [port["nodePort"] for port in said["spec"]["ports"]] == [30053, 30053]
    other = ({"port": 1, "name": "a", "nodePort": 30001}, {"port": 2, "name": "b", "nodePort": 30001})
    (twice,) = allocated(service("w", type="NodePort", ports=other))
    assert twice.startswith("spec.ports[1].nodePort") and "already allocated" in twice
