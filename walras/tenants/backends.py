"""The pods behind a Service as Endpoints and EndpointSlices tell of them. Pure.

Follows k8s.io/endpointslice and Kubernetes' endpoints controller.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from walras.tenants.objects import Object, deleting, finished, is_true, labels, status, uid

ENDPOINTS_MAX: Final = 1000
SLICE_MAX: Final = 100
IPV4, IPV6 = "IPv4", "IPv6"
_ZONE: Final = "topology.kubernetes.io/zone"

Port = tuple[str, int, str, str]
"""Name, number, protocol and application protocol."""


class Group(NamedTuple):
    """What one slice may hold together: endpoints of one kind of address that listen on the same ports."""

    address_type: str
    ports: tuple[Port, ...]


class Backend(NamedTuple):
    """One endpoint as a slice has it; `key` tells it from others."""

    key: str
    endpoint: Object


def selects(service: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    wanted = service["spec"].get("selector") or {}
    return bool(wanted) and wanted.items() <= labels(pod).items()


def find_port(pod: Mapping[str, Any], port: Mapping[str, Any]) -> int | None:
    """The number of the pod's port that the Service's port leads to; None where it has none."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, int):
        return target
    spec = pod["spec"]
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for each in container.get("ports") or ():
            if (each.get("name"), each.get("protocol", "TCP")) == (target, port.get("protocol", "TCP")):
                return int(each["containerPort"])
    return None


def ports_of(service: Mapping[str, Any], pod: Mapping[str, Any]) -> tuple[Port, ...]:
    found = []
    for port in service["spec"].get("ports") or ():
        number = find_port(pod, port)
        if number is not None:
            found.append(
                (port.get("name", ""), number, port.get("protocol", "TCP"), port.get("appProtocol", ""))
            )
    return tuple(found)


def addresses_of(pod: Mapping[str, Any], address_type: str) -> list[str]:
    listed = [str(each.get("ip", "")) for each in status(pod).get("podIPs") or ()]
    if not listed and status(pod).get("podIP"):
        listed = [str(status(pod)["podIP"])]
    return [each for each in listed if type_of(each) == address_type]


def type_of(address: str) -> str:
    """IPV4, IPV6, or nothing for what is no address."""
    try:
        return IPV6 if ipaddress.ip_address(address).version == 6 else IPV4
    except ValueError:
        return ""


def _hostname(service: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    """Its name in the Service's domain, where it has asked for one."""
    spec = pod["spec"]
    return str(spec.get("hostname") or "") if spec.get("subdomain") == service["metadata"]["name"] else ""


def _target(pod: Object) -> Object:
    metadata = pod["metadata"]
    return {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": uid(pod)}


def _endpoint(service: Object, pod: Object, addresses: list[str], zone: str) -> Object:
    serving = is_true(pod, "Ready")
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not deleting(pod))
    optional = {"nodeName": pod["spec"].get("nodeName"), "zone": zone, "hostname": _hostname(service, pod)}
    return {
        "addresses": addresses,
        "conditions": {"ready": ready, "serving": serving, "terminating": deleting(pod)},
        "targetRef": _target(pod),
        **{name: value for name, value in optional.items() if value},
    }


def groups(
    service: Object, pods: Iterable[Object], node: Callable[[str], Object | None]
) -> dict[Group, list[Backend]]:
    """What the Service's slices have to hold; with nothing behind it one empty group for each family."""
    families = service["spec"].get("ipFamilies") or (IPV4,)
    found: dict[Group, list[Backend]] = {}
    for pod in pods:
        if finished(pod):
            continue
        for family in families:
            addresses = addresses_of(pod, family)
            if not addresses:
                continue
            placed = node(pod["spec"].get("nodeName") or "")
            zone = labels(placed).get(_ZONE, "") if placed is not None else ""
            group = Group(family, ports_of(service, pod))
            found.setdefault(group, []).append(Backend(uid(pod), _endpoint(service, pod, addresses, zone)))
    for family in families:
        if not any(group.address_type == family for group in found):
            found[Group(family, ())] = []
    return found


def mirrored(endpoints: Object) -> dict[Group, list[Backend]]:
    """What the slices have to hold that say the same as an Endpoints object that somebody wrote."""
    found: dict[Group, list[Backend]] = {}
    for subset in endpoints.get("subsets") or ():
        ports = tuple(
            (port.get("name", ""), port["port"], port.get("protocol", "TCP"), port.get("appProtocol", ""))
            for port in subset.get("ports") or ()
        )
        left = ENDPOINTS_MAX
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in (subset.get(field) or ())[:left]:
                left -= 1
                group = Group(type_of(str(address.get("ip"))), ports)
                kept = {
                    name: address[name] for name in ("hostname", "nodeName", "targetRef") if name in address
                }
                endpoint: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}, **kept}
                if group.address_type:
                    found.setdefault(group, []).append(Backend(str(address["ip"]), endpoint))
    return found


def slice_ports(ports: Sequence[Port]) -> list[Object]:
    return [
        {"name": name, "port": number, "protocol": protocol, **({"appProtocol": app} if app else {})}
        for name, number, protocol, app in ports
    ]


def spread(backends: Sequence[Backend], present: Sequence[Sequence[str]]) -> list[list[Backend]]:
    """The endpoints of one group over slices: first those that are there, each with its keys, then new ones.

    What is in a slice stays in it, so that a change of one pod rewrites one slice. A list may be empty: that
    slice is not needed.
    """
    left = {backend.key: backend for backend in backends}
    slices = [[left.pop(key) for key in keys if key in left] for keys in present]
    rest = list(left.values())
    for each in sorted(slices, key=len, reverse=True):
        if each and rest:
            take = SLICE_MAX - len(each)
            each.extend(rest[:take])
            rest = rest[take:]
    while rest:
        empty = next((each for each in slices if not each), None)
        if empty is None:
            slices.append(empty := [])
        empty.extend(rest[:SLICE_MAX])
        rest = rest[SLICE_MAX:]
    return slices


def subsets(service: Object, pods: Iterable[Object]) -> tuple[list[Object], bool]:
    """The subsets of the Service's Endpoints, and whether some had to be left out.

    Ports that the same pods have are together, as RepackSubsets has it.
    """
    unready = bool(service["spec"].get("publishNotReadyAddresses"))
    families = service["spec"].get("ipFamilies") or (IPV4,)
    by_port: dict[Port | None, dict[str, tuple[Object, bool]]] = {}
    count, over = 0, False
    ordered = sorted(pods, key=lambda pod: not is_true(pod, "Ready"))
    for pod in ordered:
        if finished(pod) or (deleting(pod) and not unready) or not addresses_of(pod, families[0]):
            continue
        ports: Sequence[Port | None] = ports_of(service, pod)
        if not service["spec"].get("ports") and service["spec"].get("clusterIP") == "None":
            ports = (None,)
        if ports and count >= ENDPOINTS_MAX:
            over = True
            continue
        count += bool(ports)
        address = _address(service, pod, addresses_of(pod, families[0])[0])
        for port in ports:
            by_port.setdefault(port, {})[uid(pod)] = (address, unready or is_true(pod, "Ready"))
    return _packed(by_port), over


def _address(service: Object, pod: Object, ip: str) -> Object:
    optional = {"hostname": _hostname(service, pod), "nodeName": pod["spec"].get("nodeName")}
    return {
        "ip": ip,
        **{name: value for name, value in optional.items() if value},
        "targetRef": _target(pod),
    }


def _packed(by_port: Mapping[Port | None, Mapping[str, tuple[Object, bool]]]) -> list[Object]:
    together: dict[tuple[tuple[str, bool], ...], list[Port]] = {}
    members: dict[tuple[tuple[str, bool], ...], Mapping[str, tuple[Object, bool]]] = {}
    for port, found in by_port.items():
        key = tuple(sorted((pod_uid, ready) for pod_uid, (_, ready) in found.items()))
        members[key] = found
        together.setdefault(key, []).extend([port] if port is not None else [])
    made = []
    for key, ports in together.items():
        subset: Object = {}
        for field, wanted in (("addresses", True), ("notReadyAddresses", False)):
            listed = [address for address, ready in members[key].values() if ready is wanted]
            if listed:
                subset[field] = sorted(listed, key=lambda each: (each["ip"], each["targetRef"]["uid"]))
        if ports:
            subset["ports"] = slice_ports(sorted(ports))
            for port in subset["ports"]:
                if not port["name"]:
                    del port["name"]
        made.append(subset)
    return sorted(made, key=lambda subset: msgspec.json.encode(subset, order="sorted"))
