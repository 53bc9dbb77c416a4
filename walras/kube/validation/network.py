"""Ingresses, network policies, endpoints, addresses: rules of pkg/apis/{networking,discovery}/validation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

from walras.kube.validation import names
from walras.kube.validation.access import path_segment
from walras.kube.validation.faults import Faults, go
from walras.kube.validation.metadata import label_selector

Object = Mapping[str, Any]

_PATH_TYPES: Final = ("Exact", "ImplementationSpecific", "Prefix")
_IN_PATH: Final = ("//", "/./", "/../", "%2f", "%2F")
_AT_END: Final = ("/..", "/.")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_ADDRESS_TYPES: Final = ("FQDN", "IPv4", "IPv6")
_IP: Final = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_CIDR: Final = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
# Zeros in front of a number, which some read as octal.
_ZEROS: Final = re.compile(r"(?:^|(?<=[./]))0+(?=\d)")
_ENDPOINTS_MAX: Final = 1000
_PORTS_MAX: Final = 20_000
_ADDRESSES_MAX: Final = 100


def check_ip(faults: Faults, path: str, text: str) -> bool:
    """Whether the text is an address that everybody reads alike; a fault where it is not."""
    try:
        address = ip_address(_ZEROS.sub("", text))
    except ValueError:
        faults.invalid(path, text, _IP)
        return False
    if address.version == 4 and _ZEROS.search(text):
        faults.invalid(path, text, "must not have leading 0s")
    elif isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        faults.invalid(path, text, "must not be an IPv4-mapped IPv6 address")
    else:
        return True
    return False


def check_cidr(faults: Faults, path: str, text: str) -> bool:
    """Whether the text is a range of addresses that everybody reads alike; a fault where it is not."""
    try:
        network = ip_network(_ZEROS.sub("", text), strict=False)
        address = ip_address(_ZEROS.sub("", text).partition("/")[0])
    except ValueError:
        faults.invalid(path, text, _CIDR)
        return False
    if "/" not in text:
        faults.invalid(path, text, _CIDR)
    elif network.version == 4 and _ZEROS.search(text):
        faults.invalid(path, text, "must not have leading 0s in IP or prefix length")
    elif isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        faults.invalid(path, text, "must not have an IPv4-mapped IPv6 address")
    elif address != network.network_address:
        faults.invalid(path, text, "must not have bits set beyond the prefix length")
    else:
        return True
    return False


def _canonical(faults: Faults, path: str, text: str, form: object) -> bool:
    if str(form) == text:
        return True
    faults.invalid(path, text, f'must be in canonical form ("{form}")')
    return False


def _whole_cidr(faults: Faults, path: str, text: str) -> bool:
    return check_cidr(faults, path, text) and _canonical(faults, path, text, ip_network(text))


def reachable_ip(faults: Faults, path: str, text: str) -> None:
    """An address that an endpoint may have: neither one's own nor one that means many."""
    try:
        ip = ip_address(text)
    except ValueError:
        faults.invalid(path, text, "must be a valid IP address")
        return
    if ip.is_unspecified:
        faults.invalid(path, text, "may not be unspecified (0.0.0.0 or ::)")
    if ip.is_loopback:
        faults.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if ip.is_link_local:
        faults.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if ip.is_multicast and (int(ip) >> 8) == (0xE0000000 >> 8):
        faults.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


def ip_name(name: str) -> list[str]:
    try:
        form = str(ip_address(name))
        return [] if form == name else [f'must be in canonical form ("{form}")']
    except ValueError:
        return [_IP]


def ingress(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec = obj.get("spec") or {}
    rules, default = spec.get("rules") or (), spec.get("defaultBackend")
    if not rules and default is None:
        faults.invalid("spec", None, "either `defaultBackend` or `rules` must be specified")
    if default is not None:
        _backend(faults, "spec.defaultBackend", default)
    for index, rule in enumerate(rules):
        _rule(faults, f"spec.rules[{index}]", rule)
    for index, tls in enumerate(spec.get("tls") or ()):
        for number, host in enumerate(tls.get("hosts") or ()):
            _host(faults, f"spec.tls[{index}].hosts[{number}]", host)
        if tls.get("secretName"):
            said = names.dns_subdomain(tls["secretName"])
            faults.each(f"spec.tls[{index}].secretName", tls["secretName"], said)
    if spec.get("ingressClassName") is not None:
        said = names.dns_subdomain(spec["ingressClassName"])
        faults.each("spec.ingressClassName", spec["ingressClassName"], said)


def _host(faults: Faults, path: str, host: str) -> None:
    if "*" not in host:
        faults.each(path, host, names.dns_subdomain(host))
    else:
        faults.each(path, host, names.wildcard_subdomain(host))


def _rule(faults: Faults, path: str, rule: Object) -> None:
    host = rule.get("host") or ""
    if host:
        if not ip_name(host):
            faults.invalid(f"{path}.host", host, "must be a DNS name, not an IP address")
        _host(faults, f"{path}.host", host)
    http = rule.get("http")
    if http is None:
        return
    if not http.get("paths"):
        faults.required(f"{path}.http.paths")
    for index, each in enumerate(http.get("paths") or ()):
        _path(faults, f"{path}.http.paths[{index}]", each)


def _path(faults: Faults, path: str, each: Object) -> None:
    kind, text = each.get("pathType"), each.get("path") or ""
    if kind is None:
        faults.required(f"{path}.pathType", "pathType must be specified")
        return
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            faults.invalid(f"{path}.path", text, "must be an absolute path")
        for part in _IN_PATH:
            if part in text:
                faults.invalid(f"{path}.path", text, f"must not contain '{part}'")
        for part in _AT_END:
            if text.endswith(part):
                faults.invalid(f"{path}.path", text, f"cannot end with '{part}'")
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            faults.invalid(f"{path}.path", text, "must be an absolute path")
    else:
        faults.not_supported(f"{path}.pathType", kind, _PATH_TYPES)
    _backend(faults, f"{path}.backend", each.get("backend") or {})


def _backend(faults: Faults, path: str, backend: Object) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        faults.invalid(path, "", "cannot set both resource and service backends")
    elif resource is not None:
        for field in ("kind", "name"):
            if not resource.get(field):
                faults.required(f"{path}.resource.{field}")
    elif service is None:
        faults.invalid(path, "", "resource or service backend is required")
    else:
        _service(faults, path, service)


def _service(faults: Faults, path: str, service: Object) -> None:
    name, port = service.get("name") or "", service.get("port") or {}
    if not name:
        faults.required(f"{path}.service.name")
    else:
        faults.each(f"{path}.service.name", name, names.dns_label(name))
    if port.get("name") and port.get("number"):
        faults.invalid(path, "", "cannot set both port name & port number")
    elif port.get("name"):
        faults.each(f"{path}.service.port.name", port["name"], names.port_name(port["name"]))
    elif port.get("number"):
        faults.each(f"{path}.service.port.number", port["number"], names.port_number(port["number"]))
    else:
        faults.required(path, "port name or number is required")


def ingress_class(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    controller, parameters = spec.get("controller") or "", spec.get("parameters")
    if old is not None:
        faults.immutable("spec.controller", controller, (old.get("spec") or {}).get("controller") or "")
    elif not controller:
        faults.required("spec.controller")
    elif "/" not in controller.strip("/"):
        detail = 'must be a domain-prefixed path (such as "acme.io/foo")'
        faults.invalid("spec.controller", controller, detail)
    if parameters is None:
        return
    path, scope, namespace = "spec.parameters", parameters.get("scope"), parameters.get("namespace")
    for field in ("kind", "name"):
        value = parameters.get(field) or ""
        if not value:
            faults.required(f"{path}.{field}")
        else:
            faults.each(f"{path}.{field}", value, path_segment(value))
    if scope not in ("Cluster", "Namespace"):
        faults.not_supported(f"{path}.scope", scope, ("Cluster", "Namespace"))
    elif scope == "Namespace" and namespace is None:
        faults.required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'")
    elif scope == "Cluster" and namespace is not None:
        faults.forbidden(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'")


def policy(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec = obj.get("spec") or {}
    label_selector(faults, "spec.podSelector", spec.get("podSelector") or {})
    for way, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(way) or ()):
            for number, port in enumerate(rule.get("ports") or ()):
                _policy_port(faults, f"spec.{way}[{index}].ports[{number}]", port)
            for number, peer in enumerate(rule.get(peers) or ()):
                _peer(faults, f"spec.{way}[{index}].{peers}[{number}]", peer)
    kinds = spec.get("policyTypes") or ()
    if len(kinds) > 2:
        faults.invalid("spec.policyTypes", list(kinds), "may not specify more than two policyTypes")
        return
    for index, kind in enumerate(kinds):
        if kind not in ("Ingress", "Egress"):
            faults.not_supported(f"spec.policyTypes[{index}]", kind, ("Ingress", "Egress"))


def _policy_port(faults: Faults, path: str, port: Object) -> None:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        faults.not_supported(f"{path}.protocol", protocol, ("TCP", "UDP", "SCTP"))
    if isinstance(number, int):
        faults.each(f"{path}.port", number, names.port_number(number))
        if end is not None and end < number:
            faults.invalid(f"{path}.endPort", number, "must be greater than or equal to `port`")
        if end is not None:
            faults.each(f"{path}.endPort", end, names.port_number(end))
        return
    if end is not None:
        detail = "may not be specified when `port` is not specified"
        if number is not None:
            detail = "may not be specified when `port` is non-numeric"
        faults.invalid(f"{path}.endPort", end, detail)
    if number is not None:
        faults.each(f"{path}.port", number, names.port_name(number))


def _peer(faults: Faults, path: str, peer: Object) -> None:
    kinds = [kind for kind in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(kind) is not None]
    for kind in kinds:
        if kind == "ipBlock":
            _block(faults, f"{path}.ipBlock", peer["ipBlock"])
        else:
            label_selector(faults, f"{path}.{kind}", peer[kind])
    if not kinds:
        faults.required(path, "must specify a peer")
    elif "ipBlock" in kinds and len(kinds) > 1:
        faults.forbidden(path, "may not specify both ipBlock and another peer")


def _block(faults: Faults, path: str, block: Object) -> None:
    cidr = block.get("cidr") or ""
    if not cidr:
        faults.required(f"{path}.cidr")
        return
    check_cidr(faults, f"{path}.cidr", cidr)
    try:
        whole = ip_network(cidr, strict=False)
    except ValueError:
        return
    for index, each in enumerate(block.get("except") or ()):
        at = f"{path}.except[{index}]"
        if check_cidr(faults, at, each):
            part = ip_network(each, strict=False)
            inside = part.version == whole.version and part.network_address in whole
            if not inside or part.prefixlen <= whole.prefixlen:
                faults.invalid(at, each, "must be a strict subset of `cidr`")


def endpoints(faults: Faults, obj: Object, _old: Object | None) -> None:
    for index, subset in enumerate(obj.get("subsets") or ()):
        path, ports = f"subsets[{index}]", subset.get("ports") or ()
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            faults.required(path, "must specify `addresses` or `notReadyAddresses`")
        for part in ("addresses", "notReadyAddresses"):
            for number, address in enumerate(subset.get(part) or ()):
                _address(faults, f"{path}.{part}[{number}]", address)
        for number, port in enumerate(ports):
            at, name = f"{path}.ports[{number}]", port.get("name") or ""
            if len(ports) > 1 and not name:
                faults.required(f"{at}.name")
            elif name:
                faults.each(f"{at}.name", name, names.dns_label(name))
            faults.each(f"{at}.port", port.get("port", 0), names.port_number(port.get("port", 0)))
            faults.one_of(f"{at}.protocol", port.get("protocol"), _PROTOCOLS)


def _address(faults: Faults, path: str, address: Object) -> None:
    ip, host, node = address.get("ip") or "", address.get("hostname") or "", address.get("nodeName")
    check_ip(faults, f"{path}.ip", ip)
    if host:
        faults.each(f"{path}.hostname", host, names.dns_label(host))
    if node is not None:
        faults.each(f"{path}.nodeName", node, names.dns_subdomain(node))
    reachable_ip(faults, f"{path}.ip", ip)


def endpoint_slice(faults: Faults, obj: Object, old: Object | None) -> None:
    kind = obj.get("addressType") or ""
    if old is not None:
        faults.immutable("addressType", kind, old.get("addressType"))
        if kind != old.get("addressType"):
            return
    else:
        faults.one_of("addressType", kind, _ADDRESS_TYPES)
    ports, found = obj.get("ports") or (), obj.get("endpoints") or ()
    if len(ports) > _PORTS_MAX:
        faults.too_many("ports", len(ports), _PORTS_MAX)
    seen: set[str] = set()
    for index, port in enumerate(ports[:_PORTS_MAX]):
        at, name = f"ports[{index}]", port.get("name") or ""
        if name:
            faults.each(f"{at}.name", name, names.dns_label(name))
        if name in seen:
            faults.duplicate(f"{at}.name", name)
        seen.add(name)
        faults.one_of(f"{at}.protocol", port.get("protocol"), _PROTOCOLS)
    if len(found) > _ENDPOINTS_MAX:
        faults.too_many("endpoints", len(found), _ENDPOINTS_MAX)
        return
    for index, each in enumerate(found):
        _endpoint(faults, f"endpoints[{index}]", each, kind)


def _endpoint(faults: Faults, path: str, endpoint: Object, kind: str) -> None:
    addresses = endpoint.get("addresses") or ()
    if not addresses:
        faults.required(f"{path}.addresses", "must contain at least 1 address")
    elif len(addresses) > _ADDRESSES_MAX:
        faults.too_many(f"{path}.addresses", len(addresses), _ADDRESSES_MAX)
    for index, address in enumerate(addresses):
        at = f"{path}.addresses[{index}]"
        if kind == "FQDN":
            faults.each(at, address, names.dns_subdomain(address))
        elif kind in _ADDRESS_TYPES and check_ip(faults, at, address):
            if kind == "IPv6" and not _canonical(faults, at, address, ip_address(address)):
                continue
            if f"IPv{ip_address(address).version}" != kind:
                faults.invalid(f"{path}.addresses", address, f"must be an {kind} address")
            reachable_ip(faults, at, address)
    if endpoint.get("nodeName") is not None:
        said = names.dns_subdomain(endpoint["nodeName"])
        faults.each(f"{path}.nodeName", endpoint["nodeName"], said)
    if endpoint.get("hostname") is not None:
        faults.each(f"{path}.hostname", endpoint["hostname"], names.dns_label(endpoint["hostname"]))


def address(faults: Faults, obj: Object, old: Object | None) -> None:
    """An IPAddress: whose it is."""
    parent = (obj.get("spec") or {}).get("parentRef")
    if old is not None:
        before = (old.get("spec") or {}).get("parentRef")
        names_ = ("group", "resource", "namespace", "name")
        shown = go(**{name.capitalize(): (parent or {}).get(name, "") for name in names_})
        if parent != before:
            faults.invalid("spec.parentRef", shown, "field is immutable")
    if parent is None:
        faults.required("spec.parentRef")
        return
    for field in ("resource", "name"):
        if not parent.get(field):
            faults.required(f"spec.parentRef.{field}")


def ranges(faults: Faults, obj: Object, old: Object | None) -> None:
    """A ServiceCIDR: one range of each family."""
    cidrs = list((obj.get("spec") or {}).get("cidrs") or ())
    if old is not None:
        before = (old.get("spec") or {}).get("cidrs") or []
        for index, (cidr, was) in enumerate(zip(cidrs, before, strict=False)):
            faults.immutable(f"spec.cidrs[{index}]", cidr, was)
        return
    if not cidrs:
        faults.required("spec.cidrs", "at least one CIDR required")
        return
    if len(cidrs) > 2:
        faults.invalid("spec.cidrs", {"CIDRs": cidrs}, "may only hold up to 2 values")
        return
    sound = [_whole_cidr(faults, f"spec.cidrs[{index}]", cidr) for index, cidr in enumerate(cidrs)]
    if all(sound) and len({ip_network(cidr, strict=False).version for cidr in cidrs}) != len(cidrs):
        faults.invalid("spec.cidrs", cidrs, "may specify no more than one IP for each IP family, i.e "
                       "192.168.0.0/24 and 2001:db8::/96")  # fmt: skip
