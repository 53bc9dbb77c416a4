"""The rows of services and of what leads to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.tables.columns import (
    NONE,
    UNKNOWN,
    Cells,
    age,
    at_most,
    labels_text,
    name,
    spec,
    status,
)

Object = dict[str, Any]

_HOSTS_MAX: Final = 3


def _points(obj: Object) -> list[str]:
    """Addresses of a load balancer, sorted."""
    ingress = (status(obj).get("loadBalancer") or {}).get("ingress") or ()
    return sorted({held.get("ip") or held.get("hostname", "") for held in ingress} - {""})


def _external_ip(service: Object) -> str:
    external = list(spec(service).get("externalIPs") or ())
    match spec(service).get("type"):
        case "ClusterIP" | "NodePort":
            return ",".join(external) or NONE
        case "LoadBalancer":
            return ",".join(_points(service) + external) or "<pending>"
        case "ExternalName":
            return str(spec(service).get("externalName", ""))
    return UNKNOWN


def _port(port: Object) -> str:
    outside = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{outside}/{port.get('protocol', 'TCP')}"


def _service(service: Object, now_ms: int) -> list[Any]:
    ips = spec(service).get("clusterIPs") or (spec(service).get("clusterIP"),)
    return [
        name(service),
        spec(service).get("type", ""),
        ips[0] or NONE,
        _external_ip(service),
        ",".join(map(_port, spec(service).get("ports") or ())) or NONE,
        age(service, now_ms),
        labels_text(spec(service).get("selector")),
    ]


def _hosts(rules: list[Object]) -> str:
    hosts: list[str] = []
    more = False
    for rule in rules:
        more = more or len(hosts) == _HOSTS_MAX
        if not more and rule.get("host"):
            hosts.append(rule["host"])
    if more:
        return f"{','.join(hosts)} + {len(rules) - _HOSTS_MAX} more..."
    return ",".join(hosts) or "*"


def _ingress(ingress: Object, now_ms: int) -> list[Any]:
    return [
        name(ingress),
        spec(ingress).get("ingressClassName", NONE),
        _hosts(spec(ingress).get("rules") or []),
        ",".join(_points(ingress)),
        "80, 443" if spec(ingress).get("tls") else "80",
        age(ingress, now_ms),
    ]


def _ingress_class(obj: Object, now_ms: int) -> list[Any]:
    parameters, text = spec(obj).get("parameters"), NONE
    if parameters is not None:
        group = f".{parameters['apiGroup']}" if "apiGroup" in parameters else ""
        text = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    default = annotations.get("ingressclass.kubernetes.io/is-default-class") == "true"
    shown = f"{name(obj)} (default)" if default else name(obj)
    return [shown, spec(obj).get("controller", ""), text, age(obj, now_ms)]


def _joined(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _endpoints(obj: Object, now_ms: int) -> list[Any]:
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        ips = [each.get("ip", "") for each in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        found += [_joined(ip, port.get("port", 0)) for port in ports for ip in ips] if ports else ips
    shown = at_most(found) if found else ""
    return [name(obj), shown if obj.get("subsets") else NONE, age(obj, now_ms)]


def _slice(obj: Object, now_ms: int) -> list[Any]:
    ports = [str(port.get("port") or port.get("name", "*")) for port in obj.get("ports") or ()]
    addresses = [ip for each in obj.get("endpoints") or () for ip in each.get("addresses") or ()]
    return [name(obj), obj.get("addressType", ""), at_most(ports), at_most(addresses), age(obj, now_ms)]


def _address(obj: Object, now_ms: int) -> list[Any]:
    parent, text = spec(obj).get("parentRef"), NONE
    if parent is not None:
        group = f".{parent['group']}" if parent.get("group") else ""
        namespace = f"/{parent['namespace']}" if parent.get("namespace") else ""
        text = f"{parent.get('resource', '')}{group}".lower() + f"{namespace}/{parent.get('name', '')}"
    # Upstream gives an age, too, for which it has no column.
    return [name(obj), text, age(obj, now_ms)]


CELLS: Final[Mapping[str, Cells]] = {
    "endpoints": _endpoints,
    "services": _service,
    "endpointslices.discovery.k8s.io": _slice,
    "ingresses.networking.k8s.io": _ingress,
    "ingressclasses.networking.k8s.io": _ingress_class,
    "ipaddresses.networking.k8s.io": _address,
    "servicecidrs.networking.k8s.io": lambda obj, now_ms: [
        name(obj),
        ",".join(spec(obj).get("cidrs") or ()),
        age(obj, now_ms),
    ],
}
