"""What quotas, disruption budgets and policies say of themselves, and when volumes may go."""

from __future__ import annotations

from typing import Any

from support.world import AGENT, World, pod, tell

Object = dict[str, Any]
BUDGETS = "poddisruptionbudgets.policy"
SETS = "replicasets.apps"
LABELS = {"app": "x"}


def budget(**spec: Any) -> Object:
    given = {"selector": {"matchLabels": LABELS}, **spec}
    return {"metadata": {"name": "b", "namespace": "default"}, "spec": given}


def replicas(count: int) -> Object:
    template = {"metadata": {"labels": LABELS}, "spec": pod("")["spec"]}
    spec = {"replicas": count, "selector": {"matchLabels": LABELS}, "template": template}
    return {"metadata": {"name": "web"}, "spec": spec}


def status(world: World) -> tuple[int, int, int, int]:
    said = world.api.get(AGENT, BUDGETS, "default", "b")["status"]
    fields = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    return tuple(said[field] for field in fields)


def test_a_budget_follows_the_health_of_its_pods() -> None:
    async def story(world: World) -> None:
        await world.create(BUDGETS, budget(minAvailable=2))
        await world.create(SETS, replicas(3))
        await world.settle()
        assert status(world) == (0, 0, 2, 3)
        for each in world.pods():
            await world.run_pod(each)
        assert status(world) == (1, 3, 2, 3)
        await world.set_status(world.pods()[0], conditions=[{"type": "Ready", "status": "False"}])
        await world.settle()
        assert status(world) == (0, 2, 2, 3)
        condition = world.api.get(AGENT, BUDGETS, "default", "b")["status"]["conditions"][0]
        assert (condition["status"], condition["reason"]) == ("False", "InsufficientPods")

    tell(story)


def test_a_share_is_of_what_the_controllers_want() -> None:
    async def story(world: World) -> None:
        await world.create(BUDGETS, budget(maxUnavailable="34%"))
        await world.create(SETS, replicas(3))
        await world.settle()
        assert status(world) == (0, 0, 1, 3)
        for each in world.pods():
            await world.run_pod(each)
        assert status(world) == (2, 3, 1, 3)

    tell(story)


def test_a_share_of_pods_that_nobody_counts_fails() -> None:
    async def story(world: World) -> None:
        await world.create(BUDGETS, budget(maxUnavailable=1))
        alone = pod("alone")
        alone["metadata"]["labels"] = LABELS
        await world.create("pods", alone)
        await world.settle()
        condition = world.api.get(AGENT, BUDGETS, "default", "b")["status"]["conditions"][0]
        assert (condition["status"], condition["reason"]) == ("False", "SyncFailed")
        assert condition["message"] == 'found no controller ref for pod "alone"'

    tell(story)


def test_a_pod_that_was_let_go_and_stays_counts_again_after_a_while() -> None:
    async def story(world: World) -> None:
        await world.create(BUDGETS, budget(minAvailable=1))
        await world.create(SETS, replicas(2))
        await world.settle()
        for each in world.pods():
            await world.run_pod(each)
        name = world.pods()[0]["metadata"]["name"]

        def let_go(latest: Object) -> None:
            since = world.pods()[0]["metadata"]["creationTimestamp"]
            latest["status"]["disruptedPods"] = {name: since}

        await world.api.edit(AGENT, BUDGETS, "default", "b", let_go)
        await world.settle()
        assert status(world)[:2] == (0, 1)
        await world.later(121)
        assert status(world)[:2] == (1, 2)

    tell(story)


def used(world: World) -> Object:
    return world.api.get(AGENT, "resourcequotas", "default", "q")["status"]["used"]  # type: ignore[no-any-return]


def test_a_quota_is_counted_when_it_comes_and_when_something_goes() -> None:
    async def story(world: World) -> None:
        await world.create("configmaps", {"metadata": {"name": "c"}})
        await world.create("pods", pod("p", limits={"cpu": "1"}))
        hard = {"pods": "9", "limits.cpu": "9", "count/configmaps": "9"}
        await world.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
        await world.settle()
        # The authority of the namespace is a ConfigMap too.
        assert used(world) == {"pods": "1", "limits.cpu": "1", "count/configmaps": "2"}
        await world.api.delete(AGENT, "configmaps", "default", "c")
        await world.end_pod(world.pods()[0])
        await world.settle()
        assert used(world) == {"pods": "0", "limits.cpu": "0", "count/configmaps": "1"}

    tell(story)


def test_pods_of_controllers_are_under_the_quota_too() -> None:
    async def story(world: World) -> None:
        spec = {"hard": {"pods": "2"}}
        await world.create("resourcequotas", {"metadata": {"name": "q"}, "spec": spec})
        await world.create(SETS, replicas(2))
        await world.settle()
        await world.later(1)
        assert (len(world.pods()), used(world)) == (2, {"pods": "2"})

    tell(story)


def claim() -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "c", "namespace": "default", "finalizers": ["kubernetes.io/pvc-protection"]}
    return {"metadata": metadata, "spec": spec}


def test_a_claim_stays_until_no_pod_uses_it() -> None:
    async def story(world: World) -> None:
        await world.create("persistentvolumeclaims", claim())
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
        await world.create("pods", pod("user", volumes=[volume], nodeName="base"))
        await world.settle()
        await world.api.delete(AGENT, "persistentvolumeclaims", "default", "c")
        await world.settle()
        assert world.api.find(AGENT, "persistentvolumeclaims", "default", "c") is not None
        await world.remove(world.pods()[0])
        assert world.api.find(AGENT, "persistentvolumeclaims", "default", "c") is None

    tell(story)


def test_a_policy_says_what_does_not_fit_the_types_that_it_is_about() -> None:
    async def story(world: World) -> None:
        policies = "validatingadmissionpolicies.admissionregistration.k8s.io"
        rule = {
            "apiGroups": ["apps"],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["deployments"],
        }
        spec: Object = {
            "matchConstraints": {"resourceRules": [rule]},
            "variables": [{"name": "count", "expression": "object.spec.replicas"}],
            "validations": [
                {"expression": "object.spec.replicas > 1"},
                {"expression": "variables.count > '1'", "messageExpression": "'x' + object.spec.nope"},
            ],
        }
        await world.create(policies, {"metadata": {"name": "p"}, "spec": spec})
        await world.settle()
        said = world.api.get(AGENT, policies, "", "p")["status"]
        assert said == {
            "observedGeneration": 1,
            "typeChecking": {
                "expressionWarnings": [
                    {
                        "fieldRef": "spec.validations[1].expression",
                        "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:17: found no matching "
                        "overload for '_>_' applied to '(int, string)'\n"
                        " | variables.count > '1'\n | ................^\n",
                    },
                    {
                        "fieldRef": "spec.validations[1].messageExpression",
                        "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:18: undefined field 'nope'\n"
                        " | 'x' + object.spec.nope\n | .................^\n",
                    },
                ]
            },
        }
        good = {**spec, "validations": spec["validations"][:1]}
        await world.api.edit(AGENT, policies, "", "p", lambda policy: policy.update(spec=good))
        await world.settle()
        assert world.api.get(AGENT, policies, "", "p")["status"] == {
            "observedGeneration": 2,
            "typeChecking": {},
        }

    tell(story)


def test_a_quota_undoes_what_others_write_into_its_status() -> None:
    async def story(world: World) -> None:
        quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "3"}}}
        await world.create("resourcequotas", quota)
        await world.settle()

        def change(latest: Object) -> None:
            latest["status"]["hard"] = {"pods": "7"}

        await world.api.edit(AGENT, "resourcequotas", "default", "q", change)
        await world.settle()
        assert world.api.get(AGENT, "resourcequotas", "default", "q")["status"]["hard"] == {"pods": "7"}
        await world.later(10)
        assert world.api.get(AGENT, "resourcequotas", "default", "q")["status"]["hard"] == {"pods": "3"}

    tell(story)


def test_quotas_count_devices_by_class() -> None:
    async def story(world: World) -> None:
        name, claims = "gold.deviceclass.resource.k8s.io/devices", "count/resourceclaims.resource.k8s.io"
        quota = {"metadata": {"name": "q"}, "spec": {"hard": {name: "50", claims: "2"}}}
        await world.create("resourcequotas", quota)
        requests = [
            {"name": "a", "exactly": {"deviceClassName": "gold", "allocationMode": "ExactCount", "count": 3}},
            {
                "name": "b",
                "firstAvailable": [
                    {"name": "x", "deviceClassName": "gold", "count": 2},
                    {"name": "y", "deviceClassName": "gold", "count": 5},
                ],
            },
            {"name": "c", "exactly": {"deviceClassName": "gold", "allocationMode": "All"}},
        ]
        claim = {"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests}}}
        await world.create("resourceclaims.resource.k8s.io", claim)
        await world.later(1)
        used = world.api.get(AGENT, "resourcequotas", "default", "q")["status"]["used"]
        assert used == {name: "40", claims: "1"}

    tell(story)
