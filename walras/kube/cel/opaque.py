"""Values of Kubernetes' CEL libraries: URLs, quantities, semantic versions, addresses, authorisation."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import total_ordering
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from walras.core.errors import Invalid
from walras.core.quantity import exact
from walras.kube.cel.extensions import text
from walras.kube.cel.values import CelError, Opaque


@dataclass(frozen=True, slots=True)
class URL(Opaque):
    """An absolute URL, or an absolute path."""

    TYPE = "kubernetes.URL"
    text: str
    scheme: str
    host: str
    path: str
    query: str

    @property
    def hostname(self) -> str:
        if self.host.startswith("["):
            return self.host[1:].partition("]")[0]
        return self.host.rpartition(":")[0] if re.search(r":\d*$", self.host) else self.host

    @property
    def port(self) -> str:
        match = re.search(r":(\d*)$", self.host)
        return match[1] if match else ""


def parse_url(value: Any) -> URL:
    given = text(value)
    try:
        if re.search(r"[\x00-\x20\x7f]", given) or not given:
            raise ValueError("invalid character")
        parts = urlsplit(given)
        _ = parts.port
        if not parts.scheme and not given.startswith("/"):
            raise ValueError("invalid URI for request")
        if re.search(r"%(?![0-9A-Fa-f]{2})", parts.path):
            raise ValueError("invalid URL escape")
    except ValueError as error:
        raise CelError(f'URL parse error during conversion from string: parse "{given}": {error}') from None
    host = parts.netloc.rpartition("@")[2]
    return URL(given, parts.scheme, host, parts.path, parts.query)


@total_ordering
@dataclass(frozen=True, slots=True)
class Quantity(Opaque):
    """An amount, exactly."""

    TYPE = "kubernetes.Quantity"
    amount: Fraction

    def __lt__(self, other: Quantity) -> bool:
        return self.amount < other.amount


def parse_quantity(value: Any) -> Quantity:
    try:
        return Quantity(exact(text(value)))
    except Invalid:
        raise CelError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        ) from None


_SEMVER: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?", re.ASCII
)


@total_ordering
@dataclass(frozen=True, slots=True)
class Semver(Opaque):
    """A version by semver.org."""

    TYPE = "kubernetes.Semver"
    numbers: tuple[int, int, int]
    before: tuple[tuple[int, int, str], ...] = ()

    def __lt__(self, other: Semver) -> bool:
        mine = (self.numbers, not self.before, self.before)
        return mine < (other.numbers, not other.before, other.before)


def parse_semver(value: Any, normalise: Any = False) -> Semver:
    given = text(value)
    if normalise:
        given = given.removeprefix("v")
        core, mark, rest = (
            re.split(r"([-+])", given, maxsplit=1) if re.search(r"[-+]", given) else (given, "", "")
        )
        parts = [part.lstrip("0") or ("0" if part else part) for part in core.split(".")]
        given = ".".join(parts + ["0"] * (3 - len(parts))) + mark + rest
    match = _SEMVER.fullmatch(given)
    if match is None:
        raise CelError("No Major.Minor.Patch elements found")
    before = []
    for part in (match[4] or "").split(".") if match[4] else ():
        if part.isdigit():
            before.append((0, int(part), ""))
        else:
            before.append((1, 0, part))
    return Semver((int(match[1]), int(match[2]), int(match[3])), tuple(before))


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class IP(Opaque):
    TYPE = "net.IP"
    address: Address

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class CIDR(Opaque):
    TYPE = "net.CIDR"
    address: Address
    prefix: int

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"

    @property
    def network(self) -> Network:
        return ipaddress.ip_network(f"{self.address}/{self.prefix}", strict=False)


def parse_ip(value: Any) -> IP:
    if isinstance(value, CIDR):
        return IP(value.address)
    given = text(value)
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        said = "parse error during conversion from string"
        raise CelError(f'IP Address "{given}" {said}: ParseAddr("{given}"): unable to parse IP') from None
    if "%" in given:
        raise CelError(f'IP address "{given}" with zone value is not allowed')
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise CelError(f'IPv4-mapped IPv6 address "{given}" is not allowed')
    return IP(address)


def parse_cidr(value: Any) -> CIDR:
    given = text(value)
    address, slash, prefix = given.rpartition("/")
    try:
        if not slash or not re.fullmatch(r"0|[1-9]\d{0,2}", prefix, re.ASCII):
            raise ValueError
        parsed = ipaddress.ip_address(address)
        if int(prefix) > parsed.max_prefixlen or "%" in address:
            raise ValueError
    except ValueError:
        said = "network address parse error during conversion from string"
        raise CelError(f"{said}: netip.ParsePrefix(\"{given}\"): no '/'") from None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        raise CelError(f'IPv4-mapped IPv6 address "{given}" is not allowed')
    return CIDR(parsed, int(prefix))


class Authorize(Protocol):
    """Whether somebody may do something: (allowed, why)."""

    def __call__(
        self, user: tuple[str, str] | None, attributes: Mapping[str, str], verb: str, /
    ) -> tuple[bool, str]:
        """`user` is a service account's namespace and name, or None for who makes the request."""


@dataclass(frozen=True, slots=True)
class Authorizer(Opaque):
    """The variable `authorizer`, and each of the checks that it leads to."""

    TYPE = "kubernetes.authorization.Authorizer"
    ask: Authorize
    user: tuple[str, str] | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    # The check of what the request itself asks for.
    request: Authorizer | None = None

    def member(self, name: str) -> Authorizer:
        if name != "requestResource" or self.request is None:
            raise CelError(f"no such key: {name}")
        return self.request

    def having(self, name: str, value: Any) -> Authorizer:
        kept = tuple(each for each in self.attributes if each[0] != name)
        return replace(self, attributes=(*kept, (name, text(value))))


@dataclass(frozen=True, slots=True)
class Decision(Opaque):
    TYPE = "kubernetes.authorization.Decision"
    allowed: bool
    reason: str
