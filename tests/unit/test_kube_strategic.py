"""Strategic merge patches give what k8s.io/apimachinery's library gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from walras.core.errors import BadRequest, Invalid, Unclassified
from walras.kube.patch import merge_patch
from walras.kube.schema import Schema
from walras.kube.strategic import strategic_merge

KINDS = {
    "Pod": Schema.named("io.k8s.api.core.v1.Pod"),
    "Service": Schema.named("io.k8s.api.core.v1.Service"),
    "Deployment": Schema.named("io.k8s.api.apps.v1.Deployment"),
}
POD = KINDS["Pod"]
# Documents, patches and what strategicpatch.StrategicMergePatch of apimachinery v0.36.3 made of them, less
# the nulls and directives that it leaves for the typed decoder to drop.
UPSTREAM = json.loads((Path(__file__).parents[1] / "data" / "strategic_merge_upstream.json").read_text())


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


@pytest.mark.parametrize("case", UPSTREAM, ids=range(len(UPSTREAM)))
def test_the_result_is_upstreams(case: dict[str, Any]) -> None:
    before = json.dumps(case)
    assert strategic_merge(KINDS[case["kind"]], case["doc"], case["patch"]) == case["result"]
    assert json.dumps(case) == before, "neither the document nor the patch may change"


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        # Lists of objects merge by their key; what is new goes first.
        (
            pod(containers=[{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
            pod(containers=[{"name": "b", "image": "3"}, {"name": "c", "image": "4"}]),
            pod(containers=[
                {"name": "a", "image": "1"}, {"name": "b", "image": "3"}, {"name": "c", "image": "4"},
            ]),
        ),
        (
            pod(containers=[{"name": "a"}]),
            pod(containers=[{"name": "z"}]),
            pod(containers=[{"name": "z"}, {"name": "a"}]),
        ),
        # A list without a merge strategy is replaced.
        (
            pod(tolerations=[{"key": "a"}], containers=[{"name": "a", "args": ["1"]}]),
            pod(tolerations=[{"key": "b", "value": None}], containers=[{"name": "a", "args": ["2"]}]),
            pod(tolerations=[{"key": "b"}], containers=[{"name": "a", "args": ["2"]}]),
        ),
        (
            pod(containers=[{"name": "a"}, {"name": "b"}]),
            pod(containers=[{"name": "a", "$patch": "delete"}]),
            pod(containers=[{"name": "b"}]),
        ),
        (
            pod(containers=[{"name": "a"}, {"name": "b"}]),
            pod(containers=[{"name": "c"}, {"$patch": "replace"}]),
            pod(containers=[{"name": "c"}]),
        ),
        (
            pod(nodeSelector={"a": "1"}),
            pod(nodeSelector={"b": "2", "$patch": "replace"}),
            pod(nodeSelector={"b": "2"}),
        ),
        (pod(nodeSelector={"a": "1"}), pod(nodeSelector={"$patch": "delete"}), pod(nodeSelector={})),
        (pod(nodeSelector={"a": "1", "b": "2"}), pod(nodeSelector={"a": None}), pod(nodeSelector={"b": "2"})),
        # A volume changes its source without naming the old one.
        (
            pod(volumes=[{"name": "v", "emptyDir": {}}]),
            pod(volumes=[{"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]}]),
            pod(volumes=[{"name": "v", "hostPath": {"path": "/x"}}]),
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}},
            {"metadata": {"finalizers": ["c", "b"]}},
        ),
        (
            pod(containers=[{"name": "a"}, {"name": "b"}, {"name": "x"}]),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            pod(containers=[{"name": "b"}, {"name": "a"}, {"name": "x"}]),
        ),
    ],
)  # fmt: skip
def test_a_patch_merges(doc: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert strategic_merge(POD, doc, patch) == expected


def test_without_lists_and_directives_it_is_a_merge_patch() -> None:
    doc = {"metadata": {"labels": {"a": "1", "b": "2"}}, "data": {"x": "y"}}
    patch = {"metadata": {"labels": {"a": None, "c": "3"}}, "data": {"x": "z"}}
    schema = Schema.named("io.k8s.api.core.v1.ConfigMap")
    assert strategic_merge(schema, doc, patch) == merge_patch(doc, patch)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (pod(containers=[{"image": "x"}]),
         "map: map[image:x] does not contain declared merge key: name"),
        (pod(containers=[{"name": "a", "$patch": "frob"}]), "unknown patch type: frob in map: "
         "map[$patch:frob name:a]"),
        (pod(containers=["text"]),
         "list element types are not identical: [[map[name:a]] [text]]"),
        (pod(containers=[{"$patch": "delete"}]),
         "map: map[$patch:delete] does not contain declared merge key: name"),
        ({"spec": {"$retainKeys": "x"}}, "invalid patch format of retainKeys"),
        ({"spec": {"$retainKeys": ["containers"], "restartPolicy": "Never"}},
         "invalid patch format of retainKeys"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}},
         "invalid patch format of primitive list"),
        ({"spec": {"$setElementOrder/nothing": []}},
         'unable to find api field in struct PodSpec for the json field "nothing"'),
        ({"spec": {"$setElementOrder/containers": {}}},
         "expected a []interface {}, but received a map[string]interface {}"),
        ({"spec": {"$patch": "frob"}}, "unknown patch type: frob in map: map[$patch:frob]"),
        ([], "invalid JSON document"),
    ],
)  # fmt: skip
def test_a_bad_patch_is_refused_in_the_words_of_kubernetes(patch: Any, message: str) -> None:
    doc = {"metadata": {"finalizers": ["f"]}, "spec": {"containers": [{"name": "a"}]}}
    with pytest.raises((BadRequest, Unclassified)) as refused:
        strategic_merge(POD, doc, patch)
    assert refused.value.message == message


def test_a_list_that_contradicts_its_order_is_refused() -> None:
    patch = pod(containers=[{"name": "a"}, {"name": "b"}])
    patch["spec"]["$setElementOrder/containers"] = [{"name": "b"}, {"name": "a"}]
    with pytest.raises(Unclassified, match=r"doesn't match \$setElementOrder list"):
        strategic_merge(POD, pod(containers=[]), patch)


def test_lists_of_lists_are_refused() -> None:
    with pytest.raises(Invalid, match="lists of lists are not supported"):
        strategic_merge(POD, pod(containers=[{"name": "a"}]), pod(containers=[[]]))
