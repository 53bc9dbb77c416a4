"""Admission webhooks: real ones, over TLS on loopback, where the operator lets URLs lead."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine
from copy import deepcopy
from typing import Any

import pytest
from support.caller import Caller, run
from support.webhook import ALLOW, Webhook, patch, refuse
from support.world import AGENT, World, pod, tell

from walras.core.errors import BadRequest, Conflict, Denied, Forbidden, InternalError, Invalid
from walras.kube.admission.http import CalloutFailed
from walras.kube.admission.reach import Reach, is_public

Object = dict[str, Any]
MUTATING = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
VALIDATING = "validatingwebhookconfigurations.admissionregistration.k8s.io"
pytestmark = pytest.mark.e2e
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def hook(client: Object, name: str = "a.example.com", **more: Any) -> Object:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["*"],
        "resources": ["configmaps", "pods"],
    }
    return {
        "name": name,
        "clientConfig": client,
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
        **more,
    }


def configuration(*hooks: Object, name: str = "c") -> Object:
    return {"metadata": {"name": name}, "webhooks": list(hooks)}


def config(name: str = "x", **data: str) -> Object:
    return {"metadata": {"name": name}, "data": data}


def told(
    answer: Callable[[Object], Any], story: Callable[[Caller, Webhook], Coroutine[Any, Any, None]]
) -> None:
    """Tells a story with a webhook that the operator lets the cluster reach."""

    async def told(caller: Caller) -> None:
        caller.api.admission.webhooks.reach = Reach(caller.api, networks=[LOOPBACK])
        async with Webhook(answer) as webhook:
            await story(caller, webhook)

    run(told)


def test_a_webhook_sees_the_write_and_may_change_it() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(MUTATING, configuration(hook(webhook.client())))
        made = await caller.create("configmaps", config(a="b"))
        assert made["data"] == {"a": "b", "more": "yes"}
        assert caller.get("configmaps", "x")["data"] == made["data"]
        (asked,) = webhook.asked
        assert (asked["operation"], asked["name"], asked["namespace"]) == ("CREATE", "x", "default")
        assert asked["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
        assert asked["userInfo"]["username"] == "someone"
        assert asked["object"]["data"] == {"a": "b"} and "uid" not in asked["object"]["metadata"]

    told(lambda _: patch({"op": "add", "path": "/data/more", "value": "yes"}), story)


def test_a_webhook_refuses_in_its_own_words() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(VALIDATING, configuration(hook(webhook.client())))
        with pytest.raises(Denied) as refusal:
            await caller.create("configmaps", config())
        error = refusal.value
        assert error.message == 'admission webhook "a.example.com" denied the request: not today'
        assert (error.code, error.reason) == (403, "Forbidden")
        assert caller.api.find("a", "configmaps", "default", "x") is None

    told(lambda _: refuse("not today", code=403, reason="Forbidden"), story)


def test_updates_and_deletions_are_asked_about_too() -> None:
    def answer(request: Object) -> Object:
        old = request["oldObject"]
        return refuse("keep it") if request["operation"] == "DELETE" and old["data"] == {"a": "2"} else ALLOW

    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(VALIDATING, configuration(hook(webhook.client())))
        await caller.create("configmaps", config(a="1"))
        await caller.patch("configmaps", "x", {"data": {"a": "2"}})
        with pytest.raises(Denied, match="keep it"):
            await caller.delete("configmaps", "x")
        assert [each["operation"] for each in webhook.asked] == ["CREATE", "UPDATE", "DELETE"]
        update = webhook.asked[1]
        assert (update["oldObject"]["data"], update["object"]["data"]) == ({"a": "1"}, {"a": "2"})

    told(answer, story)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"nonsense", "couldn't get version/kind; json parse error"),
        (b"{}", "received invalid webhook response: webhook response was absent"),
        ({"allowed": True, "uid": "other"}, "expected response.uid="),
        ({"allowed": True, "patch": "W10="}, "webhook returned response.patch but not response.patchType"),
        ({"allowed": True, "patch": "!", "patchType": "JSONPatch"}, "received undecodable patch"),
    ],
)
def test_an_answer_that_is_none_fails_as_the_policy_says(answer: Any, said: str) -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(MUTATING, configuration(hook(webhook.client())))
        with pytest.raises(InternalError) as failure:
            await caller.create("configmaps", config())
        assert failure.value.message.startswith(
            'Internal error occurred: failed calling webhook "a.example.com": '
        )
        assert said in failure.value.message
        await caller.patch(MUTATING, "c", {"webhooks": [hook(webhook.client(), failurePolicy="Ignore")]})
        assert (await caller.create("configmaps", config()))["metadata"]["name"] == "x"

    told(lambda _: answer, story)


def test_a_webhook_that_does_not_answer_in_time_is_given_up() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        webhook.delay_s = 30
        await caller.create(VALIDATING, configuration(hook(webhook.client(), timeoutSeconds=1)))
        with pytest.raises(InternalError, match="context deadline exceeded"):
            await caller.create("configmaps", config())

    told(lambda _: ALLOW, story)


def test_redirects_are_not_followed_and_large_answers_not_read() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(VALIDATING, configuration(hook(webhook.client())))
        webhook.head = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://127.0.0.1/\r\n"
        with pytest.raises(InternalError, match="redirects are not followed"):
            await caller.create("configmaps", config())
        webhook.head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n"
        with pytest.raises(InternalError, match="is larger than"):
            await caller.create("configmaps", config())

    told(lambda _: ALLOW, story)


def test_only_the_authority_of_the_configuration_is_believed() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        async with Webhook(lambda _: ALLOW) as other:
            client = {**webhook.client(), "caBundle": other.ca_bundle}
            await caller.create(VALIDATING, configuration(hook(client)))
            with pytest.raises(InternalError, match="tls: failed to verify certificate: x509"):
                await caller.create("configmaps", config())
            assert webhook.asked == []

    told(lambda _: ALLOW, story)


def test_selectors_and_conditions_say_which_writes_are_asked_about() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        labelled = {"matchLabels": {"ask": "yes"}}
        condition = {"name": "big", "expression": "size(object.data) > 1 && request.operation == 'CREATE'"}
        chosen = hook(webhook.client(), objectSelector=labelled, matchConditions=[condition])
        elsewhere = hook(
            webhook.client(), "b.example.com", namespaceSelector={"matchLabels": {"team": "none"}}
        )
        await caller.create(VALIDATING, configuration(chosen, elsewhere))
        await caller.create("configmaps", config("a", x="1", y="2"))
        small = config("b", x="1")
        small["metadata"]["labels"] = {"ask": "yes"}
        await caller.create("configmaps", small)
        assert webhook.asked == []
        big = config("c", x="1", y="2")
        big["metadata"]["labels"] = {"ask": "yes"}
        await caller.create("configmaps", big)
        assert [each["name"] for each in webhook.asked] == ["c"]
        broken = config("d")
        broken["metadata"]["labels"] = {"ask": "yes"}
        del broken["data"]
        with pytest.raises(Forbidden, match="resulted in error: no such key: data"):
            await caller.create("configmaps", broken)

    told(lambda _: ALLOW, story)


def test_webhooks_come_one_after_another_and_again_when_others_changed_more() -> None:
    def answer(request: Object) -> Object:
        data = request["object"].get("data") or {}
        if request["object"]["metadata"]["labels"]["hook"] == "never":
            return ALLOW
        if "second" not in data and "first" in data:
            return patch({"op": "add", "path": "/data/second", "value": "2"})
        return patch({"op": "add", "path": "/data", "value": {**data, "first": str(len(data))}})

    async def story(caller: Caller, webhook: Webhook) -> None:
        first = hook(webhook.client(), "a.example.com", reinvocationPolicy="IfNeeded")
        second = hook(webhook.client(), "b.example.com")
        await caller.create(MUTATING, configuration(first, second))
        obj = config()
        del obj["data"]
        obj["metadata"]["labels"] = {"hook": "both"}
        made = await caller.create("configmaps", obj)
        assert made["data"] == {"first": "2", "second": "2"}
        assert len(webhook.asked) == 3

    told(answer, story)


def test_what_a_webhook_adds_is_validated_and_gets_defaults_and_limits() -> None:
    sidecar = {"name": "side", "image": "s:1", "command": ["true"]}

    async def story(caller: Caller, webhook: Webhook) -> None:
        limits = {"type": "Container", "default": {"cpu": "2"}, "defaultRequest": {"cpu": "1"}}
        await caller.create("limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [limits]}})
        await caller.create(MUTATING, configuration(hook(webhook.client())))
        container = {"name": "c", "image": "i", "command": ["true"]}
        made = await caller.create("pods", {"metadata": {"name": "p"}, "spec": {"containers": [container]}})
        added = made["spec"]["containers"][1]
        assert added["resources"]["limits"] == {"cpu": "2"}
        assert added["imagePullPolicy"] == "IfNotPresent"
        sidecar["name"] = "NOT A NAME"
        with pytest.raises(Invalid):
            await caller.create("pods", {"metadata": {"name": "q"}, "spec": {"containers": [container]}})

    told(lambda _: patch({"op": "add", "path": "/spec/containers/-", "value": sidecar}), story)


def test_a_dry_run_asks_only_those_without_side_effects() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(VALIDATING, configuration(hook(webhook.client())))
        await caller.create("configmaps", config(), dry_run=True)
        assert webhook.asked[0]["dryRun"] is True
        # As configurations of old had it; no new one may.
        await caller.api.edit(
            "a", VALIDATING, "", "c", lambda it: it["webhooks"][0].update(sideEffects="Unknown")
        )
        with pytest.raises(BadRequest, match="does not support dry run"):
            await caller.create("configmaps", config(), dry_run=True)

    told(lambda _: ALLOW, story)


def test_warnings_reach_the_caller() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(VALIDATING, configuration(hook(webhook.client())))
        await caller.create("configmaps", config())
        assert caller.warnings == ["careful"]

    told(lambda _: {"allowed": True, "warnings": ["careful"]}, story)


def test_a_webhook_has_the_audit_log_say_something() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        away = hook({"url": "https://127.0.0.1:1/"}, "b.example.com", failurePolicy="Ignore")
        await caller.create(VALIDATING, configuration(hook(webhook.client()), away))
        context = caller.context()
        await caller.verbs.create(context, caller.resource("configmaps"), "default", config())
        assert context.annotations == {
            "a.example.com/why": "because",
            "failed-open.validating.webhook.admission.k8s.io/b.example.com": "b.example.com",
        }

    told(lambda _: {**ALLOW, "auditAnnotations": {"why": "because"}}, story)


def test_a_write_that_another_overtakes_is_asked_about_again() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create("configmaps", config(a="1"))
        await caller.create(VALIDATING, configuration(hook(webhook.client())))
        webhook.delay_s = 0.3
        slow = asyncio.ensure_future(caller.patch("configmaps", "x", {"data": {"b": "2"}}))
        await asyncio.sleep(0.1)
        await caller.api.edit("a", "configmaps", "default", "x", lambda it: it["data"].update(c="3"))
        made = await slow
        assert made["data"] == {"a": "1", "b": "2", "c": "3"}
        assert [each["oldObject"]["data"] for each in webhook.asked] == [{"a": "1"}, {"a": "1", "c": "3"}]
        stale = {**made, "data": {"d": "4"}}
        held = asyncio.ensure_future(caller.update("configmaps", stale))
        await asyncio.sleep(0.1)
        await caller.api.edit("a", "configmaps", "default", "x", lambda it: it["data"].update(c="5"))
        with pytest.raises(Conflict):
            await held

    told(lambda _: ALLOW, story)


def test_webhooks_cannot_lock_out_who_would_mend_them() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}
        await caller.create(VALIDATING, configuration(hook(webhook.client(), rules=[rule])))
        with pytest.raises(Denied):
            await caller.create("configmaps", config())
        await caller.delete(VALIDATING, "c")
        await caller.create("configmaps", config())

    told(lambda _: refuse("never"), story)


def test_other_versions_of_a_type_are_asked_about_in_the_version_of_the_rule() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        rule = {
            "apiGroups": ["autoscaling"],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["horizontalpodautoscalers"],
        }
        await caller.create(VALIDATING, configuration(hook(webhook.client(), rules=[rule])))
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        share = {"type": "Utilization", "averageUtilization": 7}
        metric = {"type": "Resource", "resource": {"name": "cpu", "target": share}}
        spec = {"scaleTargetRef": target, "maxReplicas": 3, "metrics": [metric]}
        await caller.create("horizontalpodautoscalers.autoscaling", {"metadata": {"name": "h"}, "spec": spec})
        (asked,) = webhook.asked
        assert asked["kind"]["version"] == "v1" and asked["requestKind"]["version"] == "v2"
        assert asked["object"]["apiVersion"] == "autoscaling/v1"
        assert asked["object"]["spec"]["targetCPUUtilizationPercentage"] == 7

    told(lambda _: ALLOW, story)


# Reach


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fe80::1",
        "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1", "255.255.255.255",
        "192.0.2.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_out_of_reach(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def test_public_addresses_are_in_reach() -> None:
    assert is_public(ipaddress.ip_address("8.8.8.8")) and is_public(ipaddress.ip_address("2600::1"))


async def refused(caller: Caller, client: Object, reach: Reach) -> str:
    caller.api.admission.webhooks.reach = reach
    with pytest.raises(CalloutFailed) as failure:
        await reach.ask("a", client, b"{}", 5)
    return str(failure.value)


def test_a_url_leads_neither_into_this_machine_nor_to_the_server_itself() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        closed, own = Reach(caller.api), Reach(caller.api, networks=[LOOPBACK], own_ports=[webhook.port])
        for host in ("127.0.0.1", "localhost", "2130706433", "[::1]", "169.254.169.254", "10.0.0.1"):
            said = await refused(caller, {"url": f"https://{host}:{webhook.port}/"}, closed)
            assert "not a public address" in said or "lookup" in said, host
        assert "is this API server itself" in await refused(caller, webhook.client(), own)
        assert "must begin with https" in await refused(caller, {"url": "http://8.8.8.8/"}, closed)
        assert webhook.asked == []

    told(lambda _: ALLOW, story)


def test_a_service_leads_to_a_ready_pod_of_the_same_cluster() -> None:
    async def story(caller: Caller) -> None:
        dialled: list[tuple[str, str, int]] = []
        async with Webhook(lambda _: ALLOW, "hooks.default.svc") as webhook:

            async def dial(cluster: str, pod: Object, port: int) -> Any:
                dialled.append((cluster, pod["metadata"]["name"], port))
                return await asyncio.open_connection("127.0.0.1", webhook.port)

            caller.api.admission.webhooks.reach = Reach(caller.api, dial)
            client = {"service": {"name": "hooks", "namespace": "default"}, "caBundle": webhook.ca_bundle}
            await caller.create(VALIDATING, configuration(hook(client)))
            with pytest.raises(InternalError, match='service "hooks" not found'):
                await caller.create("configmaps", config())
            ports = [{"port": 443, "targetPort": "https"}]
            spec = {"selector": {"app": "hook"}, "ports": ports}
            await caller.create("services", {"metadata": {"name": "hooks"}, "spec": spec})
            with pytest.raises(InternalError, match='no endpoints available for service "hooks"'):
                await caller.create("configmaps", config())
            container = {"name": "c", "ports": [{"name": "https", "containerPort": 8443}]}
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            metadata = {"name": "p", "namespace": "default", "labels": {"app": "hook"}}
            pod = {"metadata": metadata, "spec": {"containers": [container]}, "status": ready}
            await caller.api.create("b", "pods", pod)
            with pytest.raises(InternalError, match='no endpoints available for service "hooks"'):
                await caller.create("configmaps", config())
            await caller.api.create("a", "pods", pod)
            await caller.create("configmaps", config())
            assert dialled == [("a", "p", 8443)]

    run(story)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"sideEffects": "Some"}, 'sideEffects: Unsupported value: "Some"'),
        ({"admissionReviewVersions": []}, "Required value: must specify one of v1, v1beta1"),
        ({"timeoutSeconds": 60}, "the timeout value must be between 1 and 30 seconds"),
        ({"name": "short"}, "should be a domain with at least three segments separated by dots"),
        ({"clientConfig": {}}, "clientConfig: Required value: exactly one of url or service is required"),
        ({"clientConfig": {"url": "http://x/"}}, "'https' is the only allowed URL scheme; desired format"),
        ({"matchConditions": [{"name": "a", "expression": "object.x =="}]}, "compilation failed: ERROR"),
    ],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_refused(more: Object, said: str) -> None:
    async def story(caller: Caller) -> None:
        with pytest.raises(Invalid) as refusal:
            await caller.create(VALIDATING, configuration(hook({"url": "https://a.b/c"}, **more)))
        assert said in refusal.value.message

    run(story)


def test_clusters_without_configurations_cost_nothing() -> None:
    async def story(caller: Caller) -> None:
        assert not caller.api.admission.configured.has("a")
        await caller.create(VALIDATING, configuration(hook({"url": "https://a.b/c"}, failurePolicy="Ignore")))
        assert caller.api.admission.configured.has("a") and not caller.api.admission.configured.has("b")
        await caller.delete(VALIDATING, "c")
        assert not caller.api.admission.configured.has("a")

    run(story)


SET: Object = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": pod("")["spec"]},
    },
}


def watched(
    answer: Callable[[Object], Any],
    kind: str,
    story: Callable[[World, Webhook], Coroutine[Any, Any, None]],
) -> None:
    """Tells a story with controllers at work and a webhook that is asked about the pods that they make."""

    async def watched(world: World) -> None:
        world.api.admission.webhooks.reach = Reach(world.api, networks=[LOOPBACK])
        async with Webhook(answer) as webhook:
            await world.create(kind, configuration(hook(webhook.client())))
            await story(world, webhook)

    tell(watched)


def test_what_controllers_make_is_asked_about_and_changed() -> None:
    async def story(world: World, webhook: Webhook) -> None:
        await world.create("replicasets.apps", deepcopy(SET))
        await world.settle()
        pods = world.pods()
        assert [each["metadata"]["labels"] for each in pods] == [{"app": "x", "seen": "yes"}] * 2
        asked = {each["name"] for each in webhook.asked}
        assert asked == {each["metadata"]["name"] for each in pods} and len(webhook.asked) == 2
        (user,) = {each["userInfo"]["username"] for each in webhook.asked}
        assert user == "system:kube-controller-manager"

    change = {"op": "add", "path": "/metadata/labels/seen", "value": "yes"}
    watched(lambda _: patch(change), MUTATING, story)


def test_an_owner_is_told_what_a_webhook_has_against_its_pods() -> None:
    async def story(world: World, webhook: Webhook) -> None:
        await world.create("replicasets.apps", deepcopy(SET))
        await world.planes.manager.settle()
        assert not world.pods() and webhook.asked
        (condition,) = world.api.get(AGENT, "replicasets.apps", "default", "web")["status"]["conditions"]
        assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
        assert "denied the request: not here" in condition["message"]

    watched(lambda _: refuse("not here"), VALIDATING, story)


def test_a_slow_webhook_of_one_agent_keeps_no_other_waiting() -> None:
    async def story(world: World, webhook: Webhook) -> None:
        webhook.delay_s = 0.5
        await world.agent("other")
        await world.create("replicasets.apps", deepcopy(SET))
        await world.create("replicasets.apps", deepcopy(SET), "other")
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(world.pods(cluster="other")) == 2 and not world.pods()
        await world.settle()
        assert len(world.pods()) == 2

    watched(lambda _: ALLOW, VALIDATING, story)
