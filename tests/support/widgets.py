"""A custom resource with a scale, for tests of what is done with custom resources."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

WIDGET = "widgets.example.com"


def definition(fields: Object, **more: Object) -> Object:
    """The definition of Widgets whose spec has `fields`, and that have `more` beside it.

    How many they are to be is at spec.size, how many they are at status.size.
    """
    paths = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    spec = {"type": "object", "properties": fields}
    schema = {"type": "object", "properties": {"spec": spec, **more}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": paths},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"}
    return {
        "metadata": {"name": WIDGET},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
