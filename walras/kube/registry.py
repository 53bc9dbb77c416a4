"""What a cluster serves: a fixed table of built-in types, Walras' own kinds, and the cluster's CRDs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from walras.core.errors import NotFound
from walras.kube.conversion.config import Webhook
from walras.kube.schema import Schema

CORE_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """A resource type at a version in which it is served."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    raw_schema: Mapping[str, Any] = field(repr=False, hash=False, compare=False)
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = CORE_VERBS
    # Of "status", "scale", "log", "binding", "token", "proxy", ... each with its own verbs.
    subresources: tuple[str, ...] = ()
    # A CRD's additionalPrinterColumns; None where the type has printers of its own.
    printer_columns: tuple[Mapping[str, Any], ...] | None = field(default=None, hash=False)
    # A CRD's selectableFields as dotted paths ("spec.color"), and its scale subresource's paths.
    selectable_fields: tuple[str, ...] = ()
    scale: Mapping[str, str] | None = field(default=None, hash=False)
    # False for a CRD's kind and for Walras' own: pruned, defaulted and checked by its own schema.
    builtin: bool = True
    # The version of the type in which its objects are stored, where that is another; see versions.py.
    stored: Resource | None = field(default=None, repr=False)
    # Whether objects may lie in several versions, each of which says which it is, or lack some defaults.
    is_mixed: bool = False
    # Nobody can ask for what is not served; it is known by its key.
    is_served: bool = True
    # What everybody who asks for it is warned of.
    deprecation: str = ""
    # Who says what objects are in other versions; None where only their apiVersion changes.
    converter: Webhook | None = None

    @cached_property
    def storage(self) -> Resource:
        """The version in which the store has the objects; their key in the store is its key."""
        return self.stored or self

    @cached_property
    def is_as_stored(self) -> bool:
        """Whether what lies in the store is what this version says."""
        return self.stored is None and not self.is_mixed

    @cached_property
    def key(self) -> str:
        """The name by which code addresses the type: "pods", "jobs.batch", "bids.walras.dev"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @cached_property
    def alone(self) -> Resource:
        """The type as if this were its only version, where somebody outside converts; else itself."""
        if self.converter is None:
            return self
        return replace(self, stored=None, is_mixed=False, converter=None)

    @cached_property
    def schema(self) -> Schema:
        return Schema(self.raw_schema)

    @cached_property
    def has_status(self) -> bool:
        return "status" in self.subresources


_VERSION: Final = re.compile(r"v(\d{1,9})(?:(alpha|beta)(\d{1,9}))?", re.ASCII)


def priority(version: str) -> tuple[int, int, int, str]:
    """Sorts versions as Kubernetes prefers them: v2, v1, v2beta1, v1alpha3, then others by name."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return 3, 0, 0, version
    level = ("", "beta", "alpha").index(match.group(2) or "")
    return level, -int(match.group(1)), -int(match.group(3) or 0), ""


def _rank(resource: Resource) -> tuple[str, tuple[int, int, int, str], str]:
    return resource.group, priority(resource.version), resource.plural


class Registry:
    """The resources of a cluster: a base that all clusters share, and the cluster's own additions.

    What the base serves cannot be replaced: a cluster's CRD of the same group and plural is not seen.
    """

    __slots__ = ("_base", "_by_key", "_by_kind", "_by_path")

    def __init__(self, resources: Iterable[Resource], base: Registry | None = None) -> None:
        self._base = base
        self._by_key: dict[str, Resource] = {}
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str, str], Resource] = {}
        for resource in resources:
            if base is not None and base.by_key(resource.key) is not None:
                continue
            if resource.stored is None or resource.stored.key != resource.key:
                self._by_key[resource.key] = resource
            if not resource.is_served:
                continue
            self._by_path[resource.group, resource.version, resource.plural] = resource
            self._by_kind[resource.group, resource.version, resource.kind] = resource

    def with_crds(self, resources: Iterable[Resource]) -> Registry:
        """The shared base with exactly these additions; earlier additions are left out."""
        base = self if self._base is None else self._base
        mine = sorted(resources, key=_rank)
        return Registry(mine, base) if mine else base

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        found = self._by_path.get((group, version, plural))
        return self._base.find(group, version, plural) if found is None and self._base else found

    def by_key(self, key: str) -> Resource | None:
        """The resource addressed "pods", "jobs.batch", "bids.walras.dev", in the version it is stored in."""
        found = self._by_key.get(key)
        return self._base.by_key(key) if found is None and self._base else found

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        found = self._by_kind.get((group, version, kind))
        return self._base.by_kind(group, version, kind) if found is None and self._base else found

    def __getitem__(self, key: str) -> Resource:
        """Raises NotFound, with Kubernetes' words, for a resource that is not served."""
        found = self.by_key(key)
        if found is None:
            raise NotFound("the server could not find the requested resource")
        return found

    def __contains__(self, key: str) -> bool:
        return self.by_key(key) is not None

    def __iter__(self) -> Iterator[Resource]:
        if self._base is not None:
            yield from self._base
        yield from self._by_path.values()

    def __len__(self) -> int:
        return len(self._by_path) + (len(self._base) if self._base is not None else 0)

    @property
    def additions(self) -> tuple[Resource, ...]:
        """What this cluster has beyond the shared base."""
        return tuple(self._by_path.values()) if self._base is not None else ()

    def is_own(self, key: str) -> bool:
        """Whether this cluster has the type beyond the shared base, served or not."""
        return self._base is not None and key in self._by_key

    def group_versions(self) -> tuple[tuple[str, str], ...]:
        """Every (group, version) served, in the order of first mention, core first."""
        return tuple(dict.fromkeys((resource.group, resource.version) for resource in self))

    def of(self, group: str, version: str) -> tuple[Resource, ...]:
        """The resources of one group version; empty when it is not served."""
        return tuple(r for r in self if r.group == group and r.version == version)
