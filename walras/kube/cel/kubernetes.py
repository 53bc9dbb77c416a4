"""Kubernetes' own CEL libraries (k8s.io/apiserver/pkg/cel/library), from lists to authorisation."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final
from urllib.parse import parse_qs

from walras.kube.cel import regex
from walras.kube.cel.extensions import items, number, text
from walras.kube.cel.functions import STANDARD, compare
from walras.kube.cel.opaque import (
    CIDR,
    IP,
    URL,
    Authorizer,
    Decision,
    Quantity,
    Semver,
    parse_cidr,
    parse_ip,
    parse_quantity,
    parse_semver,
    parse_url,
)
from walras.kube.cel.values import INT_MAX, INT_MIN, NONE, CelError, Opaque, Optional, no_overload


def _is(parse: Callable[..., Any]) -> Callable[..., bool]:
    def run(*given: Any) -> bool:
        try:
            parse(*given)
        except CelError as error:
            if str(error) == "no such overload":
                raise
            return False
        return True

    return run


def _amount(value: Any) -> Fraction:
    if isinstance(value, Quantity):
        return value.amount
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    raise no_overload()


def _as_integer(value: Any) -> int:
    amount = _amount(value)
    if amount.denominator != 1 or not INT_MIN <= amount <= INT_MAX:
        raise CelError("cannot convert value to integer")
    return int(amount)


def _contains_ip(network: Any, other: Any) -> bool:
    address = parse_ip(other) if isinstance(other, str) else other
    return address.address.version == network.address.version and address.address in network.network


def _contains_cidr(network: Any, other: Any) -> bool:
    inner = parse_cidr(other) if isinstance(other, str) else other
    same = inner.address.version == network.address.version
    return same and inner.prefix >= network.prefix and inner.address in network.network


def _global_unicast(value: Any) -> bool:
    address = value.address
    return not (
        address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local
    ) and (str(address) != "255.255.255.255")


@dataclass(frozen=True, slots=True)
class Format(Opaque):
    """A named format; `check` gives what is wrong with a text."""

    TYPE = "kubernetes.NamedFormat"
    name: str

    def check(self, value: str) -> list[str]:
        return _FORMATS[self.name](value)


def _said(valid: Callable[[str], bool], message: str) -> Callable[[str], list[str]]:
    return lambda value: [] if valid(value) else [message]


def _base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _prefix(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    return lambda value: check(value[:-1] + "a" if value.endswith("-") else value)


def _name_check(rule: str) -> Callable[[str], list[str]]:
    def run(value: str) -> list[str]:
        # The rules of names stand above this package, which they are checked with.
        from walras.kube.validation import names  # noqa: PLC0415

        return list(getattr(names, rule)(value))

    return run


_FORMATS: Final[Mapping[str, Callable[[str], list[str]]]] = {
    "dns1123Label": _name_check("dns_label"),
    "dns1123Subdomain": _name_check("dns_subdomain"),
    "dns1035Label": _name_check("dns1035_label"),
    "qualifiedName": _name_check("qualified_name"),
    "dns1123LabelPrefix": _prefix(_name_check("dns_label")),
    "dns1123SubdomainPrefix": _prefix(_name_check("dns_subdomain")),
    "dns1035LabelPrefix": _prefix(_name_check("dns1035_label")),
    "labelValue": _name_check("label_value"),
    "uri": _said(_is(parse_url), "must be a valid URI"),
    "uuid": _said(
        lambda value: (
            re.fullmatch(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}", value) is not None
        ),
        "does not match the UUID format",
    ),
    "byte": _said(_base64, "invalid base64"),
    "date": _said(
        lambda value: re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", value) is not None,
        "invalid date",
    ),
    "datetime": _said(_is(STANDARD["timestamp"]), "invalid datetime"),
}


def _validate(form: Any, value: Any) -> Optional:
    if not isinstance(form, Format):
        raise no_overload()
    found = form.check(text(value))
    return Optional(True, found) if found else NONE


def _attribute(name: str) -> Callable[[Any, Any], Authorizer]:
    def run(value: Any, given: Any) -> Authorizer:
        if not isinstance(value, Authorizer):
            raise no_overload()
        return value.having(name, given)

    return run


def _check(value: Any, verb: Any) -> Decision:
    if not isinstance(value, Authorizer):
        raise no_overload()
    return Decision(*value.ask(value.user, dict(value.attributes), text(verb)))


def _find_all(value: Any, pattern: Any, most: Any = -1) -> list[str]:
    most = number(most)
    found: list[str] = []
    for match in _compiled(pattern).finditer(text(value)):
        if 0 <= most <= len(found):
            break
        found.append(match.group())
    return found


def _compiled(pattern: Any) -> Any:
    try:
        return regex.pattern(text(pattern))
    except regex.PatternError as error:
        raise CelError(f"Illegal regex: error parsing regexp: {error}") from None


def _find(value: Any, pattern: Any) -> str:
    match = _compiled(pattern).search(text(value))
    return match.group() if match else ""


def _sum(value: Any) -> Any:
    total: Any = None
    for item in items(value):
        total = item if total is None else STANDARD["_+_"](total, item)
    return 0 if total is None else total


def _extreme(name: str, sign: int) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        if not items(value):
            raise CelError(f"{name} called on empty list")
        best = value[0]
        for item in value[1:]:
            if compare(item, best) * sign > 0:
                best = item
        return best

    return run


def _is_sorted(value: Any) -> bool:
    return all(compare(items(value)[at], value[at + 1]) <= 0 for at in range(len(value) - 1))


def _compare_to(left: Any, right: Any) -> int:
    if type(left) is not type(right) or not isinstance(left, Quantity | Semver):
        raise no_overload()
    return -1 if left < right else int(right < left)


def _get(kind: type, read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        if not isinstance(value, kind):
            raise no_overload()
        return read(value)

    return run


KUBERNETES: Final[Mapping[str, Callable[..., Any]]] = {
    "isSorted": _is_sorted,
    "sum": _sum,
    "max": _extreme("max", 1),
    "min": _extreme("min", -1),
    "find": _find,
    "findAll": _find_all,
    "url": parse_url,
    "isURL": _is(parse_url),
    "getScheme": _get(URL, lambda url: url.scheme),
    "getHost": _get(URL, lambda url: url.host),
    "getHostname": _get(URL, lambda url: url.hostname),
    "getPort": _get(URL, lambda url: url.port),
    "getEscapedPath": _get(URL, lambda url: url.path),
    "getQuery": _get(URL, lambda url: parse_qs(url.query, keep_blank_values=True, max_num_fields=10_000)),
    "quantity": parse_quantity,
    "isQuantity": _is(parse_quantity),
    "sign": lambda value: (_amount(value) > 0) - (_amount(value) < 0),
    "asInteger": _as_integer,
    "isInteger": _is(_as_integer),
    "asApproximateFloat": lambda value: float(_amount(value)),
    "add": lambda left, right: Quantity(_amount(left) + _amount(right)),
    "sub": lambda left, right: Quantity(_amount(left) - _amount(right)),
    "isGreaterThan": lambda left, right: _compare_to(left, right) > 0,
    "isLessThan": lambda left, right: _compare_to(left, right) < 0,
    "compareTo": _compare_to,
    "semver": parse_semver,
    "isSemver": _is(parse_semver),
    "major": _get(Semver, lambda version: version.numbers[0]),
    "minor": _get(Semver, lambda version: version.numbers[1]),
    "patch": _get(Semver, lambda version: version.numbers[2]),
    "ip": parse_ip,
    "isIP": _is(parse_ip),
    "ip.isCanonical": lambda value: str(parse_ip(value)) == value,
    "family": _get(IP, lambda ip: ip.address.version),
    "isUnspecified": _get(IP, lambda ip: ip.address.is_unspecified),
    "isLoopback": _get(IP, lambda ip: ip.address.is_loopback),
    "isLinkLocalMulticast": _get(
        IP,
        lambda ip: (
            ip.address in ipaddress.ip_network("224.0.0.0/24" if ip.address.version == 4 else "ff02::/16")
        ),
    ),
    "isLinkLocalUnicast": _get(IP, lambda ip: ip.address.is_link_local),
    "isGlobalUnicast": _get(IP, _global_unicast),
    "cidr": parse_cidr,
    "isCIDR": _is(parse_cidr),
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    "prefixLength": _get(CIDR, lambda cidr: cidr.prefix),
    "masked": _get(CIDR, lambda cidr: CIDR(cidr.network.network_address, cidr.prefix)),
    "format.named": lambda name: Optional(True, Format(name)) if text(name) in _FORMATS else NONE,
    "validate": _validate,
    "path": _attribute("path"),
    "group": _attribute("group"),
    "resource": _attribute("resource"),
    "subresource": _attribute("subresource"),
    "namespace": _attribute("namespace"),
    "name": _attribute("name"),
    "fieldSelector": _attribute("fieldSelector"),
    "labelSelector": _attribute("labelSelector"),
    "serviceAccount": lambda value, namespace, name: replace(value, user=(text(namespace), text(name))),
    "check": _check,
    "allowed": _get(Decision, lambda decision: decision.allowed),
    "reason": _get(Decision, lambda decision: decision.reason),
    "errored": _get(Decision, lambda _: False),
    "error": _get(Decision, lambda _: ""),
    "jsonpatch.escapeKey": lambda key: text(key).replace("~", "~0").replace("/", "~1"),
    **{f"format.{name}": (lambda name=name: Format(name)) for name in _FORMATS},
}
