"""Versions and names of custom resources. Outcomes are those of the real server, which was asked."""

from __future__ import annotations

from typing import Any

import pytest
from support.caller import Caller, Object, run

from walras.core.errors import BadRequest, Invalid, NotFound
from walras.kube import versions
from walras.kube.objects import CRDS
from walras.kube.registry import priority

TEXT = {"type": "string"}


def version(name: str, fields: Object, *, storage: bool = False, served: bool = True, **more: Any) -> Object:
    spec = {"type": "object", "properties": fields}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    return {"name": name, "served": served, "storage": storage, "schema": schema, **more}


def first(**more: Any) -> Object:
    return version("v1", {"a": {**TEXT, "default": "one"}, "old": TEXT, "both": TEXT}, **more)


def second(**more: Any) -> Object:
    fields = {"a": {**TEXT, "default": "two"}, "new": TEXT, "both": {**TEXT, "maxLength": 3}}
    return version("v2", fields, **more)


def definition(*versions: Object, plural: str = "things", kind: str = "Thing", **names: Any) -> Object:
    given = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List", **names}
    spec = {"group": "ex.io", "scope": "Namespaced", "names": given, "versions": list(versions)}
    return {"metadata": {"name": f"{plural}.ex.io"}, "spec": spec}


def thing(name: str = "x", **spec: str) -> Object:
    return {"metadata": {"name": name}, "spec": spec}


async def turn(caller: Caller, *versions: Object) -> Object:
    return await caller.patch(CRDS, "things.ex.io", {"spec": {"versions": list(versions)}})


V1, V2 = "ex.io/v1/things", "ex.io/v2/things"


def test_an_object_is_read_and_written_in_every_version() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, definition(first(), second(storage=True)))
        made = await caller.create(V1, thing(old="o", both="b"))
        assert (made["apiVersion"], made["spec"]) == ("ex.io/v1", {"a": "one", "both": "b"})
        assert caller.get(V2, "x")["apiVersion"] == "ex.io/v2"
        # What only one version knows goes on the way into the other; each judges what is written in it.
        await caller.patch(V2, "x", {"spec": {"new": "n"}})
        assert "new" not in caller.get(V1, "x")["spec"]
        changed = await caller.patch(V1, "x", {"spec": {"both": "longer"}})
        assert changed["spec"] == {"a": "one", "both": "longer"}
        assert caller.get(V2, "x")["spec"] == {"a": "one", "both": "longer"}
        with pytest.raises(Invalid, match="Too long: may not be more than 3 bytes"):
            await caller.patch(V2, "x", {"spec": {"both": "longest"}})
        with pytest.raises(BadRequest, match=r"does not match the expected API version \(ex.io/v1\)"):
            await caller.create(V1, {"apiVersion": "ex.io/v2", **thing("y")})

    run(story)


def test_objects_outlive_a_change_of_the_version_in_which_they_are_stored() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, definition(first(storage=True)))
        await caller.create(V1, thing(old="o", both="b"))
        changed = await turn(caller, first(), second(storage=True))
        assert changed["status"]["storedVersions"] == ["v1", "v2"]
        assert caller.get(V1, "x")["spec"] == {"a": "one", "old": "o", "both": "b"}
        assert caller.get(V2, "x")["spec"] == {"a": "one", "both": "b"}
        with pytest.raises(Invalid) as refusal:
            await turn(caller, second(storage=True))
        assert refusal.value.causes[0].field == "status.storedVersions[0]"
        # A write stores it as objects are stored now.
        await caller.patch(V2, "x", {"metadata": {"labels": {"a": "b"}}})
        assert caller.get(V1, "x")["spec"] == {"a": "one", "both": "b"}
        await caller.patch(CRDS, "things.ex.io", {"status": {"storedVersions": ["v2"]}}, subresource="status")
        assert (await turn(caller, second(storage=True)))["status"]["storedVersions"] == ["v2"]
        assert caller.api.registry("a").find("ex.io", "v1", "things") is None
        assert caller.get(V2, "x")["metadata"]["labels"] == {"a": "b"}

    run(story)


def test_new_defaults_are_of_old_objects_too() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, definition(version("v1", {"a": TEXT, "b": TEXT}, storage=True)))
        made = await caller.create(V1, thing(a="a"))
        await turn(caller, version("v1", {"a": TEXT, "b": {**TEXT, "default": "c"}}, storage=True))
        read = caller.get(V1, "x")
        assert read["spec"] == {"a": "a", "b": "c"}
        assert read["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        (listed,) = caller.verbs.list(caller.context(), caller.resource(V1), "default").items
        assert listed["spec"] == read["spec"]
        # What had them already is not changed by them.
        changed = await caller.patch(V1, "x", {"metadata": {"labels": {"l": "m"}}})
        assert changed["metadata"]["generation"] == 1

    run(story)


def test_a_version_that_is_stored_need_not_be_served() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, definition(first(), second(storage=True, served=False)))
        await caller.create(V1, thing(both="b"))
        registry = caller.api.registry("a")
        assert registry.find("ex.io", "v2", "things") is None
        assert [resource.version for resource in registry.of("ex.io", "v1")] == ["v1"]
        assert ("ex.io", "v2") not in registry.group_versions()
        listed = caller.verbs.list(caller.context(), caller.resource(V1), "default").items
        assert [item["apiVersion"] for item in listed] == ["ex.io/v1"]
        # And the definition waits for its objects when it goes.
        await caller.delete(CRDS, "things.ex.io")
        with pytest.raises(NotFound):
            caller.get(CRDS, "things.ex.io")

    run(story)


def test_a_watch_tells_each_version_in_its_own_words() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, definition(first(storage=True)))
        await caller.create(V1, thing(old="o"))
        await turn(caller, first(), second(storage=True))
        for path in (V1, V2):
            resource = caller.resource(path)
            watch = caller.verbs.watch(caller.context(), resource, "default", send_initial_events=True)
            event = watch.ready()
            assert event is not None
            told = versions.served(resource, event.object)
            assert (told["apiVersion"], "old" in told["spec"]) == (resource.api_version, path == V1)
            watch.close()

    run(story)


def test_discovery_prefers_stable_versions() -> None:
    names = ["v1alpha1", "foo1", "v10", "v1", "v2beta3", "v2beta10", "bar", "v2"]
    assert sorted(names, key=priority) == [
        "v10",
        "v2",
        "v1",
        "v2beta10",
        "v2beta3",
        "v1alpha1",
        "bar",
        "foo1",
    ]

    async def story(caller: Caller) -> None:
        older = version("v1beta1", {}, deprecated=True)
        await caller.create(CRDS, definition(older, first(), second(storage=True)))
        registry = caller.api.registry("a")
        assert [pair for pair in registry.group_versions() if pair[0] == "ex.io"] == [
            ("ex.io", "v2"),
            ("ex.io", "v1"),
            ("ex.io", "v1beta1"),
        ]
        assert caller.resource("ex.io/v1beta1/things").deprecation == "ex.io/v1beta1 Thing is deprecated"
        assert not caller.resource(V1).deprecation

    run(story)


def conditions(definition: Object) -> list[tuple[str, str, str, str]]:
    found = definition["status"]["conditions"]
    return [(each["type"], each["status"], each["reason"], each["message"]) for each in found]


def test_names_are_of_who_had_them_first() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, definition(first(storage=True), shortNames=["th"]))
        late = definition(first(storage=True), plural="others", singular="things", shortNames=["th", "ot"])
        made = await caller.create(CRDS, late)
        assert conditions(made) == [
            ("NamesAccepted", "False", "ListKindConflict", '"ThingList" is already in use'),
            ("Established", "False", "NotAccepted", "not all names are accepted"),
        ]
        assert made["status"]["acceptedNames"] == {"plural": "others", "kind": ""}
        assert caller.api.registry("a").find("ex.io", "v1", "others") is None
        await caller.delete(CRDS, "things.ex.io")
        assert [each[:2] for each in conditions(caller.get(CRDS, "others.ex.io"))] == [
            ("NamesAccepted", "True"),
            ("Established", "True"),
        ]
        await caller.create("ex.io/v1/others", thing())

    run(story)


def test_who_is_established_stays_so_while_it_asks_for_what_is_taken() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, definition(first(storage=True)))
        await caller.create(CRDS, definition(first(storage=True), plural="others", kind="Other"))
        changed = await caller.patch(
            CRDS, "others.ex.io", {"spec": {"names": {"shortNames": ["o", "things"]}}}
        )
        assert conditions(changed)[0][1:] == ("False", "ShortNamesConflict", '"things" is already in use')
        assert conditions(changed)[1][1] == "True"
        assert caller.resource("ex.io/v1/others").short_names == ()

    run(story)


def test_conditions_of_others_stay() -> None:
    async def story(caller: Caller) -> None:
        made = await caller.create(CRDS, definition(first(storage=True)))
        theirs = {"type": "Theirs", "status": "True", "reason": "Because", "message": "updated"}
        wanted = [theirs, *made["status"]["conditions"]]
        changed = await caller.patch(
            CRDS, "things.ex.io", {"status": {"conditions": wanted}}, subresource="status"
        )
        assert [each["type"] for each in changed["status"]["conditions"]] == [
            "Theirs",
            "NamesAccepted",
            "Established",
        ]

    run(story)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strategy": "None"}, "webhookClientConfig: Forbidden: should not be set when strategy is not set"),
        ({"strategy": "X"}, r'strategy: Unsupported value: "X": supported values: "None", "Webhook", spec'),
        ({"webhook": {"conversionReviewVersions": ["v1"]}},
         "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"),
        ({"webhook": {"clientConfig": {}, "conversionReviewVersions": ["v1"]}},
         "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required"),
        ({"webhook": {"clientConfig": {"url": "https://ex.io"}}},
         "spec.conversion.conversionReviewVersions: Required value"),
        ({"webhook": {"clientConfig": {"url": "http://ex.io"}, "conversionReviewVersions": ["v3", "v3"]}},
         r"""\[spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed """
         r"""URL scheme; desired format: https://host\[/path\], """
         r"""spec.conversion.conversionReviewVersions\[1\]: Invalid value: "v3": duplicate version, """
         r"""spec.conversion.conversionReviewVersions: Invalid value: \["v3","v3"\]: """
         r"""must include at least one of v1, v1beta1\]"""),
    ],
)  # fmt: skip
def test_conversion_by_webhook_has_to_say_who_converts(change: Object, said: str) -> None:
    async def story(caller: Caller) -> None:
        asked = definition(first(storage=True), second())
        webhook = {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://ex.io"}}
        asked["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook, **change}
        with pytest.raises(Invalid, match=said):
            await caller.create(CRDS, asked)

    run(story)


def test_a_webhook_whose_authorities_cannot_be_read_is_not_served() -> None:
    async def story(caller: Caller) -> None:
        asked = definition(first(storage=True), second())
        client = {"url": "https://ex.io", "caBundle": "YWJj"}
        webhook = {"conversionReviewVersions": ["v1"], "clientConfig": client}
        asked["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        made = await caller.create(CRDS, asked)
        why = ("False", "InvalidCABundle", "The conversion webhook CABundle is invalid")
        assert conditions(made)[1] == ("Established", *why)
        good = {"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": None}}}}}
        mended = await caller.patch(CRDS, "things.ex.io", good)
        assert conditions(mended)[1][:2] == ("Established", "True")
        broken = {"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": "YWJj"}}}}}
        with pytest.raises(Invalid, match='caBundle: Invalid value: "YWJj": unable to load root certif'):
            await caller.patch(CRDS, "things.ex.io", broken)

    run(story)


def test_an_applied_configuration_that_says_something_twice_is_told_where() -> None:
    text = b"""apiVersion: v1
kind: ConfigMap
metadata: {name: x}
data:
  a: b
  a: c
"""

    async def apply(caller: Caller, field_validation: str) -> list[str]:
        context = caller.context(field_validation=field_validation)
        resource, media = caller.resource("configmaps"), "application/apply-patch+yaml"
        context.warnings = []
        await caller.verbs.patch(context, resource, "default", "x", text, media)
        return context.warnings

    async def story(caller: Caller) -> None:
        said = 'line 6: key "a" already set in map'
        with pytest.raises(BadRequest) as refusal:
            await apply(caller, "Strict")
        assert refusal.value.message == (
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  " + said
        )
        assert await apply(caller, "Warn") == [said]
        assert await apply(caller, "Ignore") == []

    run(story)
