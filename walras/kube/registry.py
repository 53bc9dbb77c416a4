"""What a cluster serves: a fixed table of built-in types, Walras' own kinds, and the cluster's CRDs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from walras.kube.schema import Schema

CORE_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """A resource type at the one version it is stored and served in."""

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
    printer_columns: tuple[Mapping[str, Any], ...] | None = None
    builtin: bool = True

    @property
    def key(self) -> str:
        """The name by which code and store address it: "pods", "jobs.batch", "bids.walras.dev"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @cached_property
    def schema(self) -> Schema:
        return Schema(self.raw_schema)

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources
