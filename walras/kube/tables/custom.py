"""The rows of custom resources, by their CRD's additionalPrinterColumns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from walras.kube.registry import Resource
from walras.kube.schema import definitions
from walras.kube.tables.columns import Column, Printer, columns_of, name, since
from walras.kube.tables.jsonpath import Path, PathFault, parse

Object = dict[str, Any]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@cache
def _age() -> Mapping[str, Any]:
    """The column of a type that declares none."""
    about = definitions()[_META]["properties"]["creationTimestamp"]["description"]
    return {
        "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": about
    }  # fmt: skip


def printer(resource: Resource) -> Printer:
    """The printer that a CRD's version declares; name and age where it declares none."""
    declared = resource.printer_columns or (_age(),)
    columns = [columns_of("serviceaccounts")[0]]
    for column in declared:
        about = column.get("description") or (
            f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
        )
        columns.append(
            Column(
                name=column["name"],
                type=column["type"],
                priority=column.get("priority", 0),
                about=about,
                format=column.get("format", ""),
            )
        )
    paths = [(_path(column["jsonPath"]), column["type"]) for column in declared]

    def cells(obj: Object, now_ms: int) -> list[Any]:
        # Of several values Kubernetes shows the first.
        found = [(path.find(obj) if path else [], kind) for path, kind in paths]
        return [name(obj), *(_cell(values[0], kind, now_ms) if values else None for values, kind in found)]

    return Printer(tuple(columns), cells)


def _path(text: str) -> Path | None:
    """The column's path; none where it cannot be read, and its cells stay empty."""
    try:
        return parse(text)
    except PathFault:
        return None


def _cell(value: Any, kind: str, now_ms: int) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "string":
            return _text(value)
        case "date":
            return since(value, now_ms) if isinstance(value, str) else None
        case "integer":
            return int(value) if number else None
        case "number":
            return value if number else None
        case "boolean":
            return value if isinstance(value, bool) else None
    return None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value, order="sorted").decode()
