"""Conversion webhooks: a real one, over TLS on loopback, where the operator lets URLs lead."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from differential.sides import Side, embedded
from differential.steps import Step
from support.caller import Caller, run
from support.conversion import KEY, V1, V2, convert, definition, multi, spoilt
from support.webhook import Webhook, patch

from walras.core.errors import Conflict, Denied, Invalid, Unclassified
from walras.kube.admission.reach import Reach
from walras.kube.conversion import answers, asking
from walras.kube.conversion.asking import TOLD_BYTES_MAX
from walras.kube.objects import CRDS

Object = dict[str, Any]
pytestmark = pytest.mark.e2e
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
APPLY = "apply-patch+yaml"


def told(
    story: Callable[[Caller, Webhook], Coroutine[Any, Any, None]],
    answer: Callable[[Object], Any] = convert,
) -> None:
    """Tells a story with a webhook that converts."""

    async def told(caller: Caller) -> None:
        caller.api.admission.webhooks.reach = Reach(caller.api, networks=[LOOPBACK])
        async with Webhook(answer) as webhook:
            await caller.create(CRDS, definition(webhook.client("/convert")))
            await story(caller, webhook)

    run(told)


async def get(caller: Caller, key: str, name: str, subresource: str = "") -> Object:
    context, resource = caller.context(), caller.resource(key)
    return await caller.api.converter.known(
        context, lambda: caller.verbs.get(context, resource, "default", name, subresource)
    )


async def listed(caller: Caller, key: str, **options: Any) -> list[Object]:
    context, resource = caller.context(), caller.resource(key)
    page = await caller.api.converter.known(
        context, lambda: caller.verbs.list(context, resource, "default", **options)
    )
    return page.items


def words(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}


def test_an_object_is_stored_in_one_version_and_read_in_each() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        first = await caller.create(V1, multi("v1", "a", hostPort="localhost:8080"))
        second = await caller.create(V2, multi("v2", "b", host="example.com", port="80"))
        assert not webhook.asked[0]["objects"][0]["metadata"].get("resourceVersion")
        assert words(second) == {"host": "example.com", "port": "80"}
        assert second["metadata"]["resourceVersion"] == str(caller.api.revision("a"))
        assert words(await get(caller, V2, "a")) == {"host": "localhost", "port": "8080"}
        stored = caller.api.get("a", KEY, "default", "b")
        assert (stored["apiVersion"], words(stored)) == (
            "stable.example.com/v1",
            {"hostPort": "example.com:80"},
        )
        read = await get(caller, V1, "a")
        assert read == first
        assert (await get(caller, V2, "b"))["metadata"] == second["metadata"] == stored["metadata"]

    told(story)


def test_a_list_is_converted_in_one_review() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        for number in range(20):
            await caller.create(V1, multi("v1", f"x{number:02}", hostPort=f"h{number % 2}:{number}"))
        del webhook.asked[:]
        found = await listed(caller, V2)
        assert [each["port"] for each in found] == [str(number) for number in range(20)]
        assert [len(each["objects"]) for each in webhook.asked] == [20]
        assert {each["metadata"]["name"] for each in await listed(caller, V2, field_selector="host=h1")} == {
            f"x{number:02}" for number in range(1, 20, 2)
        }
        assert len(await listed(caller, V2, field_selector="host=h0", limit=3)) == 3
        deleted = await caller.verbs.delete_collection(
            caller.context(), caller.resource(V2), "default", {}, field_selector="host=h1"
        )
        assert [each["port"] for each in deleted["items"]] == [str(number) for number in range(1, 20, 2)]
        assert [each["hostPort"] for each in await listed(caller, V1)][:2] == ["h0:0", "h0:2"]

    told(story)


def test_objects_are_changed_in_every_version() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(V1, multi("v1", "a", hostPort="localhost:8080"))
        changed = await caller.patch(V2, "a", {"port": "81"})
        assert words(changed) == {"host": "localhost", "port": "81"}
        assert changed["metadata"]["generation"] == 2
        again = await caller.patch(V2, "a", {"port": "81"})
        assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
        with pytest.raises(Invalid, match="port: Too long: may not be more than 5 bytes"):
            await caller.patch(V2, "a", {"port": "123456"})
        put = await caller.update(V2, {**changed, "host": "other"})
        assert (await get(caller, V1, "a"))["hostPort"] == "other:81"
        with pytest.raises(Conflict):
            await caller.update(V2, {**changed, "host": "late"})
        status = await caller.patch(V2, "a", {"status": {"ready": True}}, subresource="status")
        assert (status["status"], status["metadata"]["generation"]) == ({"ready": True}, 3)
        assert put["metadata"]["generation"] == 3
        gone = await caller.delete(V2, "a")
        assert gone["status"] == "Success"
        assert await listed(caller, V1) == []

    told(story)


def test_who_owns_a_field_is_known_in_every_version() -> None:
    def owners(obj: Object) -> set[tuple[str, str, str]]:
        return {
            (each["manager"], each["apiVersion"].rpartition("/")[2], ",".join(sorted(each["fieldsV1"])))
            for each in obj["metadata"]["managedFields"]
        }

    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(V1, multi("v1", "a", hostPort="localhost:8080", extra="e"), field_manager="one")
        changed = await caller.patch(V2, "a", {"port": "81"}, field_manager="two")
        assert owners(changed) == {("one", "v1", "f:extra"), ("two", "v2", "f:port")}
        wanted = multi("v1", "a", hostPort="applied:81")
        with pytest.raises(Conflict) as conflict:
            await caller.patch(V1, "a", multi("v1", "a", hostPort="applied:82"), APPLY, field_manager="three")
        assert conflict.value.message == (
            'Apply failed with 1 conflict: conflict with "two" using stable.example.com/v2: .port'
        )
        applied = await caller.patch(V1, "a", wanted, APPLY, field_manager="three")
        assert owners(applied) == {
            ("one", "v1", "f:extra"),
            ("two", "v2", "f:port"),
            ("three", "v1", "f:hostPort"),
        }
        made = await caller.patch(V2, "n", multi("v2", "n", host="h", port="1"), APPLY, field_manager="m")
        assert words(made) == {"host": "h", "port": "1"}
        # What was applied in one version and is left out in another goes.
        await caller.patch(V1, "x", multi("v1", "x", hostPort="h:1", extra="e"), APPLY, field_manager="m")
        left = await caller.patch(V2, "x", multi("v2", "x", host="h", port="1"), APPLY, field_manager="m")
        assert words(left) == {"host": "h", "port": "1"}
        assert owners(left) == {("m", "v2", "f:host,f:port")}

    told(story)


def test_objects_outlive_a_change_of_the_version_in_which_they_are_stored() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(V1, multi("v1", "a", hostPort="localhost:8080"))
        turned = definition(webhook.client("/convert"), storage="v2")["spec"]
        turned = await caller.patch(CRDS, KEY, {"spec": turned})
        assert turned["status"]["storedVersions"] == ["v1", "v2"]
        await caller.create(V1, multi("v1", "b", hostPort="localhost:8081"))
        assert caller.api.get("a", KEY, "default", "b")["apiVersion"] == "stable.example.com/v2"
        del webhook.asked[:]
        assert [each["port"] for each in await listed(caller, V2)] == ["8080", "8081"]
        assert [len(each["objects"]) for each in webhook.asked] == [1]
        assert [each["hostPort"] for each in await listed(caller, V1)] == ["localhost:8080", "localhost:8081"]
        # A controller's change needs nobody who converts; a client's stores it as it is stored now.
        webhook.answer = lambda _: b"nonsense"
        await caller.api.edit(
            "a", KEY, "default", "a", lambda obj: obj["metadata"].update(finalizers=["a/b"])
        )
        assert caller.api.get("a", KEY, "default", "a")["apiVersion"] == "stable.example.com/v1"
        webhook.answer = convert
        await caller.patch(V1, "a", {"metadata": {"finalizers": None}})
        assert caller.api.get("a", KEY, "default", "a")["apiVersion"] == "stable.example.com/v2"

    told(story)


_ABOUT = "conversion webhook for stable.example.com/v1, Kind=Multi "


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: {"result": {"status": "Failure", "message": "no way"}}, "failed: no way"),
        (lambda _: {"result": {"status": "Failure"}},
         "failed: response.result.status was 'Failure', not 'Success'"),
        (lambda _: b"{}", "failed: expected webhook response of apiextensions.k8s.io/v1, "
         "Kind=ConversionReview, got /, Kind="),
        (lambda _: {"result": {"status": "Success"}}, "returned 0 objects, expected 1"),
        (spoilt(lambda obj: obj["metadata"].update(name="other")),
         "returned invalid object: must have the same name: a != other"),
        (spoilt(lambda obj: obj["metadata"].update(namespace="other")),
         "returned invalid object: must have the same namespace: default != other"),
        (spoilt(lambda obj: obj.update(kind="Other")),
         "returned invalid object at index 0: invalid kind (expected Multi, received Other)"),
        (spoilt(lambda obj: obj.update(apiVersion="stable.example.com/v9")),
         "returned invalid object at index 0: invalid groupVersion (expected stable.example.com/v2, "
         "received stable.example.com/v9)"),
        (spoilt(lambda obj: obj.pop("metadata")),
         "returned invalid object: must have the same name: a != "),
        (spoilt(lambda obj: obj["metadata"].update(labels={"a": 1})),
         "returned invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object"),
        (spoilt(lambda obj: obj["metadata"].update(labels=["a"])),
         "returned invalid metadata: invalid metadata.labels of type []interface {} in converted object"),
    ],
)  # fmt: skip
def test_what_a_webhook_may_not_answer_is_refused_in_kubernetes_words(
    answer: Callable[[Object], Any], said: str
) -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(V1, multi("v1", "a", hostPort="localhost:8080"))
        webhook.answer = answer
        with pytest.raises(Unclassified) as failure:
            await get(caller, V2, "a")
        assert failure.value.message == _ABOUT + said
        with pytest.raises(Unclassified):
            await caller.create(V2, multi("v2", "b", host="h", port="1"))
        assert (await get(caller, V1, "a"))["hostPort"] == "localhost:8080"
        assert len(await listed(caller, V1)) == 1

    told(story)


def test_a_webhook_that_answers_much_to_little_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # As many reviews as three megabytes of objects take, each with an answer that one alone might have.
    monkeypatch.setattr(asking, "REVIEW_OBJECTS_MAX", 1)
    most = answers.ANSWERS_BYTES_MIN
    swollen = spoilt(lambda obj: obj.update(host="h" * (most // 3)))

    async def story(caller: Caller, webhook: Webhook) -> None:
        for name in "abcd":
            await caller.create(V1, multi("v1", name, hostPort="localhost:8080"))
        webhook.answer = swollen
        assert len(await get(caller, V2, "a")) > 0
        with pytest.raises(Unclassified, match="the answers to one request take more than"):
            await listed(caller, V2)

    told(story)


def test_of_metadata_a_webhook_changes_labels_and_annotations_alone() -> None:
    def change(obj: Object) -> None:
        seen = obj["apiVersion"].rpartition("/")[2]
        obj["metadata"] |= {
            "labels": {"seen": seen},
            "finalizers": ["a/b"],
            "generation": 9,
            "ownerReferences": [],
        }
        obj["unknown"] = "pruned"

    async def story(caller: Caller, webhook: Webhook) -> None:
        made = await caller.create(V1, multi("v1", "a", hostPort="localhost:8080"))
        webhook.answer = spoilt(change)
        read = await get(caller, V2, "a")
        assert read["metadata"] == {**made["metadata"], "labels": {"seen": "v2"}}
        assert words(read) == {"host": "localhost", "port": "8080"}
        (one,) = await listed(caller, V2, label_selector="seen=v2")
        assert one["metadata"]["name"] == "a"
        assert await listed(caller, V1, label_selector="seen=v2") == []

    told(story)


def test_admission_webhooks_see_the_version_that_they_ask_for() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        def answer(request: Object) -> Object:
            shown.append(words(request["object"]))
            return patch({"op": "replace", "path": "/hostPort", "value": "patched:1"})

        shown: list[Object] = []
        async with Webhook(answer) as admission:
            rule = {
                "apiGroups": ["stable.example.com"],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["multis"],
            }
            hook = {
                "name": "a.example.com",
                "clientConfig": admission.client(),
                "rules": [rule],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
            kind = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
            await caller.create(kind, {"metadata": {"name": "c"}, "webhooks": [hook]})
            made = await caller.create(V2, multi("v2", "a", host="h", port="1"))
            assert words(made) == {"host": "patched", "port": "1"}
            assert shown == [{"hostPort": "h:1"}]

    told(story)


def test_policies_see_their_parameters_in_the_version_that_they_ask_for() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(V1, multi("v1", "a", hostPort="allowed:1"))
        rule = {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["configmaps"],
        }
        policy = {
            "metadata": {"name": "p"},
            "spec": {
                "paramKind": {"apiVersion": "stable.example.com/v2", "kind": "Multi"},
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": "object.metadata.name == params.host"}],
            },
        }
        reference = {"name": "a", "namespace": "default", "parameterNotFoundAction": "Deny"}
        spec = {"policyName": "p", "validationActions": ["Deny"], "paramRef": reference}
        group = "admissionregistration.k8s.io"
        await caller.create(f"validatingadmissionpolicies.{group}", policy)
        await caller.create(
            f"validatingadmissionpolicybindings.{group}", {"metadata": {"name": "b"}, "spec": spec}
        )
        await caller.create("configmaps", {"metadata": {"name": "allowed"}})
        with pytest.raises(Denied, match=r"failed expression: object\.metadata\.name == params\.host"):
            await caller.create("configmaps", {"metadata": {"name": "other"}})

    told(story)


def test_a_slow_webhook_holds_up_nobody_else() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(V1, multi("v1", "a", hostPort="localhost:8080"))
        webhook.delay_s = 30
        slow = asyncio.create_task(get(caller, V2, "a"))
        await asyncio.sleep(0.2)
        await caller.create("configmaps", {"metadata": {"name": "x"}})
        assert (await get(caller, V1, "a"))["hostPort"] == "localhost:8080"
        # What it was asked about may change meanwhile.
        await caller.patch(V1, "a", {"hostPort": "changed:1"})
        assert not slow.done()
        slow.cancel()

    told(story)


def test_a_webhook_is_asked_again_about_what_changed_while_it_was_asked() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        await caller.create(V1, multi("v1", "a", hostPort="localhost:8080"))
        webhook.delay_s = 0.2
        change = asyncio.create_task(caller.patch(V2, "a", {"port": "1"}))
        await asyncio.sleep(0.1)
        await caller.patch(V1, "a", {"hostPort": "other:2", "extra": "kept"})
        assert words(await change) == {"host": "other", "port": "1", "extra": "kept"}

    told(story)


def test_a_webhook_that_is_out_of_reach_is_said_to_be() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        made = await caller.create(V1, multi("v1", "a", hostPort="localhost:8080"))
        service = {"service": {"name": "a", "namespace": "default", "path": "/x"}}
        spec = deepcopy(definition(service)["spec"])
        changed = await caller.patch(CRDS, KEY, {"spec": {"conversion": None}})
        changed = await caller.patch(CRDS, KEY, {"spec": spec})
        assert changed["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"] == 443
        with pytest.raises(Unclassified) as failure:
            await get(caller, V2, "a")
        assert failure.value.message == (
            f'{_ABOUT}failed: Post "https://a.default.svc:443/x?timeout=30s": service "a" not found'
        )
        # What needs no conversion goes on as ever, and so do the server's own deletions.
        assert await get(caller, V1, "a") == made
        await caller.delete(CRDS, KEY)
        assert caller.api.find("a", CRDS, "", KEY) is None

    told(story)


def test_what_watches_were_told_is_kept_by_the_size_of_what_the_webhook_made_of_it() -> None:
    async def story(caller: Caller, webhook: Webhook) -> None:
        resource, converter = caller.resource(V2), caller.api.converter
        for name in "abc":
            await caller.create(V1, multi("v1", name, hostPort="x:1"))
        records = {name: caller.api.record("a", KEY, "default", name) for name in "abc"}
        webhook.answer = spoilt(lambda obj: obj.update(extra="x" * (TOLD_BYTES_MAX // 2)))
        del webhook.asked[:]
        for name in "abcca":
            record = records[name]
            assert record is not None
            assert (await converter.told("a", resource, [record]))[record]["metadata"]["name"] == name
        asked = [each["metadata"]["name"] for review in webhook.asked for each in review["objects"]]
        assert asked == ["a", "b", "c", "a"]

    told(story)


WATCHED = "/apis/stable.example.com/v2/namespaces/default/multis"


def watched(tmp_path: Path, story: Callable[[Side, Webhook], Coroutine[Any, Any, None]]) -> None:
    """Tells a story to a server that is asked over HTTP."""

    async def told() -> None:
        async with embedded(tmp_path, [LOOPBACK]) as side, Webhook(convert) as webhook:
            await define(side, webhook)
            await story(side, webhook)

    asyncio.run(told())


async def define(side: Side, webhook: Webhook) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    crd = definition(webhook.client("/convert"))
    (answer,) = await side.ask(Step(0, "POST", path, "", body=crd), "", {})
    assert answer.status == 201, answer.body


async def write(side: Side, method: str, name: str, body: Any = None) -> None:
    path = WATCHED.replace("/v2/", "/v1/") + ("" if method == "POST" else f"/{name}")
    media = "application/merge-patch+json" if method == "PATCH" else "application/json"
    (answer,) = await side.ask(Step(0, method, path, "", body=body, content_type=media), "", {})
    assert answer.status < 300, answer.body


async def seen(side: Side, seconds: int = 2, **query: str) -> list[tuple[str, str]]:
    """What a watch in v2 tells: the types of its events, and the ports or the messages."""
    pairs = (("watch", "1"), ("timeoutSeconds", str(seconds)), *query.items())
    (answer,) = await side.ask(Step(0, "GET", WATCHED, "", pairs, watch=True), "", {})
    assert answer.status == 200
    told = [(each["type"], each["object"]) for each in answer.body]
    return [(kind, obj.get("port") or obj.get("message")) for kind, obj in told]


def test_watches_tell_what_is_converted_and_ask_once_for_all_of_them(tmp_path: Path) -> None:
    async def story(side: Side, webhook: Webhook) -> None:
        await write(side, "POST", "a", multi("v1", "a", hostPort="x:1"))
        del webhook.asked[:]
        watches = [asyncio.create_task(seen(side)) for _ in range(5)]
        chosen = asyncio.create_task(seen(side, fieldSelector="host=x"))
        await asyncio.sleep(0.5)
        await write(side, "POST", "b", multi("v1", "b", hostPort="y:2"))
        await write(side, "PATCH", "a", {"hostPort": "y:3"})
        await write(side, "PATCH", "b", {"hostPort": "x:4"})
        await write(side, "DELETE", "b")
        all_of_it = [("ADDED", "1"), ("ADDED", "2"), ("MODIFIED", "3"), ("MODIFIED", "4"), ("DELETED", "4")]
        assert await asyncio.gather(*watches) == [all_of_it] * 5
        assert await chosen == [("ADDED", "1"), ("DELETED", "1"), ("ADDED", "4"), ("DELETED", "4")]
        asked = [each["metadata"]["name"] for review in webhook.asked for each in review["objects"]]
        assert len(asked) == 5

    watched(tmp_path, story)


def test_a_watch_ends_with_what_the_webhook_failed_of(tmp_path: Path) -> None:
    async def story(side: Side, webhook: Webhook) -> None:
        watch = asyncio.create_task(seen(side, 5))
        await asyncio.sleep(0.3)
        await write(side, "POST", "a", multi("v1", "a", hostPort="x:1"))
        await asyncio.sleep(0.3)
        webhook.answer = lambda _: {"result": {"status": "Failure", "message": "no way"}}
        await write(side, "PATCH", "a", {"hostPort": "y:3"})
        failed = "conversion webhook for stable.example.com/v1, Kind=Multi failed: no way"
        assert await watch == [("ADDED", "1"), ("ERROR", failed)]

    watched(tmp_path, story)


def test_a_watch_that_waits_for_a_webhook_does_not_keep_the_server_from_closing(tmp_path: Path) -> None:
    async def story(side: Side, webhook: Webhook) -> None:
        await write(side, "POST", "a", multi("v1", "a", hostPort="x:1"))
        webhook.delay_s = 20
        watch = asyncio.create_task(seen(side, 30))
        await asyncio.sleep(0.3)
        # Others go on meanwhile.
        await asyncio.wait_for(write(side, "PATCH", "a", {"hostPort": "y:3"}), 5)
        watches.append(watch)

    async def told() -> None:
        async with embedded(tmp_path, [LOOPBACK]) as side, Webhook(convert) as webhook:
            await define(side, webhook)
            await story(side, webhook)
            began_s = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began_s < 10
        await asyncio.gather(*watches, return_exceptions=True)

    watches: list[asyncio.Task[Any]] = []
    asyncio.run(told())
