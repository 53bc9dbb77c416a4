"""Services: rules of k8s.io/kubernetes/pkg/apis/core/validation."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

from walras.kube.validation import names
from walras.kube.validation.faults import Faults, go
from walras.kube.validation.metadata import check_labels
from walras.kube.validation.network import check_cidr, check_ip, reachable_ip

Object = Mapping[str, Any]

PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FAMILIES: Final = ("IPv4", "IPv6")
_FAMILY_POLICIES: Final = ("PreferDualStack", "RequireDualStack", "SingleStack")
_TRAFFIC: Final = ("Cluster", "Local")
_DISTRIBUTIONS: Final = ("PreferClose", "PreferSameZone", "PreferSameNode")
_AFFINITY_SECONDS_MAX: Final = 86400
_BALANCED: Final = "may only be used when `type` is 'LoadBalancer'"


def service(faults: Faults, obj: Object, old: Object | None) -> None:
    spec, was = obj.get("spec") or {}, (old or {}).get("spec") or {}
    kind, headless = spec.get("type", ""), (spec.get("clusterIPs") or [""])[0] == "None"
    if old is not None:
        _update(faults, spec, was)
    if not spec.get("ports") and not headless and kind != "ExternalName":
        faults.required("spec.ports")
    if kind in ("LoadBalancer", "NodePort") and headless:
        detail = f"may not be set to 'None' for {kind} services"
        faults.invalid("spec.clusterIPs[0]", spec["clusterIPs"][0], detail)
    if kind == "ExternalName":
        _external_name(faults, spec)
    ports: list[Object] = list(spec.get("ports") or ())
    seen: set[str] = set()
    for index, port in enumerate(ports):
        _port(faults, f"spec.ports[{index}]", port, len(ports) > 1, seen)
    check_labels(faults, "spec.selector", spec.get("selector"))
    _affinity(faults, spec)
    if kind != "ExternalName":
        addresses(faults, spec)
    for index, ip in enumerate(spec.get("externalIPs") or ()):
        if check_ip(faults, f"spec.externalIPs[{index}]", ip):
            reachable_ip(faults, f"spec.externalIPs[{index}]", ip)
    faults.one_of("spec.type", kind, _TYPES)
    _unique_ports(faults, kind, ports)
    _balancer(faults, spec, kind)
    _traffic(faults, spec, kind)


def _update(faults: Faults, spec: Object, was: Object) -> None:
    if "ExternalName" in (spec.get("type"), was.get("type")):
        return
    new, before = spec.get("clusterIPs") or [], was.get("clusterIPs") or []
    if before and not new:
        faults.invalid("spec.clusterIPs[0]", new, "primary clusterIP can not be unset")
    for index, ip in enumerate(before[: len(new)]):
        if ip != new[index]:
            faults.invalid(f"spec.clusterIPs[{index}]", new, "may not change once set")
    classes = (spec.get("loadBalancerClass"), was.get("loadBalancerClass"))
    if spec.get("type") == was.get("type") == "LoadBalancer" and classes[0] != classes[1]:
        faults.invalid("spec.loadBalancerClass", classes[0], "may not change once set")


def _external_name(faults: Faults, spec: Object) -> None:
    for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(field):
            faults.forbidden(f"spec.{field}", "may not be set for ExternalName services")
    name = spec.get("externalName", "").removesuffix(".")
    if not name:
        faults.required("spec.externalName")
    else:
        faults.each("spec.externalName", name, names.dns_subdomain(name))


def _port(faults: Faults, path: str, port: Object, named: bool, seen: set[str]) -> None:
    name = port.get("name", "")
    if named and not name:
        faults.required(f"{path}.name")
    elif name:
        faults.each(f"{path}.name", name, names.dns_label(name))
        if name in seen:
            faults.duplicate(f"{path}.name", name)
        seen.add(name)
    faults.each(f"{path}.port", port.get("port", 0), names.port_number(port.get("port", 0)))
    faults.one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
    faults.each(f"{path}.targetPort", port.get("targetPort", 0), names.port(port.get("targetPort", 0)))
    if port.get("appProtocol") is not None:
        said = names.qualified_name(port["appProtocol"])
        faults.each(f"{path}.appProtocol", port["appProtocol"], said)


def _unique_ports(faults: Faults, kind: str, ports: list[Object]) -> None:
    if kind == "ClusterIP":
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                detail = "may not be used when `type` is 'ClusterIP'"
                faults.forbidden(f"spec.ports[{index}].nodePort", detail)
    outside: set[tuple[Any, Any]] = set()
    inside: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        key = (port.get("protocol"), port.get("nodePort"))
        if key[1] and key in outside:
            faults.duplicate(f"spec.ports[{index}].nodePort", port["nodePort"])
        outside.add(key)
    for index, port in enumerate(ports):
        key = (port.get("protocol"), port.get("port"))
        if key in inside:
            shown = go(Name="", Protocol=key[0], AppProtocol=None, Port=key[1], TargetPort=0, NodePort=0)
            faults.duplicate(f"spec.ports[{index}]", shown)
        inside.add(key)


def _affinity(faults: Faults, spec: Object) -> None:
    affinity, config = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    faults.one_of("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    if affinity == "ClientIP":
        path = "spec.sessionAffinityConfig"
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
        if seconds is None:
            faults.required(path, "when session affinity type is ClientIP")
        elif not 0 < seconds <= _AFFINITY_SECONDS_MAX:
            detail = f"must be greater than 0 and less than {_AFFINITY_SECONDS_MAX}"
            faults.invalid(f"{path}.clientIP.timeoutSeconds", seconds, detail)
    elif affinity == "None" and config is not None:
        faults.forbidden("spec.sessionAffinityConfig", "must not be set when session affinity is None")


def addresses(faults: Faults, spec: Object) -> None:
    """Cluster addresses and their families, before any are given."""
    one, many = spec.get("clusterIP") or "", list(spec.get("clusterIPs") or ())
    if one and not many:
        faults.required("spec.clusterIPs")
    elif one and many[0] != one:
        faults.invalid("spec.clusterIPs", many, "first value must match `clusterIP`")
    elif not one and many:
        faults.invalid("spec.clusterIPs", many, "must be empty when `clusterIP` is not specified")
    families: list[str] = []
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in _FAMILIES:
            faults.not_supported(f"spec.ipFamilies[{index}]", family, _FAMILIES)
        if family in families:
            faults.duplicate(f"spec.ipFamilies[{index}]", family)
        families.append(family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _FAMILY_POLICIES:
        faults.not_supported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES)
    _many_addresses(faults, many, families)


def _many_addresses(faults: Faults, many: list[str], families: list[str]) -> None:
    if many[:1] == ["None"]:
        if len(many) > 1:
            faults.invalid("spec.clusterIPs", many, "'None' must be the first and only value")
        return
    sound = [check_ip(faults, f"spec.clusterIPs[{index}]", ip) for index, ip in enumerate(many)]
    if len(many) > 2:
        faults.invalid("spec.clusterIPs", many, "may only hold up to 2 values")
    if not all(sound):
        return
    versions = [ip_address(ip).version for ip in many]
    if len(many) > 1 and len(set(versions)) == 1:
        faults.invalid("spec.clusterIPs", many, "may specify no more than one IP for each IP family")
    for index, (ip, version, family) in enumerate(zip(many, versions, families, strict=False)):
        if family in _FAMILIES and family != f"IPv{version}":
            detail = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            faults.invalid(f"spec.clusterIPs[{index}]", ip, detail)


def _balancer(faults: Faults, spec: Object, kind: str) -> None:
    ranges = spec.get("loadBalancerSourceRanges") or ()
    if ranges and kind != "LoadBalancer":
        faults.forbidden("spec.LoadBalancerSourceRanges", _BALANCED)
    for index, each in enumerate(ranges):
        check_cidr(faults, f"spec.LoadBalancerSourceRanges[{index}]", each.strip())
    if spec.get("allocateLoadBalancerNodePorts") is not None and kind != "LoadBalancer":
        faults.forbidden("spec.allocateLoadBalancerNodePorts", _BALANCED)
    chosen = spec.get("loadBalancerClass")
    if chosen is None:
        return
    if kind != "LoadBalancer":
        faults.forbidden("spec.loadBalancerClass", _BALANCED)
    else:
        faults.each("spec.loadBalancerClass", chosen, names.qualified_name(chosen))


def _traffic(faults: Faults, spec: Object, kind: str) -> None:
    policy, path = spec.get("externalTrafficPolicy") or "", "spec.externalTrafficPolicy"
    outside = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))
    if not outside and policy:
        faults.invalid(path, policy, "may only be set for externally-accessible services")
    elif outside:
        faults.one_of(path, policy, _TRAFFIC)
    check = spec.get("healthCheckNodePort")
    if check and not (kind == "LoadBalancer" and policy == "Local"):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        faults.invalid("spec.healthCheckNodePort", check, detail)
    inside = spec.get("internalTrafficPolicy")
    if inside is not None and inside not in _TRAFFIC:
        faults.not_supported("spec.internalTrafficPolicy", inside, _TRAFFIC)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        faults.not_supported("spec.trafficDistribution", distribution, _DISTRIBUTIONS)
