"""What Services are given: cluster addresses, node ports, and the fields that follow from their type.

As pkg/registry/core/service of k8s.io/kubernetes for a cluster of one address family. What is free is seen
from the cluster's Services at that moment; nothing is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from walras.core.errors import Cause, InternalError
from walras.kube.record import Object

RANGE: Final = IPv4Network("10.0.0.0/16")
NODE_PORTS: Final = range(30000, 32768)
_NONE: Final = "None"


def carry(old: Object, service: Object) -> None:
    """Brings into an update, in place, what it left out and is to stay, and drops what goes with a type."""
    _match(service["spec"], old.get("spec") or {})
    _carry_over(service["spec"], old.get("spec") or {})
    _drop(service, old)


def match(service: Object) -> None:
    """Makes the list of addresses of a new Service, in place, where it names only one."""
    _match(service["spec"], {})


def _match(new: Object, old: Object) -> None:
    """Keeps clusterIP the first of clusterIPs, whichever of the two a client writes."""
    one, many = new.get("clusterIP") or "", list(new.get("clusterIPs") or ())
    if one and not many:
        new["clusterIPs"] = [one]
    elif one != (old.get("clusterIP") or "") and many == list(old.get("clusterIPs") or ()) and many:
        new["clusterIPs"] = [one, *many[1:]] if one else []
        if not one:
            del new["clusterIPs"]
    elif many != list(old.get("clusterIPs") or ()) and one == (old.get("clusterIP") or "") and old:
        new["clusterIP"] = many[0] if many else ""


def allocate(service: Object, old: Object | None, others: Iterable[Object]) -> list[Cause]:
    """Fills in place what is allocated, given every other Service of the cluster; says what cannot be had."""
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return []
    faults = _families(service)
    if faults:
        return faults
    others = list(others)
    seed = str(service["metadata"].get("uid", ""))
    return [*_address(spec, old, others, seed), *_ports(spec, old, others, seed)]


def _carry_over(new: Object, old: Object) -> None:
    """What an update leaves out of the old allocations, it keeps."""
    if new.get("type") != "ExternalName" and old.get("type") != "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilyPolicy"):
            if not new.get(name) and old.get(name):
                new[name] = old[name]
    if _has_ports(new) and _has_ports(old):
        known = {port.get("name", ""): port.get("nodePort") for port in old.get("ports") or ()}
        used = set(_node_ports(old)) & set(_node_ports(new))
        for port in new.get("ports") or ():
            before = known.get(port.get("name", ""))
            if not port.get("nodePort") and before and before not in used:
                port["nodePort"] = before
    if _has_check(new) and _has_check(old) and not new.get("healthCheckNodePort"):
        new["healthCheckNodePort"] = old.get("healthCheckNodePort")


def _drop(service: Object, old_service: Object) -> None:
    """What belongs to the type that a Service had, and was not said anew, goes with it."""
    new, old = service["spec"], old_service.get("spec") or {}
    if old.get("type") != "ExternalName" and new.get("type") == "ExternalName":
        for names in (("clusterIP", "clusterIPs"), ("ipFamilies",), ("ipFamilyPolicy",)):
            if all(new.get(name) == old.get(name) for name in names):
                for name in names:
                    new.pop(name, None)
    if _has_ports(old) and not _has_ports(new) and set(_node_ports(old)) >= set(_node_ports(new)):
        for port in new.get("ports") or ():
            port.pop("nodePort", None)
    if _has_check(old) and not _has_check(new):
        _drop_same(new, old, "healthCheckNodePort")
    if old.get("type") == "LoadBalancer" and new.get("type") != "LoadBalancer":
        _drop_same(new, old, "allocateLoadBalancerNodePorts")
        _drop_same(new, old, "loadBalancerClass")
    if _is_external(old) and not _is_external(new):
        _drop_same(new, old, "externalTrafficPolicy")
    if new.get("type") == "ExternalName":
        _drop_same(new, old, "internalTrafficPolicy")
    if new.get("type") != "LoadBalancer" and service.get("status"):
        service["status"] = {**service["status"], "loadBalancer": {}}


def _drop_same(new: Object, old: Object, name: str) -> None:
    if new.get(name) == old.get(name):
        new.pop(name, None)


def _has_ports(spec: Object) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def _has_check(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _is_external(spec: Object) -> bool:
    return _has_ports(spec) or (spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs")))


def _node_ports(spec: Object) -> Iterator[int]:
    return (port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort"))


def _families(service: Object) -> list[Cause]:
    """Policy and families of addresses; headless Services without a selector have both families."""
    spec = service["spec"]
    bare = spec.get("clusterIP") == _NONE and not spec.get("selector")
    policy = spec.setdefault("ipFamilyPolicy", "RequireDualStack" if bare else "SingleStack")
    families = spec.get("ipFamilies") or []
    faults: list[Cause] = []
    if not bare:
        if policy == "RequireDualStack":
            said = "this cluster is not configured for dual-stack services"
            faults.append(_invalid("spec.ipFamilyPolicy", policy, said))
        faults += [
            _invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
            for index, family in enumerate(families)
            if family == "IPv6"
        ]
    if not faults:
        spec["ipFamilies"] = families or ["IPv4"]
        if bare and policy != "SingleStack" and len(spec["ipFamilies"]) < 2:
            spec["ipFamilies"] = [*spec["ipFamilies"], "IPv6" if spec["ipFamilies"] == ["IPv4"] else "IPv4"]
    return faults


def _address(spec: Object, old: Object | None, others: list[Object], seed: str) -> list[Cause]:
    wanted = spec.get("clusterIP") or ""
    if wanted == _NONE:
        spec["clusterIPs"] = [_NONE]
        return []
    had = ((old or {}).get("spec") or {}).get("clusterIP")
    taken = {(each.get("spec") or {}).get("clusterIP") for each in others}
    if not wanted:
        wanted = _free_address(seed, taken)
    elif wanted != had:
        if IPv4Address(wanted) not in RANGE:
            said = "the provided network does not match the current range"
            return [_invalid("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {said}")]
        if wanted in taken:
            said = f"failed to allocate IP {wanted}: provided IP is already allocated"
            return [_invalid("spec.clusterIPs", [wanted], said)]
    spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]
    return []


def _free_address(seed: str, taken: set[Any]) -> str:
    """The first free address from where the seed points; the range's ends and its first host stay out."""
    hosts = RANGE.num_addresses - 3
    start = _number(seed) % hosts
    for step in range(hosts):
        address = str(RANGE[2 + (start + step) % hosts])
        if address not in taken:
            return address
    raise InternalError("failed to allocate a serviceIP: range is full")


def _ports(spec: Object, old: Object | None, others: list[Object], seed: str) -> list[Cause]:
    if not _has_ports(spec):
        return []
    ports: list[Object] = spec.get("ports") or []
    taken = {port for each in others for port in _used(each.get("spec") or {})}
    asked = set(_node_ports(spec))
    mine = set(_used((old or {}).get("spec") or {}))
    given: dict[int, int] = {}
    free = spec["type"] == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
    faults: list[Cause] = []
    for index, port in enumerate(ports):
        wanted, number = port.get("nodePort") or 0, port.get("port") or 0
        if not wanted and not free:
            continue
        if old is None:
            # Ports of one number, of several protocols, share what is asked for or given.
            wanted = wanted or given.get(number, 0) or _asked_for(ports, number)
        if not wanted:
            wanted = _free_port(f"{seed}/{index}", taken | mine | asked)
        elif wanted not in mine or (old is None and given.get(number) != wanted):
            faults += _port_faults(f"spec.ports[{index}].nodePort", wanted, taken | mine)
        port["nodePort"] = wanted
        given.setdefault(number, wanted)
        mine.add(wanted)
    if not faults and _has_check(spec) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = _free_port(f"{seed}/health", taken | mine)
    return faults


def _asked_for(ports: list[Object], number: int) -> int:
    same = (each for each in ports if (each.get("port") or 0) == number)
    return next((each["nodePort"] for each in same if each.get("nodePort")), 0)


def _used(spec: Object) -> Iterator[int]:
    yield from _node_ports(spec)
    if spec.get("healthCheckNodePort"):
        yield spec["healthCheckNodePort"]


def _port_faults(path: str, wanted: int, taken: set[int]) -> list[Cause]:
    if wanted not in NODE_PORTS:
        said = "provided port is not in the valid range. The range of valid ports is "
        return [_invalid(path, wanted, f"{said}{NODE_PORTS[0]}-{NODE_PORTS[-1]}")]
    return [_invalid(path, wanted, "provided port is already allocated")] if wanted in taken else []


def _free_port(seed: str, taken: set[int]) -> int:
    start = _number(seed) % len(NODE_PORTS)
    for step in range(len(NODE_PORTS)):
        port = NODE_PORTS[(start + step) % len(NODE_PORTS)]
        if port not in taken:
            return port
    raise InternalError("failed to allocate a nodePort: range is full")


def _number(seed: str) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])


def _invalid(path: str, value: Any, detail: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {detail}", path)
