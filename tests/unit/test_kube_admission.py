"""What a default kube-apiserver admits, adds and refuses, in the words of the real one, which was asked."""

from __future__ import annotations

from typing import Any

import pytest
from support.caller import Caller, run

from walras.core.errors import BadRequest, Forbidden, InternalError, Invalid, TooManyRequests

Object = dict[str, Any]
BUDGETS = "poddisruptionbudgets.policy"


def pod(name: str = "x", requests: Any = None, limits: Any = None, **spec: Any) -> Object:
    resources = {**({"requests": requests} if requests else {}), **({"limits": limits} if limits else {})}
    container = {"name": "c", "image": "i", "command": ["true"], "resources": resources}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def refused(caller: Caller, obj: Object, key: str = "pods") -> str:
    with pytest.raises(Forbidden) as error:
        await caller.create(key, obj)
    return error.value.message


# Limit ranges

LIMITS: Object = {
    "metadata": {"name": "lr"},
    "spec": {
        "limits": [
            {
                "type": "Container",
                "default": {"cpu": "500m", "memory": "100Mi"},
                "defaultRequest": {"cpu": "100m", "memory": "100Mi"},
                "min": {"cpu": "50m"},
                "max": {"cpu": "2", "memory": "1Gi"},
                "maxLimitRequestRatio": {"cpu": "10"},
            },
            {"type": "Pod", "max": {"cpu": "3"}},
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}},
        ]
    },
}


def test_a_container_without_a_name_is_refused_where_there_are_defaults_too() -> None:
    async def story(caller: Caller) -> None:
        await caller.create("limitranges", LIMITS)
        nameless = pod()
        del nameless["spec"]["containers"][0]["name"]
        with pytest.raises(Invalid, match=r"spec.containers\[0\].name: Required value"):
            await caller.create("pods", nameless)

    run(story)


def test_containers_get_what_their_namespace_gives_by_default() -> None:
    async def story(caller: Caller) -> None:
        await caller.create("limitranges", LIMITS)
        made = await caller.create("pods", pod())
        assert made["spec"]["containers"][0]["resources"] == {
            "limits": {"cpu": "500m", "memory": "100Mi"},
            "requests": {"cpu": "100m", "memory": "100Mi"},
        }
        assert made["status"]["qosClass"] == "Burstable"
        assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
            "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
        )

    run(story)


@pytest.mark.parametrize(
    ("requests", "limits", "said"),
    [
        (
            {"cpu": "10m"},
            None,
            "[minimum cpu usage per Container is 50m, but request is 10m, "
            "cpu max limit to request ratio per Container is 10, but provided ratio is 50.000000]",
        ),
        (
            {"cpu": "1"},
            {"cpu": "4"},
            "[maximum cpu usage per Container is 2, but limit is 4, "
            "maximum cpu usage per Pod is 3, but limit is 4]",
        ),
        (
            {"cpu": "100m"},
            {"cpu": "2"},
            "cpu max limit to request ratio per Container is 10, but provided ratio is 20.000000",
        ),
        (None, {"memory": "2Gi"}, "maximum memory usage per Container is 1Gi, but limit is 2Gi"),
    ],
)
def test_a_pod_beyond_its_limits_is_refused(requests: Any, limits: Any, said: str) -> None:
    async def story(caller: Caller) -> None:
        await caller.create("limitranges", LIMITS)
        assert await refused(caller, pod("x", requests, limits)) == f'pods "x" is forbidden: {said}'

    run(story)


def test_a_claim_beyond_its_limits_is_refused() -> None:
    def claim(size: str) -> Object:
        return {
            "metadata": {"name": "c"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
        }

    async def story(caller: Caller) -> None:
        await caller.create("limitranges", LIMITS)
        few = "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"
        assert few in await refused(caller, claim("500Mi"), "persistentvolumeclaims")
        many = "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"
        assert many in await refused(caller, claim("6Gi"), "persistentvolumeclaims")
        made = await caller.create("persistentvolumeclaims", claim("2Gi"))
        assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]

    run(story)


# Priorities, runtimes, tolerations


def test_a_pod_has_the_priority_of_its_class_or_of_the_default_one() -> None:
    async def story(caller: Caller) -> None:
        classes = "priorityclasses.scheduling.k8s.io"
        assert (await caller.create("pods", pod("plain")))["spec"]["priority"] == 0
        high = {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}
        await caller.create(classes, high)
        spec = (await caller.create("pods", pod("a", priorityClassName="high")))["spec"]
        assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
        await caller.create(classes, {"metadata": {"name": "usual"}, "value": 7, "globalDefault": True})
        spec = (await caller.create("pods", pod("b")))["spec"]
        assert (spec["priority"], spec["priorityClassName"]) == (7, "usual")
        spec = (await caller.create("pods", pod("c", priorityClassName="system-node-critical")))["spec"]
        assert spec["priority"] == 2_000_001_000
        second = {"metadata": {"name": "second"}, "value": 8, "globalDefault": True}
        said = "PriorityClass usual is already marked as default. Only one default can exist"
        assert said in await refused(caller, second, classes)

    run(story)


def test_a_priority_that_is_not_its_class_s_is_refused() -> None:
    async def story(caller: Caller) -> None:
        assert await refused(caller, pod(priorityClassName="nope")) == (
            'pods "x" is forbidden: no PriorityClass with name nope was found'
        )
        assert await refused(caller, pod(priority=7)) == (
            'pods "x" is forbidden: the integer value of priority (7) must not be provided in pod spec; '
            "priority admission controller computed 0 from the given PriorityClass name"
        )

    run(story)


def test_a_runtime_class_adds_what_it_costs_and_where_it_runs() -> None:
    async def story(caller: Caller) -> None:
        assert await refused(caller, pod(runtimeClassName="vm")) == (
            'pods "x" is forbidden: pod rejected: RuntimeClass "vm" not found'
        )
        await caller.create(
            "runtimeclasses.node.k8s.io",
            {
                "metadata": {"name": "vm"},
                "handler": "h",
                "overhead": {"podFixed": {"cpu": "250m"}},
                "scheduling": {
                    "nodeSelector": {"a": "b"},
                    "tolerations": [{"key": "x", "operator": "Exists"}],
                },
            },
        )
        spec = (await caller.create("pods", pod("a", runtimeClassName="vm")))["spec"]
        assert (spec["overhead"], spec["nodeSelector"]) == ({"cpu": "250m"}, {"a": "b"})
        assert {"key": "x", "operator": "Exists"} in spec["tolerations"]
        wrong = pod(runtimeClassName="vm", nodeSelector={"a": "c"})
        assert "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c" in (
            await refused(caller, wrong)
        )

    run(story)


def test_a_pod_leaves_lost_nodes_after_five_minutes_unless_it_says_when() -> None:
    async def story(caller: Caller) -> None:
        own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}
        given = (await caller.create("pods", pod(tolerations=[own])))["spec"]["tolerations"]
        assert [(each["key"][19:], each.get("tolerationSeconds")) for each in given] == [
            ("not-ready", None),
            ("unreachable", 300),
        ]

    run(story)


def test_a_claim_gets_the_newest_default_class() -> None:
    async def story(caller: Caller) -> None:
        marked = {"storageclass.kubernetes.io/is-default-class": "true"}
        for name in ("b", "a"):
            storage = {"metadata": {"name": name, "annotations": marked}, "provisioner": "p"}
            await caller.create("storageclasses.storage.k8s.io", storage)
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        made = await caller.create("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})
        assert made["spec"]["storageClassName"] == "a"

    run(story)


# Quotas


async def quota(caller: Caller, hard: Object, **spec: Any) -> None:
    await caller.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}})


def used(caller: Caller) -> Object:
    return caller.get("resourcequotas", "q")["status"]["used"]  # type: ignore[no-any-return]


def test_pods_count_until_their_quota_is_used_up() -> None:
    async def story(caller: Caller) -> None:
        await quota(caller, {"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi"})
        assert await refused(caller, pod()) == (
            'pods "x" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c'
        )
        await caller.create("pods", pod("a", {"cpu": "600m"}, {"memory": "500Mi"}))
        assert used(caller) == {"pods": "1", "requests.cpu": "600m", "limits.memory": "500Mi"}
        assert await refused(caller, pod("x", {"cpu": "600m"}, {"memory": "600Mi"})) == (
            'pods "x" is forbidden: exceeded quota: q, requested: limits.memory=600Mi,requests.cpu=600m, '
            "used: limits.memory=500Mi,requests.cpu=600m, limited: limits.memory=1Gi,requests.cpu=1"
        )
        await caller.create("pods", pod("b", {"cpu": "100m"}, {"memory": "100Mi"}))
        assert await refused(caller, pod("x", {"cpu": "1m"}, {"memory": "1Mi"})) == (
            'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
        )
        assert used(caller)["requests.cpu"] == "700m"

    run(story)


def test_a_dry_run_uses_nothing_and_is_refused_all_the_same() -> None:
    async def story(caller: Caller) -> None:
        await quota(caller, {"count/configmaps": "1"})
        await caller.create("configmaps", {"metadata": {"name": "a"}}, dry_run=True)
        await caller.create("configmaps", {"metadata": {"name": "b"}})
        with pytest.raises(Forbidden, match="exceeded quota: q, requested: count/configmaps=1"):
            await caller.create("configmaps", {"metadata": {"name": "c"}}, dry_run=True)

    run(story)


def test_a_quota_counts_what_its_scopes_hold_of() -> None:
    async def story(caller: Caller) -> None:
        await quota(caller, {"pods": "1"}, scopes=["BestEffort", "NotTerminating"])
        await caller.create("pods", pod("a"))
        await caller.create("pods", pod("b", {"cpu": "1"}))
        await caller.create("pods", pod("c", activeDeadlineSeconds=9))
        assert used(caller) == {"pods": "1"}
        assert "exceeded quota" in await refused(caller, pod())

    run(story)


def test_a_quota_can_be_for_one_priority() -> None:
    async def story(caller: Caller) -> None:
        only = {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}
        await quota(caller, {"pods": "0"}, scopeSelector={"matchExpressions": [only]})
        await caller.create("pods", pod("a"))
        assert "exceeded quota" in await refused(caller, pod(priorityClassName="system-node-critical"))

    run(story)


# Evictions

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


async def budgeted(caller: Caller, **status: Any) -> None:
    for name in ("a", "b"):
        made = pod(name, nodeName="n")
        made["metadata"]["labels"] = {"app": "x"}
        await caller.api.create(
            "a", "pods", {**made, "metadata": {**made["metadata"], "namespace": "default"}}
        )
        await caller.patch("pods", name, {"status": READY}, subresource="status")
    selector = {"matchLabels": {"app": "x"}}
    spec = {"minAvailable": 1, "selector": selector}
    await caller.create(BUDGETS, {"metadata": {"name": "b"}, "spec": spec})
    await caller.patch(BUDGETS, "b", {"status": {"observedGeneration": 9, **status}}, subresource="status")


async def evict(caller: Caller, name: str, **more: Any) -> None:
    body = {"metadata": {"name": name}, **more}
    await caller.verbs.evict(caller.context(), caller.resource("pods"), "default", name, body)


def test_an_eviction_is_spent_from_its_budget() -> None:
    async def story(caller: Caller) -> None:
        await budgeted(caller, disruptionsAllowed=1, currentHealthy=2, desiredHealthy=1, expectedPods=2)
        await evict(caller, "a", deleteOptions={"dryRun": ["All"]})
        assert caller.get(BUDGETS, "b")["status"]["disruptionsAllowed"] == 1
        await evict(caller, "a")
        status = caller.get(BUDGETS, "b")["status"]
        assert (status["disruptionsAllowed"], list(status["disruptedPods"])) == (0, ["a"])
        assert "deletionTimestamp" in caller.get("pods", "a")["metadata"]
        await caller.patch(BUDGETS, "b", {"status": {"currentHealthy": 1}}, subresource="status")
        with pytest.raises(TooManyRequests) as refusal:
            await evict(caller, "b")
        error = refusal.value
        assert error.message == "Cannot evict pod as it would violate the pod's disruption budget."
        assert [(cause.reason, cause.message) for cause in error.causes] == [
            ("DisruptionBudget", "The disruption budget b needs 1 healthy pods and has 1 currently")
        ]

    run(story)


def test_a_pod_that_does_nothing_may_always_go() -> None:
    async def story(caller: Caller) -> None:
        await budgeted(caller, disruptionsAllowed=0, currentHealthy=1, desiredHealthy=1, expectedPods=2)
        unready = {"conditions": [{"type": "Ready", "status": "False"}]}
        await caller.patch("pods", "b", {"status": unready}, subresource="status")
        await evict(caller, "b")
        await caller.patch("pods", "a", {"status": {"phase": "Succeeded"}}, subresource="status")
        await evict(caller, "a")
        assert caller.get(BUDGETS, "b")["status"].get("disruptedPods") is None

    run(story)


def test_evictions_that_make_no_sense_are_refused() -> None:
    async def story(caller: Caller) -> None:
        await budgeted(caller, disruptionsAllowed=1, currentHealthy=2, desiredHealthy=1, expectedPods=2)
        body = {"metadata": {"name": "b"}}
        with pytest.raises(BadRequest, match="name in URL does not match"):
            await caller.verbs.evict(caller.context(), caller.resource("pods"), "default", "a", body)
        await caller.create(BUDGETS, {"metadata": {"name": "c"}, "spec": {"minAvailable": 1, "selector": {}}})
        with pytest.raises(InternalError, match="more than one PodDisruptionBudget"):
            await evict(caller, "a")

    run(story)


def test_access_of_administrators_to_devices_needs_a_label_of_the_namespace() -> None:
    request = {"name": "look", "exactly": {"deviceClassName": "gpu", "adminAccess": True}}
    spec = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}, request]}}
    claims, templates = "resourceclaims.resource.k8s.io", "resourceclaimtemplates.resource.k8s.io"
    granted = {"request": "r", "driver": "d.example", "pool": "p", "device": "x", "adminAccess": True}

    async def story(caller: Caller) -> None:
        for kind, given in ((claims, spec), (templates, {"spec": spec})):
            with pytest.raises(Invalid, match="admin access to devices requires") as refused:
                await caller.create(kind, {"metadata": {"name": "x"}, "spec": given})
            assert [each.field for each in refused.value.causes] == ["spec.devices.requests[1].adminAccess"]
        plain = {"devices": {"requests": spec["devices"]["requests"][:1]}}
        made = await caller.create(claims, {"metadata": {"name": "y"}, "spec": plain})
        status = {"allocation": {"devices": {"results": [granted]}}}
        with pytest.raises(Invalid, match=r"status\.allocation\.devices\.results\[0\]\.adminAccess"):
            await caller.update(claims, {**made, "status": status}, "status")
        label = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
        await caller.patch("namespaces", "default", label)
        await caller.create(claims, {"metadata": {"name": "x"}, "spec": spec})

    run(story)
