"""The rows of a scale: of a workload, and of a custom resource, whose columns upstream words otherwise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Final

from walras.kube.schema import definitions
from walras.kube.tables.columns import Column, Printer, age, columns_of, name, spec

Object = dict[str, Any]

_OF: Final = "io.k8s.api.autoscaling.v1.Scale"


@cache
def printer(*, custom: bool) -> Printer:
    """The printer of scales of custom resources, or of the others."""
    column, made = columns_of("limitranges")
    if custom:
        counts = [Column("Desired", "integer", about="Number of desired replicas"),
                  Column("Available", "integer", about="Number of actual replicas")]  # fmt: skip
        return Printer((column, *counts, replace(made, name="Age")), _custom_cells)
    counts = [
        Column(title, "integer", about=definitions()[f"{_OF}{part}"]["properties"]["replicas"]["description"])
        for title, part in (("Desired", "Spec"), ("Available", "Status"))
    ]
    return Printer((replace(column, format=""), *counts, replace(made, name="Age", type="string")), _cells)


def _cells(scale: Object, now_ms: int) -> list[Any]:
    return [name(scale), spec(scale).get("replicas", 0), scale["status"]["replicas"], age(scale, now_ms)]


def _custom_cells(scale: Object, now_ms: int) -> list[Any]:
    return [name(scale), spec(scale).get("replicas"), scale["status"]["replicas"], age(scale, now_ms)]
