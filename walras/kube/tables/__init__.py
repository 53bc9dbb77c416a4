"""meta.k8s.io/v1 Table and PartialObjectMetadata: what `kubectl get` asks for and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from walras.core.errors import BadRequest
from walras.kube import versions
from walras.kube.registry import Resource
from walras.kube.tables import custom, network, nodes, plain, pods, scales, storage, workloads
from walras.kube.tables.columns import Cells, Printer, columns_of

Object = dict[str, Any]

META_VERSION: Final = "meta.k8s.io/v1"
# The subresource of many a type that is printed by columns of its own.
SCALE: Final = ("autoscaling/v1", "Scale")

_CELLS: Final[Mapping[str, Cells]] = {
    "nodes": nodes.cells,
    "pods": pods.cells,
    **network.CELLS,
    **plain.CELLS,
    **storage.CELLS,
    **workloads.CELLS,
}


def _printer(resource: Resource, items: Sequence[Object]) -> Printer:
    if items and (items[0].get("apiVersion"), items[0].get("kind")) == SCALE:
        return scales.printer(custom=not resource.builtin)
    if not resource.builtin:
        return custom.printer(resource)
    key = resource.storage.key
    conditions = pods.conditions if key == "pods" else None
    return Printer(columns_of(key), _CELLS.get(key, plain.made_at), conditions)


def partial(obj: Mapping[str, Any]) -> Object:
    """The object's metadata alone, as a PartialObjectMetadata. Shares it with `obj`."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": META_VERSION,
        "metadata": obj.get("metadata") or {},
    }


def table(
    resource: Resource,
    items: Sequence[Object],
    *,
    now_ms: int,
    include_object: str = "Metadata",
    headers: bool = True,
) -> Object:
    """A Table of the items, wide columns too, ages as of `now_ms`; list metadata is the caller's to fill.

    `include_object` is "Metadata" (or ""), "Object" or "None"; BadRequest for another. Without `headers` the
    column definitions are null, as in all but the first event of a watch.
    """
    if include_object not in ("", "Metadata", "Object", "None"):
        raise BadRequest(f'unrecognized includeObject value: "{include_object}"')
    printer = _printer(resource, items)
    definitions = [column.definition() for column in printer.columns] if headers else None
    return {
        "kind": "Table",
        "apiVersion": META_VERSION,
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": [_row(resource, printer, item, now_ms, include_object) for item in items],
    }


def _row(resource: Resource, printer: Printer, item: Object, now_ms: int, include_object: str) -> Object:
    # Printers of built-in types know their stored version.
    as_it_is = not resource.builtin or item.get("kind") == SCALE[1]
    known = item if as_it_is else versions.stored(resource, item)
    row: Object = {"cells": printer.cells(known, now_ms)}
    if printer.conditions and (conditions := printer.conditions(known)):
        row["conditions"] = conditions
    if include_object == "None":
        row["object"] = None
    else:
        row["object"] = item if include_object == "Object" else partial(item)
    return row
