"""Policies of admission in CEL. Outcomes and words are those of the real server, which was asked."""

from __future__ import annotations

from typing import Any

import pytest
from support.caller import Caller, run

from walras.core.errors import Denied, Invalid
from walras.kube.record import Key

Object = dict[str, Any]
GROUP = "admissionregistration.k8s.io"
POLICIES, BINDINGS = f"validatingadmissionpolicies.{GROUP}", f"validatingadmissionpolicybindings.{GROUP}"
MUTATIONS, MUTATION_BINDINGS = (
    f"mutatingadmissionpolicies.{GROUP}",
    f"mutatingadmissionpolicybindings.{GROUP}",
)


def constraints(resource: str = "configmaps", group: str = "", **more: Any) -> Object:
    rule = {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
    }
    selectors = {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}
    return {**selectors, "resourceRules": [rule], **more}


def policy(*validations: Object, **spec: Any) -> Object:
    given = {
        "failurePolicy": "Fail",
        "matchConstraints": constraints(),
        "validations": list(validations),
        **spec,
    }
    return {"metadata": {"name": "p"}, "spec": given}


def binding(**spec: Any) -> Object:
    return {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"], **spec}}


def config(name: str = "x", **data: str) -> Object:
    return {"metadata": {"name": name}, "data": data}


async def denied(caller: Caller, obj: Object, key: str = "configmaps") -> Denied:
    with pytest.raises(Denied) as refusal:
        await caller.create(key, obj)
    return refusal.value


def test_a_policy_refuses_what_does_not_comply() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(POLICIES, policy({"expression": "object.data.a == 'b'"}))
        await caller.create("configmaps", config("before"))
        await caller.create(BINDINGS, binding())
        await caller.create("configmaps", config(a="b"))
        error = await denied(caller, config("y", a="c"))
        assert (error.code, error.reason) == (422, "Invalid")
        assert error.message == (
            "configmaps \"y\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
            "failed expression: object.data.a == 'b'"
        )
        failed = (await denied(caller, config("z"))).message
        assert failed.endswith("expression 'object.data.a == 'b'' resulted in error: no such key: data")

    run(story)


def test_a_policy_holds_for_what_wakes_its_cluster() -> None:
    async def story(caller: Caller) -> None:
        rule = policy(
            {"expression": "object.metadata.name != 'y'"}, matchConstraints=constraints("namespaces")
        )
        await caller.create(POLICIES, rule)
        await caller.create(BINDINGS, binding())
        await caller.api.hibernate([caller.cluster])
        assert caller.api.is_asleep(caller.cluster)
        await denied(caller, {"metadata": {"name": "y"}}, "namespaces")

    run(story)


def test_a_policy_that_a_backup_brought_to_another_cluster_is_another_one() -> None:
    """It has the same uid there, and before long perhaps the same resourceVersion."""

    async def story(caller: Caller) -> None:
        api, other = caller.api, Caller(caller.api, "b", "b")
        await caller.create(POLICIES, policy({"expression": "object.metadata.name != 'x'"}))
        await caller.create(BINDINGS, binding())
        there = api.get("a", POLICIES, "", "p")
        changed = policy({"expression": "object.metadata.name != 'y'"})["spec"]
        for key, obj in ((POLICIES, {**there, "spec": changed}), (BINDINGS, api.get("a", BINDINGS, "", "b"))):
            transaction = api.transaction()
            transaction.put(Key("b", key, "", obj["metadata"]["name"]), obj)
            await transaction.commit()
        brought = api.get("b", POLICIES, "", "p")["metadata"]
        assert [brought[name] == there["metadata"][name] for name in ("uid", "resourceVersion")] == [True] * 2
        for each, refused, fine in ((caller, "x", "y"), (other, "y", "x"), (caller, "x", "z")):
            await denied(each, config(refused))
            await each.create("configmaps", config(fine))

    run(story)


def test_messages_reasons_and_variables() -> None:
    async def story(caller: Caller) -> None:
        few = {
            "expression": "variables.few > 2",
            "messageExpression": "'only ' + string(variables.few)",
            "reason": "Forbidden",
        }
        many = {"expression": "variables.enough", "message": "not enough"}
        variables = [
            {"name": "few", "expression": "size(object.data)"},
            {"name": "enough", "expression": "variables.few > 3"},
        ]
        await caller.create(POLICIES, policy(few, many, variables=variables))
        await caller.create(BINDINGS, binding())
        error = await denied(caller, config(a="1"))
        assert (error.code, error.reason, error.message.endswith(": only 1")) == (403, "Forbidden", True)
        assert (await denied(caller, config(a="1", b="2", c="3"))).message.endswith(": not enough")
        await caller.create("configmaps", config(a="1", b="2", c="3", d="4"))

    run(story)


def test_parameters_are_objects_that_bindings_name() -> None:
    async def story(caller: Caller) -> None:
        rule = {"expression": "object.data.a.startsWith(params.data.prefix)", "message": "wrong prefix"}
        only = [{"name": "only", "expression": "object.metadata.name.startsWith('z')"}]
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        await caller.create(POLICIES, policy(rule, paramKind=kind, matchConditions=only))
        reference = {"name": "limits", "parameterNotFoundAction": "Deny"}
        await caller.create(BINDINGS, binding(paramRef=reference))
        error = await denied(caller, config("a"))
        why = "no params found for policy binding with `Deny` parameterNotFoundAction"
        assert error.message.endswith(f"denied request: failed to configure binding: {why}")
        await caller.api.create(
            "a",
            "configmaps",
            {
                **config("limits"),
                "metadata": {"name": "limits", "namespace": "default"},
                "data": {"prefix": "q"},
            },
        )
        await caller.create("configmaps", config("a", a="r"))
        await caller.create("configmaps", config("z1", a="qq"))
        assert (await denied(caller, config("z2", a="rr"))).message.endswith("wrong prefix")

    run(story)


def test_warnings_tell_and_do_not_refuse() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(POLICIES, policy({"expression": "namespaceObject.metadata.name == 'prod'"}))
        await caller.create(BINDINGS, binding(validationActions=["Warn", "Audit"]))
        await caller.create("configmaps", config())
        assert caller.warnings == [
            "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': "
            "failed expression: namespaceObject.metadata.name == 'prod'"
        ]

    run(story)


def test_policies_compare_with_the_old_object_and_select() -> None:
    async def story(caller: Caller) -> None:
        rule = {"expression": "oldObject == null || oldObject.data == object.data", "message": "immutable"}
        await caller.create(POLICIES, policy(rule))
        chosen = {
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": {"matchLabels": {"l": "m"}},
        }
        await caller.create(BINDINGS, binding(matchResources=chosen))
        await caller.create("configmaps", config("free", a="1"))
        held = config("held", a="1")
        held["metadata"]["labels"] = {"l": "m"}
        await caller.create("configmaps", held)
        await caller.patch("configmaps", "free", {"data": {"a": "2"}})
        with pytest.raises(Denied, match="immutable"):
            await caller.patch("configmaps", "held", {"data": {"a": "2"}})

    run(story)


def test_what_fails_does_not_matter_where_failures_are_ignored() -> None:
    async def story(caller: Caller) -> None:
        rule = {"expression": "object.data.a.matches('^[a-z]+$')"}
        await caller.create(POLICIES, policy(rule, failurePolicy="Ignore"))
        await caller.create(BINDINGS, binding())
        await caller.create("configmaps", config("a"))
        await denied(caller, config("b", a="B"))

    run(story)


def test_an_expression_that_costs_too_much_refuses() -> None:
    async def story(caller: Caller) -> None:
        rule = {"expression": "object.data.all(a, object.data.all(b, object.data.all(c, a + b + c != '')))"}
        await caller.create(POLICIES, policy(rule))
        await caller.create(BINDINGS, binding())
        await caller.create("configmaps", config("small", a="1"))
        error = await denied(caller, config("large", **{f"k{number}": "v" for number in range(300)}))
        assert "actual cost limit exceeded" in error.message

    run(story)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (policy({"expression": "object.x"}), "must evaluate to bool but got dyn"),
        (policy({"expression": "params.x == 1"}), "undeclared reference to 'params'"),
        (policy({"expression": "request.nope == 1"}), "undefined field 'nope'"),
        (policy({"expression": "variables.a > 'x'"}, variables=[{"name": "a", "expression": "1"}]),
         "found no matching overload for '_>_' applied to '(int, string)'"),
        (policy({"expression": "true", "messageExpression": "1"}), "must evaluate to string but got int"),
        (policy({"expression": "true"}, variables=[{"expression": "1"}]),
         "spec.variables[0].name: Required value"),
        (policy({"expression": "true"}, variables=[{"name": "a"}]),
         "spec.variables[0].expression: Required value"),
        ({**policy({"expression": "true"}, auditAnnotations=[{"key": "k", "valueExpression": "'v'"}]),
          "metadata": {}}, "name or generateName is required"),
        (policy(), "validations or auditAnnotations must contain at least one item"),
        (policy({"expression": "true"}, matchConstraints=None), "spec.matchConstraints: Required value"),
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(given: Object, said: str) -> None:
    async def story(caller: Caller) -> None:
        with pytest.raises(Invalid) as refusal:
            await caller.create(POLICIES, given)
        assert said in refusal.value.message

    run(story)


# Mutations


def mutation(*mutations: Object, **spec: Any) -> Object:
    given = {
        "failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": constraints(),
        "mutations": list(mutations), **spec,
    }  # fmt: skip
    return {"metadata": {"name": "p"}, "spec": given}


def applied(expression: str) -> Object:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patched(expression: str) -> Object:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


async def mutated(caller: Caller, given: Object, obj: Object, key: str = "configmaps") -> Object:
    await caller.create(MUTATIONS, given)
    await caller.create(MUTATION_BINDINGS, {"metadata": {"name": "b"}, "spec": {"policyName": "p"}})
    return await caller.create(key, obj)


def test_a_policy_applies_a_configuration() -> None:
    async def story(caller: Caller) -> None:
        given = mutation(
            applied("Object{metadata: Object.metadata{labels: {'size': string(size(object.data))}}}"),
            applied("Object{data: {'more': object.metadata.labels['size']}}"),
        )
        made = await mutated(caller, given, config(a="1"))
        assert (made["metadata"]["labels"], made["data"]) == ({"size": "1"}, {"a": "1", "more": "1"})

    run(story)


def test_a_policy_puts_a_container_beside_the_others() -> None:
    async def story(caller: Caller) -> None:
        side = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'side', image: 's:1'}]}}"
        given = mutation(applied(side), matchConstraints=constraints("pods"))
        pod = {
            "metadata": {"name": "x"},
            "spec": {"containers": [{"name": "c", "image": "i", "command": ["true"]}]},
        }
        made = await mutated(caller, given, pod, "pods")
        assert [(each["name"], each["image"]) for each in made["spec"]["containers"]] == [
            ("c", "i"),
            ("side", "s:1"),
        ]
        assert made["spec"]["containers"][1]["imagePullPolicy"] == "IfNotPresent"

    run(story)


def test_a_policy_patches() -> None:
    async def story(caller: Caller) -> None:
        key = "'/metadata/labels/' + jsonpatch.escapeKey('a.b/c')"
        given = mutation(patched(f"[JSONPatch{{op: 'add', path: {key}, value: 'd'}}]"))
        obj = config()
        obj["metadata"]["labels"] = {"x": "y"}
        made = await mutated(caller, given, obj)
        assert made["metadata"]["labels"] == {"x": "y", "a.b/c": "d"}

    run(story)


def test_a_patch_that_does_not_fit_refuses() -> None:
    async def story(caller: Caller) -> None:
        given = mutation(patched("[JSONPatch{op: 'remove', path: '/data/nope'}]"))
        with pytest.raises(Denied, match="policy 'p' with binding 'b' denied request: JSON Patch: "):
            await mutated(caller, given, config(a="1"))

    run(story)


def test_a_policy_guards_what_is_run_in_pods() -> None:
    async def story(caller: Caller) -> None:
        guarded = constraints("pods/exec")
        guarded["resourceRules"][0]["operations"] = ["CONNECT"]
        rule = {"expression": "object.command[0] != 'sh' && request.operation == 'CONNECT'"}
        await caller.create(POLICIES, policy(rule, matchConstraints=guarded))
        await caller.create(BINDINGS, binding())
        container = {"name": "c", "image": "python:3.13"}
        await caller.create("pods", {"metadata": {"name": "p"}, "spec": {"containers": [container]}})
        context, pods = caller.context(), caller.resource("pods")

        async def connect(*command: str) -> None:
            options = {"kind": "PodExecOptions", "apiVersion": "v1", "command": list(command)}
            await caller.verbs.connect(context, pods, "default", "p", "exec", options)

        await connect("ls")
        with pytest.raises(Denied, match=r"denied request: failed expression: object.command"):
            await connect("sh")

    run(story)


def test_policies_have_the_audit_log_say_something() -> None:
    async def story(caller: Caller) -> None:
        notes = [
            {"key": "size", "valueExpression": "'has ' + string(size(object.data))"},
            {"key": "nothing", "valueExpression": "null"},
        ]
        rule = {"expression": "size(object.data) < 2"}
        await caller.create(POLICIES, policy(rule, auditAnnotations=notes))
        await caller.create(BINDINGS, binding(validationActions=["Audit"]))
        context = caller.context()
        await caller.verbs.create(context, caller.resource("configmaps"), "default", config(a="1", b="2"))
        failure = (
            '[{"message":"failed expression: size(object.data) < 2","policy":"p","binding":"b",'
            '"expressionIndex":0,"validationActions":["Audit"]}]'
        )
        assert context.annotations == {
            "p/size": "has 2",
            "validation.policy.admission.k8s.io/validation_failure": failure,
        }
        # What it cannot say for a fault denies, as failurePolicy wants it, whatever the binding says.
        error = await denied(caller, {"metadata": {"name": "y"}})
        assert error.message.endswith("resulted in error: no such key: data")

    run(story)
