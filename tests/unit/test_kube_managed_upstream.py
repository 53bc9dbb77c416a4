"""Server-side apply and updates, step by step, end as k8s.io/apimachinery's own field manager ends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from walras.core.errors import Conflict
from walras.kube.applying import apply
from walras.kube.managed import record
from walras.kube.patch import copied
from walras.kube.registry import Resource
from walras.kube.schema import definitions

Object = dict[str, Any]

# Random steps of three managers and what managedfieldstest.NewTestFieldManager of apimachinery v0.36.3, with
# client-go's types, answered to each: an error, or the object and who owns what.
CASES = json.loads((Path(__file__).parents[1] / "data" / "server_side_apply_upstream.json").read_text())
GROUPS = {"Deployment": "apps"}


def resource(kind: str) -> Resource:
    group = GROUPS.get(kind, "")
    schema = definitions()[f"io.k8s.api.{group or 'core'}.v1.{kind}"]
    return Resource(group, "v1", kind, f"{kind.lower()}s", kind.lower(), True, schema)


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: without_empty(child) for key, child in value.items()}
        return {key: child for key, child in kept.items() if child not in ({}, [], None)}
    return [without_empty(child) for child in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["kind"])
def test_every_step_ends_as_upstreams(case: Object) -> None:
    of = resource(case["kind"])
    live: Object | None = None
    for step in case["steps"]:
        if "error" in step:
            with pytest.raises(Conflict) as refused:
                apply(of, live, step["object"], manager=step["manager"], force=step["force"], now="t")
            assert refused.value.message == step["error"]
            continue
        if step["op"] == "apply":
            live = apply(of, live, step["object"], manager=step["manager"], force=step["force"], now="t")
        else:
            new = copied(step["object"])
            record(of, live, new, manager=step["manager"], now="t")
            live = new
        entries = live["metadata"].get("managedFields", [])
        owners = {f"{entry['manager']} {entry['operation']}": entry["fieldsV1"] for entry in entries}
        assert owners == step["owners"]
        result = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k != "managedFields"}}
        assert without_empty(result) == without_empty(step["result"])
