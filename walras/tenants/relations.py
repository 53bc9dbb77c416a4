"""Where a pod may be for the sake of other pods: affinity, anti-affinity and topology spread. Pure.

Follows kube-scheduler's plugins InterPodAffinity and PodTopologySpread, and uses their words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from walras.core.errors import BadRequest
from walras.kube.selectors import LabelSelector, from_label_selector
from walras.tenants.demands import Demand
from walras.tenants.fit import Node, selected, tolerated

AFFINITY: Final = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY: Final = "node(s) didn't match pod anti-affinity rules"
REPELLED: Final = "node(s) didn't satisfy existing pods anti-affinity rules"
SPREAD: Final = "node(s) didn't match pod topology spread constraints"
NO_LABEL: Final = f"{SPREAD} (missing required label)"

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_NOTHING: Final = LabelSelector(nothing=True)
Peer = tuple[Demand, Node]
"""A pod that is on a node, with the node."""
Namespaces = Callable[[str], Mapping[str, str]]
"""The labels of a namespace."""


def relates(demand: Demand) -> bool:
    """Whether other pods matter to where this one may be."""
    return bool(demand.pod_affinity or demand.pod_anti_affinity or demand.spread)


def repels(demand: Demand) -> bool:
    """Whether the pod keeps others away from where it is."""
    return bool(demand.pod_anti_affinity.get(_REQUIRED))


class _Term(NamedTuple):
    """A term of an affinity as it is for the pod that has it."""

    topology: str
    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None

    def matches(self, other: Demand, namespaces: Namespaces) -> bool:
        if not self.selector.matches(other.labels):
            return False
        if other.namespace in self.namespaces:
            return True
        chosen = self.namespace_selector
        return chosen is not None and chosen.matches(namespaces(other.namespace))


def _selector(raw: Mapping[str, Any], demand: Demand) -> LabelSelector:
    """The label selector of a term or constraint, with the values that it takes from the pod itself."""
    declared = raw.get("labelSelector")
    if declared is None:
        return _NOTHING
    own = [
        {"key": key, "operator": operator, "values": [demand.labels[key]]}
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for key in raw.get(field) or ()
        if key in demand.labels
    ]
    try:
        expressions = [*(declared.get("matchExpressions") or ()), *own]
        return from_label_selector({**declared, "matchExpressions": expressions})
    except BadRequest:
        return _NOTHING


def _term(raw: Mapping[str, Any], demand: Demand) -> _Term:
    listed, chosen = raw.get("namespaces") or (), raw.get("namespaceSelector")
    own = () if listed or chosen is not None else (demand.namespace,)
    return _Term(
        str(raw.get("topologyKey")),
        _selector(raw, demand),
        frozenset((*listed, *own)),
        from_label_selector(chosen) if chosen is not None else None,
    )


def _terms(affinity: Mapping[str, Any], demand: Demand) -> list[_Term]:
    return [_term(raw, demand) for raw in affinity.get(_REQUIRED) or ()]


def _weighed(affinity: Mapping[str, Any], demand: Demand) -> list[tuple[int, _Term]]:
    return [
        (int(raw.get("weight") or 0), _term(raw.get("podAffinityTerm") or {}, demand))
        for raw in affinity.get(_PREFERRED) or ()
    ]


class Relation:
    """One pod among the pods of its cluster: which nodes they leave it, and which it would rather have."""

    def __init__(
        self, demand: Demand, nodes: Sequence[Node], peers: Iterable[Peer], namespaces: Namespaces
    ) -> None:
        self._demand, self._namespaces = demand, namespaces
        self._near = _terms(demand.pod_affinity, demand)
        self._far = _terms(demand.pod_anti_affinity, demand)
        # Values of a topology key: where each term's pods are, and where pods are that repel this one.
        self._near_at: list[set[str]] = [set() for _ in self._near]
        self._far_at: list[set[str]] = [set() for _ in self._far]
        self._repelled_at: set[tuple[str, str]] = set()
        self._liked: Counter[tuple[str, str]] = Counter()
        self._likes = [
            *_weighed(demand.pod_affinity, demand),
            *((-weight, term) for weight, term in _weighed(demand.pod_anti_affinity, demand)),
        ]
        self._spreads = [_Spread(raw, demand, nodes) for raw in demand.spread]
        for other, node in peers:
            self._note(other, node)
        for spread in self._spreads:
            spread.settle()

    def _note(self, other: Demand, node: Node) -> None:
        for terms, places in ((self._near, self._near_at), (self._far, self._far_at)):
            for term, at in zip(terms, places, strict=True):
                if term.topology in node.labels and term.matches(other, self._namespaces):
                    at.add(node.labels[term.topology])
        for term in _terms(other.pod_anti_affinity, other) if repels(other) else ():
            if term.topology in node.labels and term.matches(self._demand, self._namespaces):
                self._repelled_at.add((term.topology, node.labels[term.topology]))
        for weight, term in self._likes:
            if term.topology in node.labels and term.matches(other, self._namespaces):
                self._liked[term.topology, node.labels[term.topology]] += weight
        for spread in self._spreads:
            spread.note(other, node)

    def refusal(self, node: Node) -> str:
        """Why other pods keep this one from the node; empty when they do not."""
        if not self._is_near(node):
            return AFFINITY
        for term, at in zip(self._far, self._far_at, strict=True):
            if node.labels.get(term.topology) in at:
                return ANTI_AFFINITY
        if any(node.labels.get(topology) == value for topology, value in self._repelled_at):
            return REPELLED
        for spread in self._spreads:
            if spread.strict and (why := spread.refusal(node)):
                return why
        return ""

    def _is_near(self, node: Node) -> bool:
        if any(term.topology not in node.labels for term in self._near):
            return False
        if not any(self._near_at):
            # The first of pods that want to be together has nobody to be with.
            return all(term.matches(self._demand, self._namespaces) for term in self._near)
        return all(
            node.labels[term.topology] in at for term, at in zip(self._near, self._near_at, strict=True)
        )

    def score(self, node: Node) -> tuple[int, int]:
        """Less is better: what the pod prefers of others, then those there that it would spread from."""
        liked = sum(weight for (key, value), weight in self._liked.items() if node.labels.get(key) == value)
        return -liked, sum(spread.crowd(node) for spread in self._spreads if not spread.strict)


class _Spread:
    """One constraint of `spec.topologySpreadConstraints`: pods that match, by domain."""

    def __init__(self, raw: Mapping[str, Any], demand: Demand, nodes: Sequence[Node]) -> None:
        self.strict = raw.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"
        self._key = str(raw.get("topologyKey"))
        self._selector = _selector(raw, demand)
        self._namespace = demand.namespace
        self._skew_max = int(raw.get("maxSkew") or 1)
        self._domains_min = int(raw.get("minDomains") or 1)
        self._itself = int(self._selector.matches(demand.labels))
        self._names = {node.name for node in nodes if self._counts(raw, demand, node)}
        self._by_domain: Counter[str] = Counter(
            {node.labels[self._key]: 0 for node in nodes if node.name in self._names}
        )
        self._least = 0

    def _counts(self, raw: Mapping[str, Any], demand: Demand, node: Node) -> bool:
        if self._key not in node.labels:
            return False
        if raw.get("nodeAffinityPolicy", "Honor") == "Honor" and not selected(demand, node):
            return False
        if raw.get("nodeTaintsPolicy", "Ignore") == "Ignore":
            return True
        hard = [each for each in node.taints if each.get("effect") in ("NoSchedule", "NoExecute")]
        return all(tolerated(taint, demand.tolerations) for taint in hard)

    def note(self, other: Demand, node: Node) -> None:
        counted = node.name in self._names and other.namespace == self._namespace and not other.leaving
        if counted and self._selector.matches(other.labels):
            self._by_domain[node.labels[self._key]] += 1

    def settle(self) -> None:
        enough = len(self._by_domain) >= self._domains_min
        self._least = min(self._by_domain.values(), default=0) if enough else 0

    def refusal(self, node: Node) -> str:
        domain = node.labels.get(self._key)
        if domain is None:
            return NO_LABEL
        skew = self._by_domain[domain] + self._itself - self._least
        return SPREAD if skew > self._skew_max else ""

    def crowd(self, node: Node) -> int:
        """Pods that match in the node's domain; a node of no domain is the last to be taken."""
        domain = node.labels.get(self._key)
        return self._by_domain[domain] if domain is not None else 1 << 20
