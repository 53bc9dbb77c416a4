"""PolicyRules: whether one allows a request, and whether some rules cover others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from walras.kube.access.words import Attributes, Rule

# What an escalation check looks at: a rule of a thousand groups, types and verbs each says a billion things.
ATOMS_MAX: Final = 20_000
COMPARISONS_MAX: Final = 2_000_000
# Everything there is, which is what an aggregated role may come to.
EVERYTHING: Final[tuple[Rule, ...]] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


class TooManyRules(Exception):
    """The rules say more than an escalation check looks at."""


def allows(rule: Rule, asked: Attributes) -> bool:
    """Whether the rule allows the request."""
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and asked.verb not in verbs:
        return False
    if asked.path:
        return any(_covers_path(url, asked.path) for url in rule.get("nonResourceURLs") or ())
    groups = rule.get("apiGroups") or ()
    if "*" not in groups and asked.group not in groups:
        return False
    resources = rule.get("resources") or ()
    if (
        "*" not in resources
        and asked.combined not in resources
        and not (asked.subresource and f"*/{asked.subresource}" in resources)
    ):
        return False
    names = rule.get("resourceNames")
    return not names or asked.name in names


def _covers_path(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url.rstrip("*")))


def missing(held: Sequence[Rule], wanted: Sequence[Rule]) -> list[Rule]:
    """What of `wanted` the rules in `held` do not cover, one group, type, verb and name at a time.

    Raises TooManyRules.
    """
    if sum(map(_size, wanted)) > ATOMS_MAX:
        raise TooManyRules
    atoms = [atom for rule in wanted for atom in _atoms(rule)]
    if len(atoms) * len(held) > COMPARISONS_MAX:
        raise TooManyRules
    sets = [_Held(rule) for rule in held]
    return [atom for atom in atoms if not any(each.covers(atom) for each in sets)]


def _size(rule: Rule) -> int:
    verbs = len(rule.get("verbs") or ())
    types = len(rule.get("apiGroups") or ()) * len(rule.get("resources") or ())
    return verbs * (
        types * max(1, len(rule.get("resourceNames") or ())) + len(rule.get("nonResourceURLs") or ())
    )


def _atoms(rule: Rule) -> Iterable[Rule]:
    verbs = rule.get("verbs") or ()
    for group in rule.get("apiGroups") or ():
        for resource in rule.get("resources") or ():
            for verb in verbs:
                plain: Rule = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
                names = rule.get("resourceNames")
                yield from ({**plain, "resourceNames": [name]} for name in names) if names else (plain,)
    for url in rule.get("nonResourceURLs") or ():
        yield from ({"verbs": [verb], "nonResourceURLs": [url]} for verb in verbs)


class _Held:
    """A rule that somebody has, ready to be compared with many."""

    __slots__ = ("_groups", "_names", "_resources", "_urls", "_verbs")

    def __init__(self, rule: Rule) -> None:
        self._verbs = frozenset(rule.get("verbs") or ())
        self._groups = frozenset(rule.get("apiGroups") or ())
        self._resources = frozenset(rule.get("resources") or ())
        self._names = frozenset(rule.get("resourceNames") or ())
        self._urls = tuple(rule.get("nonResourceURLs") or ())

    def covers(self, atom: Rule) -> bool:
        if "*" not in self._verbs and atom["verbs"][0] not in self._verbs:
            return False
        if "nonResourceURLs" in atom:
            url = atom["nonResourceURLs"][0]
            return any(
                own == url or (own.endswith("*") and url.startswith(own.rstrip("*"))) for own in self._urls
            )
        if "*" not in self._groups and atom["apiGroups"][0] not in self._groups:
            return False
        resource = atom["resources"][0]
        _, slash, subresource = resource.partition("/")
        if (
            "*" not in self._resources
            and resource not in self._resources
            and not (slash and f"*/{subresource}" in self._resources)
        ):
            return False
        names = atom.get("resourceNames")
        return not self._names or (names is not None and names[0] in self._names)


def compact(atoms: Iterable[Rule]) -> list[Rule]:
    """The same, with the verbs of one group and type in one rule."""
    merged: dict[bytes, Rule] = {}
    for atom in atoms:
        without = {name: value for name, value in atom.items() if name != "verbs"}
        simple = "resources" in atom and "resourceNames" not in atom
        where = msgspec.json.encode(without if simple else atom)
        if where in merged:
            merged[where]["verbs"] += atom["verbs"]
        else:
            merged[where] = {**atom, "verbs": list(atom["verbs"])}
    return list(merged.values())


def text(rule: Rule) -> str:
    """A rule in one line, as Kubernetes' refusals show it."""
    parts = ("APIGroups", "apiGroups"), ("Resources", "resources"), ("NonResourceURLs", "nonResourceURLs"), \
        ("ResourceNames", "resourceNames"), ("Verbs", "verbs")  # fmt: skip
    return "{" + ", ".join(f"{said}:{quoted(rule[name])}" for said, name in parts if rule.get(name)) + "}"


def quoted(values: Iterable[str]) -> str:
    """As Go's %q writes a slice of strings."""
    return "[" + " ".join(msgspec.json.encode(str(value)).decode() for value in values) + "]"
