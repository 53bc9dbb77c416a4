"""What parts that several types have warn of: selectors of nodes, amounts, claims, addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

from walras.core.quantity import canonical, parse_milli
from walras.kube.validation.names import label_value

Object = Mapping[str, Any]

VOLUMES: Final = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
# As upstream's path says it, where that is not the field's name.
VOLUME_PATHS: Final = {"storageos": "storageOS"}
NODE_LABELS: Final = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region":
        'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone":
        'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type":
        'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods":
        "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}  # fmt: skip


def quoted(text: Any) -> str:
    """A text as Go quotes it."""
    return json.dumps(str(text), ensure_ascii=False)


def node_term(term: Object, path: str, *, values: bool = False) -> Iterator[str]:
    """Warnings of one term of a selector of nodes, of its values too where nothing else checks them."""
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        where, key = f"{path}.matchExpressions[{index}]", expression.get("key", "")
        if key in NODE_LABELS:
            yield f"{where}.key: {key} is {NODE_LABELS[key]}"
        for place, value in enumerate(expression.get("values") or () if values else ()):
            for said in label_value(value):
                yield f"{where}.values[{place}]: {value} is invalid, {said}"


def fractions(amounts: Object, path: str, *names: str) -> Iterator[str]:
    """Warnings of amounts of bytes that are not whole."""
    for name in names:
        if name in amounts and parse_milli(amounts[name]) % 1000:
            said = f"fractional byte value {quoted(canonical(str(amounts[name])))} is invalid"
            yield f"{path}[{name}]: {said}, must be an integer"


def claim(spec: Object, path: str) -> Iterator[str]:
    """Warnings of the spec of a claim of a volume."""
    for kind in ("requests", "limits"):
        amounts = (spec.get("resources") or {}).get(kind) or {}
        yield from fractions(amounts, f"{path}.resources.{kind}", "storage")


def ip(path: str, text: str) -> Iterator[str]:
    """Warnings of an address in a form that others may read as another one."""
    try:
        address = ip_address(text)
    except ValueError:
        return
    if not isinstance(address, IPv6Address):
        return
    if address.ipv4_mapped is not None:
        said = f"is invalid: use {quoted(address.ipv4_mapped)}"
        yield f"{path}: non-standard IP address {quoted(text)} {said}"
    elif str(address) != text:
        said = f"should be in RFC 5952 canonical format ({quoted(address)})"
        yield f"{path}: IPv6 address {quoted(text)} {said}"


def cidr(path: str, text: str) -> Iterator[str]:
    """Warnings of a range of addresses in a form that others may read as another one."""
    try:
        network = ip_network(text, strict=False)
        address = ip_address(text.partition("/")[0])
    except ValueError:
        return
    if address != network.network_address:
        single = f"{address}/{network.max_prefixlen}"
        said = f"(should be {quoted(network)} or {quoted(single)}?)"
        yield f"{path}: CIDR value {quoted(text)} is ambiguous in this context {said}"
    elif network.version == 6 and str(network) != text:
        said = f"should be in RFC 5952 canonical format ({quoted(network)})"
        yield f"{path}: IPv6 CIDR value {quoted(text)} {said}"
