"""Corners of the API that clients seldom go to, answered as the real kube-apiserver answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from differential import known
from differential.running import make_namespace
from differential.sides import embedded, real
from differential.steps import Step
from differential.story import APPLY, MERGE, asked, compared
from support import reference

WHY = reference.missing("etcd", "kube-apiserver")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(WHY), reason=WHY)]

Object = dict[str, Any]
CORE = "/api/v1/namespaces/own"
BATCH, APPS = "/apis/batch/v1/namespaces/own", "/apis/apps/v1/namespaces/own"
THINGS = "/apis/ex.io/v1/namespaces/own/things"
POD: Object = {"automountServiceAccountToken": False, "containers": [{"name": "a", "image": "b"}]}
TEMPLATE: Object = {"metadata": {"labels": {"a": "b"}}, "spec": POD}
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u"}


def metadata_of_status() -> Iterator[Step]:
    """What a write of the status may change of the metadata."""
    job = {"template": {"spec": {**POD, "restartPolicy": "Never"}}, "suspend": True}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    changed = {
        "finalizers": ["a/b"],
        "labels": {"l": "m"},
        "annotations": {"x": "y"},
        "ownerReferences": [OWNER],
    }
    for path, spec in (
        (f"{BATCH}/jobs", job),
        (f"{BATCH}/cronjobs", {"schedule": "* * * * *", "jobTemplate": {"spec": job}}),
        (f"{CORE}/persistentvolumeclaims", claim),
        (f"{CORE}/pods", POD),
        (f"{CORE}/services", {"clusterIP": "None", "ports": [{"port": 80}]}),
        (f"{CORE}/resourcequotas", {}),
        (f"{CORE}/replicationcontrollers", {"replicas": 0, "selector": {"a": "b"}, "template": TEMPLATE}),
        (f"{APPS}/deployments", {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}),
        (f"{APPS}/replicasets", {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}),
        (f"{APPS}/statefulsets", {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}),
        (f"{APPS}/daemonsets", {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}),
        ("/apis/policy/v1/namespaces/own/poddisruptionbudgets", {}),
        ("/apis/networking.k8s.io/v1/namespaces/own/ingresses",
         {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}),
        ("/apis/autoscaling/v2/namespaces/own/horizontalpodautoscalers",
         {"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "a", "apiVersion": "apps/v1"}}),
    ):  # fmt: skip
        yield asked("POST", path, {"metadata": {"name": "m"}, "spec": spec}, fieldManager="one")
        yield asked("PATCH", f"{path}/m/status", {"metadata": changed}, MERGE, fieldManager="two")
        yield asked("GET", f"{path}/m")


def applied() -> Iterator[Step]:
    """Configurations of what is not there, of nobody, and of the status."""
    for path, version, kind in (
        (f"{CORE}/services", "v1", "Service"),
        (f"{CORE}/pods", "v1", "Pod"),
        (f"{APPS}/deployments", "apps/v1", "Deployment"),
        ("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
         "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
    ):  # fmt: skip
        empty = {"apiVersion": version, "kind": kind, "metadata": {"name": "absent"}}
        yield asked("PATCH", f"{path}/absent/status", empty, APPLY, fieldManager="m")
    data = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    for there in (False, True):
        if there:
            yield asked("POST", f"{CORE}/configmaps", {"metadata": {"name": "n"}})
        given: tuple[Object, ...] = (
            {},
            {"metadata": {}},
            {"metadata": None},
            {"metadata": {"name": "other"}},
            {"metadata": {"name": ""}},
            {"metadata": {"name": "n", "namespace": "other"}},
        )
        for metadata in given:
            yield asked("PATCH", f"{CORE}/configmaps/n", {**data, **metadata}, APPLY, fieldManager="m")


def scaled() -> Iterator[Step]:
    """Scales that are applied."""
    deployment = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
    path = f"{APPS}/deployments/d/scale"
    scale: Object = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}}
    yield asked(
        "POST", f"{APPS}/deployments", {"metadata": {"name": "d"}, "spec": deployment}, fieldManager="one"
    )
    yield asked("PATCH", path, {**scale, "spec": {"replicas": 3}}, APPLY, fieldManager="two")
    yield asked("PATCH", path, {**scale, "spec": {"replicas": 3}}, APPLY, fieldManager="two", force="true")
    yield asked("GET", f"{APPS}/deployments/d")
    yield asked("PATCH", path, {**scale, "spec": {"replicas": 4}}, APPLY, fieldManager="three")
    yield asked("PATCH", path, {**scale, "spec": {"replicas": 3}}, APPLY, fieldManager="three")
    yield asked("GET", f"{APPS}/deployments/d")
    yield asked("PATCH", path, {**scale, "spec": {"replicas": 4}, "x": 1}, APPLY, fieldManager="two")
    yield asked("PATCH", path, {"apiVersion": "apps/v1", "kind": "Scale"}, APPLY, fieldManager="two")
    yield asked("PATCH", path.replace("/d/", "/absent/"), {**scale, "metadata": {"name": "absent"}}, APPLY,
                fieldManager="two")  # fmt: skip
    yield asked("PATCH", path, {"spec": {"replicas": 5}}, MERGE, fieldManager="four")
    yield asked("GET", f"{APPS}/deployments/d")
    yield asked("PATCH", path, {**scale, "spec": {"replicas": 6}}, APPLY, fieldManager="two", force="true")
    yield asked("PATCH", f"{APPS}/deployments/d", {"spec": {"replicas": 1}}, MERGE, fieldManager="five")
    yield asked("GET", f"{APPS}/deployments/d")


def custom() -> Iterator[Step]:
    """Scales of custom resources, and managedFields that cannot be read."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    paths = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": paths},
    }  # fmt: skip
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    spec = {"group": "ex.io", "scope": "Namespaced", "names": names, "versions": [version]}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                  "metadata": {"name": "things.ex.io"}, "spec": spec}  # fmt: skip
    yield asked("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition, dryRun="All")
    thing = '{"apiVersion":"ex.io/v1","kind":"Thing","metadata":{"name":"r%d"},"spec":{"replicas":%s}}'
    for index, replicas in enumerate(
        ("2.0", "2", '"2"', "-1", "null", "2.5", "3000000000", "true", "{}", "1e2")
    ):
        yield asked("POST", THINGS, thing % (index, replicas))
        yield asked("GET", f"{THINGS}/r{index}/scale")
    plain = {"apiVersion": "ex.io/v1", "kind": "Thing", "metadata": {"name": "p"}}
    yield asked("POST", THINGS, plain, fieldManager="one")
    yield asked("GET", f"{THINGS}/p/scale")
    yield asked("PATCH", f"{THINGS}/p/scale", {"spec": {"replicas": 3}}, MERGE, fieldManager="two")
    yield asked("GET", f"{THINGS}/p")
    for status in ({"replicas": "x"}, {"replicas": 1.5, "selector": 3}, {"replicas": 2, "selector": "a=b"}):
        yield asked("PATCH", f"{THINGS}/p/status", {"status": status}, MERGE, fieldManager="three")
        yield asked("GET", f"{THINGS}/p/scale")
    entry: Object = {
        "manager": "x",
        "operation": "Update",
        "apiVersion": "ex.io/v1",
        "fieldsType": "FieldsV1",
    }
    for entries in (
        [{"manager": "x"}],
        [{**entry, "fieldsV1": {"f:spec": 3}}],
        [{**entry, "fieldsV1": {"f:spec": {}}, "fieldsType": "X"}],
        [{**entry, "fieldsV1": "x"}],
        [{**entry, "fieldsV1": {"zz": {}}}],
        [{**entry, "fieldsV1": {"f:spec": {}}, "operation": "Bad"}],
        [{**entry, "fieldsV1": {"f:spec": {}}, "apiVersion": ""}],
        [{**entry, "fieldsV1": {"f:spec": {"f:a": {}}}}],
        ["x"],
        "x",
    ):
        body = {**plain, "metadata": {"name": "mf", "managedFields": entries}, "spec": {"a": 1}}
        yield asked("POST", THINGS, body, fieldManager="one", dryRun="All")
        config = {"metadata": {"name": "mf", "managedFields": entries}, "data": {"a": "b"}}
        yield asked("POST", f"{CORE}/configmaps", config, fieldManager="one", dryRun="All")


def definition() -> Object:
    """That of the custom resource."""
    (step,) = [each for each in custom() if each.path.endswith("customresourcedefinitions")]
    found: Object = step.body
    return found


@pytest.mark.parametrize("story", [metadata_of_status, applied, scaled, custom])
def test_corners_are_answered_as_the_real_server_answers(
    story: Callable[[], Iterator[Step]], tmp_path: Path
) -> None:
    async def told() -> None:
        async with AsyncExitStack() as stack:
            theirs = await stack.enter_async_context(real(tmp_path / "real"))
            ours = await stack.enter_async_context(embedded(tmp_path / "embedded"))
            for side in (theirs, ours):
                await make_namespace(side, "own")
                crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
                await side.ask(asked("POST", crds, definition()), "", {})
            for _ in range(100):
                if (await theirs.ask(asked("GET", THINGS), "", {}))[0].status == 200:
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(3 if story is custom else 0)
            found = await compared((theirs, ours), story(), known.table())
        assert not found, "\n".join(found)

    asyncio.run(told())
