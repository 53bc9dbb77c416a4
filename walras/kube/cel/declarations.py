"""Which functions there are, and what they take: of CEL's standard library, cel-go's extensions, Kubernetes.

A line declares overloads: `name: (argument, ...) result`, or of member functions `name: target.(...) result`,
with ids behind `=` where they have names. An indented line goes on. Single capitals are type variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from walras.kube.cel.types import Type


@dataclass(frozen=True, slots=True)
class Overload:
    id: str
    member: bool
    # With the target first for members.
    parameters: tuple[Type, ...]
    result: Type


_COMPARABLE: Final = ("bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration")
_NUMBERS: Final = ("int", "uint", "double")


def _ordered(name: str, word: str) -> str:
    same = [f"({kind}, {kind}) bool ={word}_{kind}" for kind in _COMPARABLE]
    across = [f"({a}, {b}) bool ={word}_{a}_{b}" for a in _NUMBERS for b in _NUMBERS if a != b]
    return f"{name}: " + " ; ".join(same + across)


def _each(name: str, kinds: tuple[str, ...], shape: str) -> str:
    return f"{name}: " + " ; ".join(shape.replace("@", kind) for kind in kinds)


_STANDARD: Final = f"""
!_: (bool) bool
-_: (int) int ; (double) double
_==_: (A, A) bool =equals
_!=_: (A, A) bool =not_equals
@in: (A, list(A)) bool =in_list ; (A, map(A, B)) bool =in_map
_&&_: (bool, bool) bool =logical_and
_||_: (bool, bool) bool =logical_or
_?_:_: (bool, A, A) A =conditional
_+_: (int, int) int ; (uint, uint) uint ; (double, double) double ; (string, string) string =add_string ;
  (bytes, bytes) bytes =add_bytes ; (list(A), list(A)) list(A) =add_list ;
  (timestamp, duration) timestamp ; (duration, timestamp) timestamp ; (duration, duration) duration
_-_: (int, int) int ; (uint, uint) uint ; (double, double) double ; (timestamp, timestamp) duration ;
  (timestamp, duration) timestamp ; (duration, duration) duration
_*_: (int, int) int ; (uint, uint) uint ; (double, double) double
_/_: (int, int) int ; (uint, uint) uint ; (double, double) double
_%_: (int, int) int ; (uint, uint) uint
{_ordered("_<_", "less")}
{_ordered("_<=_", "less_equals")}
{_ordered("_>_", "greater")}
{_ordered("_>=_", "greater_equals")}
size: (string) int ; (bytes) int ; (list(A)) int ; (map(A, B)) int ; string.() int ; bytes.() int ;
  list(A).() int ; map(A, B).() int
bool: (bool) bool ; (string) bool
bytes: (bytes) bytes ; (string) bytes =string_to_bytes
double: (double) double ; (int) double ; (uint) double ; (string) double
duration: (duration) duration ; (string) duration ; (int) duration
dyn: (A) dyn
int: (int) int ; (uint) int ; (double) int ; (string) int ; (timestamp) int ; (duration) int
string: (string) string ; (bool) string ; (int) string ; (uint) string ; (double) string ;
  (bytes) string =bytes_to_string ; (timestamp) string ; (duration) string ;
  (net.IP) string =ip_to_string ; (net.CIDR) string =cidr_to_string
timestamp: (timestamp) timestamp ; (string) timestamp ; (int) timestamp
type: (A) type
uint: (uint) uint ; (int) uint ; (double) uint ; (string) uint
contains: string.(string) bool =contains_string
endsWith: string.(string) bool =ends_with_string
startsWith: string.(string) bool =starts_with_string
matches: string.(string) bool =matches_string ; (string, string) bool =matches
getFullYear: timestamp.() int ; timestamp.(string) int
getMonth: timestamp.() int ; timestamp.(string) int
getDayOfYear: timestamp.() int ; timestamp.(string) int
getDayOfMonth: timestamp.() int ; timestamp.(string) int
getDate: timestamp.() int ; timestamp.(string) int
getDayOfWeek: timestamp.() int ; timestamp.(string) int
getHours: timestamp.() int ; timestamp.(string) int ; duration.() int
getMinutes: timestamp.() int ; timestamp.(string) int ; duration.() int
getSeconds: timestamp.() int ; timestamp.(string) int ; duration.() int
getMilliseconds: timestamp.() int ; timestamp.(string) int ; duration.() int
optional.of: (A) optional_type(A)
optional.ofNonZeroValue: (A) optional_type(A)
optional.none: () optional_type(A)
hasValue: optional_type(A).() bool
value: optional_type(A).() A
or: optional_type(A).(optional_type(A)) optional_type(A)
orValue: optional_type(A).(A) A
"""

_EXTENSIONS: Final = """
charAt: string.(int) string
indexOf: string.(string) int ; string.(string, int) int ; list(A).(A) int
lastIndexOf: string.(string) int ; string.(string, int) int ; list(A).(A) int
join: list(string).() string ; list(string).(string) string
lowerAscii: string.() string
upperAscii: string.() string
replace: string.(string, string) string ; string.(string, string, int) string
reverse: list(A).() list(A)
split: string.(string) list(string) ; string.(string, int) list(string)
substring: string.(int) string ; string.(int, int) string
trim: string.() string
format: string.(list(dyn)) string =string_format
strings.quote: (string) string =strings_quote
sets.contains: (list(A), list(A)) bool =list_sets_contains_list
sets.equivalent: (list(A), list(A)) bool =list_sets_equivalent_list
sets.intersects: (list(A), list(A)) bool =list_sets_intersects_list
slice: list(A).(int, int) list(A)
flatten: list(list(A)).() list(A) ; list(dyn).() list(dyn) ; list(dyn).(int) list(dyn)
distinct: list(A).() list(A)
lists.range: (int) list(int)
sort: list(A).() list(A)
first: list(A).() optional_type(A)
last: list(A).() optional_type(A)
"""

_KUBERNETES: Final = f"""
{_each("isSorted", _COMPARABLE, "list(@).() bool")}
{_each("sum", ("int", "uint", "double", "duration"), "list(@).() @")}
{_each("max", _COMPARABLE, "list(@).() @")}
{_each("min", _COMPARABLE, "list(@).() @")}
find: string.(string) string
findAll: string.(string) list(string) ; string.(string, int) list(string)
url: (string) kubernetes.URL
isURL: (string) bool
getScheme: kubernetes.URL.() string
getHost: kubernetes.URL.() string
getHostname: kubernetes.URL.() string
getPort: kubernetes.URL.() string
getEscapedPath: kubernetes.URL.() string
getQuery: kubernetes.URL.() map(string, list(string))
quantity: (string) kubernetes.Quantity
isQuantity: (string) bool
sign: kubernetes.Quantity.() int
asInteger: kubernetes.Quantity.() int
isInteger: kubernetes.Quantity.() bool
asApproximateFloat: kubernetes.Quantity.() double
add: kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity ;
  kubernetes.Quantity.(int) kubernetes.Quantity
sub: kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity ;
  kubernetes.Quantity.(int) kubernetes.Quantity
isGreaterThan: kubernetes.Quantity.(kubernetes.Quantity) bool ; kubernetes.Semver.(kubernetes.Semver) bool
isLessThan: kubernetes.Quantity.(kubernetes.Quantity) bool ; kubernetes.Semver.(kubernetes.Semver) bool
compareTo: kubernetes.Quantity.(kubernetes.Quantity) int ; kubernetes.Semver.(kubernetes.Semver) int
semver: (string) kubernetes.Semver ; (string, bool) kubernetes.Semver
isSemver: (string) bool ; (string, bool) bool
major: kubernetes.Semver.() int
minor: kubernetes.Semver.() int
patch: kubernetes.Semver.() int
ip: (string) net.IP ; net.CIDR.() net.IP =cidr_ip
isIP: (string) bool
ip.isCanonical: (string) bool
family: net.IP.() int
isUnspecified: net.IP.() bool
isLoopback: net.IP.() bool
isLinkLocalMulticast: net.IP.() bool
isLinkLocalUnicast: net.IP.() bool
isGlobalUnicast: net.IP.() bool
cidr: (string) net.CIDR
isCIDR: (string) bool
containsIP: net.CIDR.(string) bool =cidr_contains_ip_string ; net.CIDR.(net.IP) bool
containsCIDR: net.CIDR.(string) bool =cidr_contains_cidr_string ; net.CIDR.(net.CIDR) bool
prefixLength: net.CIDR.() int
masked: net.CIDR.() net.CIDR
format.named: (string) optional_type(kubernetes.NamedFormat)
validate: kubernetes.NamedFormat.(string) optional_type(list(string))
path: kubernetes.authorization.Authorizer.(string) kubernetes.authorization.PathCheck
group: kubernetes.authorization.Authorizer.(string) kubernetes.authorization.GroupCheck
serviceAccount: kubernetes.authorization.Authorizer.(string, string) kubernetes.authorization.Authorizer
resource: kubernetes.authorization.GroupCheck.(string) kubernetes.authorization.ResourceCheck
subresource: kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck
namespace: kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck
name: kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck
fieldSelector: kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck
labelSelector: kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.ResourceCheck
check: kubernetes.authorization.ResourceCheck.(string) kubernetes.authorization.Decision ;
  kubernetes.authorization.PathCheck.(string) kubernetes.authorization.Decision
allowed: kubernetes.authorization.Decision.() bool
reason: kubernetes.authorization.Decision.() string
errored: kubernetes.authorization.Decision.() bool
error: kubernetes.authorization.Decision.() string
jsonpatch.escapeKey: (string) string
"""

# The formats that `format.NAME()` gives.
FORMATS: Final = (
    "dns1123Label", "dns1123Subdomain", "dns1035Label", "qualifiedName", "dns1123LabelPrefix",
    "dns1123SubdomainPrefix", "dns1035LabelPrefix", "labelValue", "uri", "uuid", "byte", "date", "datetime",
)  # fmt: skip

_SHAPE: Final = re.compile(r"(?:(?P<target>\S.*?)\.)?\((?P<args>.*)\) (?P<result>[^=]+?)(?: =(?P<id>\w+))?")


def _split(text: str) -> list[str]:
    """The parts between commas that no parenthesis holds together."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]


@cache
def read_type(text: str) -> Type:
    """The type that a text such as `map(string, list(A))` names."""
    name, opened, rest = text.strip().partition("(")
    return Type(name, tuple(read_type(part) for part in _split(rest[:-1])) if opened else ())


def _declared(text: str) -> dict[str, tuple[Overload, ...]]:
    found: dict[str, tuple[Overload, ...]] = {}
    for line in re.sub(r";\n +", "; ", text.strip()).splitlines():
        name, _, shapes = line.partition(": ")
        # `_?_:_` has no space behind its colon.
        overloads = []
        for number, shape in enumerate(shapes.split(" ; ")):
            # A member's target may itself have parentheses: the arguments are the last ones.
            opened = _arguments_at(shape)
            target, rest = shape[:opened].removesuffix("."), shape[opened:]
            match = _SHAPE.fullmatch(rest)
            assert match is not None, shape
            texts = ([target] if target else []) + _split(match["args"])
            parameters = tuple(read_type(each) for each in texts)
            overloads.append(
                Overload(
                    match["id"] or f"{name}_{number}", bool(target), parameters, read_type(match["result"])
                )
            )
        found[name] = (*found.get(name, ()), *overloads)
    return found


def _arguments_at(shape: str) -> int:
    if shape.startswith("("):
        return 0
    return shape.index(".(") + 1


@cache
def functions() -> Mapping[str, tuple[Overload, ...]]:
    """Every function by name."""
    found = _declared(_STANDARD)
    for more in (_EXTENSIONS, _KUBERNETES):
        for name, overloads in _declared(more).items():
            found[name] = (*found.get(name, ()), *overloads)
    for name in FORMATS:
        overload = Overload("format-" + name, False, (), Type("kubernetes.NamedFormat"))
        found[f"format.{name}"] = (overload,)
    return found
