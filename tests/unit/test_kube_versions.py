"""One object in two versions: written in one, read in the other, and nothing of it lost."""

from typing import Any

from support.caller import Caller, run

HPA = "horizontalpodautoscalers.autoscaling"
HPA_V1 = "autoscaling/v1/horizontalpodautoscalers"
EVENTS = "events"
EVENTS_NEW = "events.events.k8s.io"
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}


def autoscaler(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5, **spec}}


def test_an_autoscaler_of_v1_aims_at_80_percent_of_its_cpu() -> None:
    async def story(caller: Caller) -> None:
        created = await caller.create(HPA_V1, autoscaler())
        assert created["apiVersion"] == "autoscaling/v1"
        assert created["spec"]["targetCPUUtilizationPercentage"] == 80
        cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
        assert caller.get(HPA, "x")["spec"]["metrics"] == [{"type": "Resource", "resource": cpu}]

    run(story)


def test_a_client_of_v1_changes_an_autoscaler_of_v2_and_loses_nothing_of_it() -> None:
    metrics = [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
        },
        {
            "type": "Pods",
            "pods": {"metric": {"name": "lag"}, "target": {"type": "AverageValue", "averageValue": "30"}},
        },
        {
            "type": "Object",
            "object": {
                "metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
                "describedObject": {"kind": "Ingress", "name": "main", "apiVersion": "networking.k8s.io/v1"},
                "target": {"type": "Value", "value": "2k"},
            },
        },
        {
            "type": "External",
            "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "7"}},
        },
    ]
    policies = [{"type": "Pods", "value": 4, "periodSeconds": 60}]

    async def story(caller: Caller) -> None:
        behavior = {"scaleUp": {"policies": policies, "selectPolicy": "Min", "stabilizationWindowSeconds": 5}}
        before = await caller.create(HPA, autoscaler(metrics=metrics, behavior=behavior))
        await caller.patch(HPA_V1, "x", {"spec": {"maxReplicas": 9}})
        after = caller.get(HPA, "x")["spec"]
        assert after["maxReplicas"] == 9
        assert after["behavior"] == before["spec"]["behavior"]
        assert sorted(each["type"] for each in after["metrics"]) == ["External", "Object", "Pods", "Resource"]
        assert all(each in after["metrics"] for each in metrics)
        assert "annotations" not in caller.get(HPA, "x")["metadata"]

    run(story)


def test_an_event_is_one_object_in_both_groups() -> None:
    async def story(caller: Caller) -> None:
        event = {
            "metadata": {"name": "x"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
            "note": "said",
            "reason": "Because",
            "action": "Binding",
            "type": "Normal",
            "reportingController": "example.com/me",
            "reportingInstance": "me-1",
        }
        await caller.create(EVENTS_NEW, event)
        old = caller.get(EVENTS, "x")
        assert (old["apiVersion"], old["message"]) == ("v1", "said")
        assert old["involvedObject"]["name"] == "p" and old["reportingComponent"] == "example.com/me"
        await caller.patch(EVENTS, "x", {"message": "said again"})
        new = caller.get(EVENTS_NEW, "x")
        assert (new["apiVersion"], new["note"]) == ("events.k8s.io/v1", "said again")
        resource = caller.resource(EVENTS_NEW)
        for selector, found in (("regarding.name=p", 1), ("regarding.name=q", 0)):
            page = caller.verbs.list(caller.context(), resource, "default", field_selector=selector)
            assert [each["apiVersion"] for each in page.items] == ["events.k8s.io/v1"] * found

    run(story)
