"""Label and field selectors of list, watch and deletecollection, with apimachinery's grammar and wording."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from walras.core.errors import BadRequest
from walras.kube.registry import Resource

Object = dict[str, Any]

_TOKEN: Final = re.compile(r"[ \t\r\n]*(==|!=|[=!(),<>]|[^=!(),<> \t\r\n]+|$)")
_SYMBOLS: Final = frozenset(("=", "==", "!=", "!", "(", ")", ",", "<", ">", ""))
_OPERATORS: Final = "in, notin, =, ==, !=, gt, lt"
_INTEGER: Final = re.compile(r"[+-]?\d{1,19}", re.ASCII)

_NAME_FORMAT: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAME: Final = re.compile(_NAME_FORMAT, re.ASCII)
_SUBDOMAIN_FORMAT: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SUBDOMAIN: Final = re.compile(_SUBDOMAIN_FORMAT, re.ASCII)
_NAME_RULE: Final = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
    f"regex used for validation is '{_NAME_FORMAT}')"
)
_SUBDOMAIN_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', "
    f"regex used for validation is '{_SUBDOMAIN_FORMAT}')"
)
_VALUE_RULE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
    f"regex used for validation is '({_NAME_FORMAT})?')"
)


def label_key_faults(key: str) -> list[str]:
    """What is wrong with a label or annotation key, in Kubernetes' words; empty when nothing is."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        return [f"a valid label key {_NAME_RULE} with an optional DNS subdomain prefix and '/' "
                "(e.g. 'example.com/MyName')"]  # fmt: skip
    faults = []
    if slash and not prefix:
        faults.append("prefix part must be non-empty")
    elif slash:
        if len(prefix) > 253:
            faults.append("prefix part must be no more than 253 bytes")
        if not _SUBDOMAIN.fullmatch(prefix):
            faults.append(f"prefix part {_SUBDOMAIN_RULE}")
    if not name:
        faults.append("name part must be non-empty")
    elif len(name) > 63:
        faults.append("name part must be no more than 63 bytes")
    if not _NAME.fullmatch(name):
        faults.append(f"name part {_NAME_RULE}")
    return faults


def label_value_faults(value: str) -> list[str]:
    """What is wrong with a label value, in Kubernetes' words; empty when nothing is."""
    faults = ["must be no more than 63 bytes"] if len(value.encode()) > 63 else []
    if value and not _NAME.fullmatch(value):
        faults.append(_VALUE_RULE)
    return faults


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term. `operator` is "In", "NotIn", "Exists", "DoesNotExist", "Gt" or "Lt"."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
        if value is None or not _INTEGER.fullmatch(value):
            return False
        (bound,) = self.values
        return int(value) > int(bound) if self.operator == "Gt" else int(value) < int(bound)


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Every requirement must hold; none means everything, unless `nothing`."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def __bool__(self) -> bool:
        return self.nothing or bool(self.requirements)

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.nothing:
            return False
        have = labels or {}
        return all(requirement.matches(have) for requirement in self.requirements)


def _requirement(key: str, operator: str, values: frozenset[str]) -> Requirement:
    if faults := label_key_faults(key):
        raise ValueError(f'key: Invalid value: "{key}": {"; ".join(faults)}')
    if operator in ("In", "NotIn") and not values:
        raise ValueError("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    if operator in ("Exists", "DoesNotExist") and values:
        raise ValueError("values: Invalid value: values set must be empty for exists and does not exist")
    for index, value in enumerate(sorted(values)):
        if operator in ("Gt", "Lt") and not _INTEGER.fullmatch(value):
            raise ValueError(
                f'values[{index}]: Invalid value: "{value}": '
                "for 'Gt', 'Lt' operators, the value must be an integer"
            )
        if faults := label_value_faults(value):
            raise ValueError(f'values[{index}][{key}]: Invalid value: "{value}": {"; ".join(faults)}')
    return Requirement(key, operator, values)


class _LabelParser:
    """Recursive descent over the tokens; `in` and `notin` are words where a name may stand."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.next = 0

    def peek(self) -> str:
        return self.tokens[self.next]

    def take(self) -> str:
        token = self.peek()
        self.next = min(self.next + 1, len(self.tokens) - 1)
        return token

    def selector(self) -> Iterator[Requirement]:
        if self.peek() in _SYMBOLS and self.peek() not in ("!", ""):
            raise ValueError(f"found '{self.peek()}', expected: !, identifier, or 'end of string'")
        while self.peek():
            try:
                yield self.requirement()
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from None
            end = self.take()
            if end not in ("", ","):
                raise ValueError(f"found '{end}', expected: ',' or 'end of string'")
            if end == "," and self.peek() in _SYMBOLS and self.peek() != "!":
                raise ValueError(f"found '{self.peek()}', expected: identifier after ','")

    def requirement(self) -> Requirement:
        negated = self.peek() == "!"
        if negated:
            self.take()
        key = self.take()
        if key in _SYMBOLS:
            raise ValueError(f"found '{key}', expected: identifier")
        if faults := label_key_faults(key):
            raise ValueError(f'<nil>: Invalid value: "{key}": {"; ".join(faults)}')
        if negated or self.peek() in ("", ","):
            return Requirement(key, "DoesNotExist" if negated else "Exists")
        return self.comparison(key)

    def comparison(self, key: str) -> Requirement:
        operator = self.take()
        match operator:
            case "in" | "notin":
                return _requirement(key, "In" if operator == "in" else "NotIn", frozenset(self.values()))
            case "=" | "==":
                return _requirement(key, "In", frozenset((self.exact(),)))
            case "!=":
                return _requirement(key, "NotIn", frozenset((self.exact(),)))
            case ">" | "<":
                return _requirement(key, "Gt" if operator == ">" else "Lt", frozenset((self.exact(),)))
        raise ValueError(f"found '{operator}', expected: {_OPERATORS}")

    def exact(self) -> str:
        if self.peek() in ("", ","):
            return ""
        value = self.take()
        if value in _SYMBOLS:
            raise ValueError(f"found '{value}', expected: identifier")
        return value

    def values(self) -> Iterator[str]:
        if (token := self.take()) != "(":
            raise ValueError(f"found '{token}' expected: '('")
        while True:
            yield "" if self.peek() in (",", ")") else self.exact()
            end = self.take()
            if end == ")":
                return
            if end != ",":
                raise ValueError(f"found '{end}', expected: ',' or ')'")


def _tokens(text: str) -> list[str]:
    """The tokens, the last one empty."""
    found = [match.group(1) for match in _TOKEN.finditer(text)]
    return [token for token in found if token] + [""]


def parse_labels(text: str) -> LabelSelector:
    """The selector written as in `kubectl get -l`. Raises BadRequest."""
    try:
        return LabelSelector(tuple(_LabelParser(text).selector()))
    except ValueError as error:
        raise BadRequest(str(error)) from None


_EXPRESSIONS: Final = ("In", "NotIn", "Exists", "DoesNotExist")


def from_label_selector(selector: Mapping[str, Any] | None) -> LabelSelector:
    """The selector of a `metav1.LabelSelector`; None matches nothing, an empty one all. Raises BadRequest."""
    if selector is None:
        return LabelSelector(nothing=True)
    try:
        requirements = [
            _requirement(key, "In", frozenset((value,)))
            for key, value in (selector.get("matchLabels") or {}).items()
        ]
        for term in selector.get("matchExpressions") or ():
            operator = term.get("operator", "")
            if operator not in _EXPRESSIONS:
                raise ValueError(f'"{operator}" is not a valid label selector operator')
            values = frozenset(term.get("values") or ())
            requirements.append(_requirement(term.get("key", ""), operator, values))
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return LabelSelector(tuple(requirements))


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One field compared with one value."""

    field: str
    value: str
    equal: bool


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Every term must hold. `resource` names the type whose fields they are."""

    resource: str = ""
    terms: tuple[FieldTerm, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.terms)

    def matches(self, obj: Mapping[str, Any]) -> bool:
        return all(
            (_field_value(self.resource, term.field, obj) == term.value) == term.equal for term in self.terms
        )

    def exact(self, field: str) -> str | None:
        """The one value that `field` must have for a match, if the selector says so."""
        return next((term.value for term in self.terms if term.field == field and term.equal), None)


_INVOLVED: Final = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "pods": (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs",
        "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "events": (
        *(f"involvedObject.{name}" for name in _INVOLVED), "reason", "reportingComponent", "source", "type",
    ),
    "events.events.k8s.io": (
        *(f"regarding.{name}" for name in _INVOLVED), "reason", "reportingController", "type",
    ),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicationcontrollers": ("status.replicas",),
    "jobs.batch": ("status.successful",),
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "resourceslices.resource.k8s.io": ("spec.driver", "spec.nodeName"),
}  # fmt: skip


# Fields of a version that has another name for them than the stored one.
_STORED_LABELS: Final[dict[str, dict[str, str]]] = {
    "events.events.k8s.io": {
        "reportingController": "reportingComponent",
        **{f"regarding.{name}": f"involvedObject.{name}" for name in _INVOLVED},
    },
}


def _pod_ip(pod: Mapping[str, Any]) -> str:
    status = pod.get("status") or {}
    ips = status.get("podIPs") or [{"ip": status.get("podIP", "")}]
    return str(ips[0].get("ip", ""))


def _event_source(event: Mapping[str, Any]) -> str:
    return str((event.get("source") or {}).get("component") or event.get("reportingComponent", ""))


_COMPUTED: Final[dict[tuple[str, str], Callable[[Mapping[str, Any]], str]]] = {
    ("pods", "status.podIP"): _pod_ip,
    # A field that may be asked for and that no pod has.
    ("pods", "status.podIPs"): lambda _: "",
    ("events", "source"): _event_source,
}
_ABSENT: Final = {"spec.hostNetwork": "false", "spec.unschedulable": "false", "status.successful": "0",
                  "status.replicas": "0"}  # fmt: skip
# Where the external type keeps the field under another name than the selector does.
_PATHS: Final = {"status.successful": "status.succeeded"}


def _field_value(resource: str, field: str, obj: Mapping[str, Any]) -> str:
    computed = _COMPUTED.get((resource, field))
    if computed is not None:
        return computed(obj)
    value: Any = obj
    for name in _PATHS.get(field, field).split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        return _ABSENT.get(field, "")
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _supported(field: str, resource: Resource) -> None:
    """Raises BadRequest when objects of the type cannot be selected by the field."""
    own = resource.builtin and resource.key in _FIELDS
    everywhere = resource.builtin and not own
    if field == "metadata.name" or (field == "metadata.namespace" and (resource.namespaced or everywhere)):
        return
    declared = resource.selectable_fields
    if own:
        if field in _FIELDS[resource.key]:
            return
        if resource.key == "jobs.batch":
            raise BadRequest(f'field label "{field}" not supported for Job')
        kind = f"{resource.group}/{resource.version}, Kind={resource.kind}"
        of = f" for {kind}" if resource.key == "resourceslices.resource.k8s.io" else ""
        raise BadRequest(f"field label not supported{of}: {field}")
    if field in declared:
        return
    if not resource.builtin:
        raise BadRequest(f"field label not supported: {field}")
    raise BadRequest(f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"')


def field_terms(text: str) -> list[FieldTerm]:
    """What a field selector compares, whether or not a type has such fields. Raises BadRequest."""
    terms = []
    for part in re.findall(r"(?:\\.|[^,\\]|\\$)+", text):
        split = re.search(r"!=|==|=", part)
        if split is None:
            raise BadRequest(f"invalid selector: '{text}'; can't understand '{part}'")
        field, value = part[: split.start()], _unescape(part[split.end() :])
        if field or value:
            terms.append(FieldTerm(field, value, split.group() != "!="))
    return terms


def parse_fields(text: str, resource: Resource) -> FieldSelector:
    """The selector written as in `kubectl get --field-selector`. Raises BadRequest."""
    terms = []
    for term in field_terms(text):
        field = "spec.nodeName" if term.field == "spec.host" else term.field
        _supported(field, resource)
        terms.append(replace(term, field=_STORED_LABELS.get(resource.key, {}).get(field, field)))
    return FieldSelector(resource.storage.key, tuple(terms))


def _unescape(value: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*=", value):
        raise BadRequest("invalid field selector: unescaped character in value: 61")
    if bad := re.search(r"(?<!\\)(?:\\\\)*(\\(?:[^\\,=]|$))", value):
        raise BadRequest(f"invalid field selector: invalid escape sequence: {bad.group(1)}")
    return re.sub(r"\\([\\,=])", r"\1", value)
