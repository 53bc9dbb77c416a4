"""Who owns which field, and what server-side apply makes of it (KEP-555)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from walras.core.errors import BadRequest, Conflict, Unclassified
from walras.kube.applying import LAST_APPLIED, apply
from walras.kube.fieldsets import decode, encode, text
from walras.kube.managed import UPDATE_MANAGERS_MAX, record
from walras.kube.registry import Resource

Object = dict[str, Any]


def builtin(definition: str, plural: str, kind: str, group: str = "", *subresources: str) -> Resource:
    schema = {"$ref": f"#/$defs/{definition}"}
    return Resource(group, "v1", kind, plural, kind.lower(), True, schema, subresources=subresources)


CONFIG_MAPS = builtin("io.k8s.api.core.v1.ConfigMap", "configmaps", "ConfigMap")
PODS = builtin("io.k8s.api.core.v1.Pod", "pods", "Pod", "", "status")
DEPLOYMENTS = builtin("io.k8s.api.apps.v1.Deployment", "deployments", "Deployment", "apps", "status")
WIDGETS = Resource(
    "x.io", "v1", "Widget", "widgets", "widget", True,
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "integer"},
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
        },
    },
    subresources=("status",), builtin=False,
)  # fmt: skip


def config_map(data: dict[str, Any] | None = None, **metadata: Any) -> Object:
    obj: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", **metadata}}
    return obj if data is None else {**obj, "data": data}


def pod(*containers: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": list(containers), **spec},
    }


def applied(live: Object | None, config: Object, manager: str = "a", **rest: Any) -> Object:
    of = {"ConfigMap": CONFIG_MAPS, "Pod": PODS, "Deployment": DEPLOYMENTS, "Widget": WIDGETS}[config["kind"]]
    options: dict[str, Any] = {"force": False, "now": "t1", **rest}
    return apply(of, live, config, manager=manager, **options)


def updated(of: Resource, old: Object | None, new: Object, manager: str = "u", **rest: Any) -> Object:
    record(of, old, new, manager=manager, **{"now": "t1", **rest})
    return new


def owned(obj: Object) -> dict[str, set[str]]:
    """The fields, as people read them, by manager."""
    return {
        entry["manager"]: {text(path) for path in decode(entry["fieldsV1"])}
        for entry in obj["metadata"].get("managedFields", [])
    }


def test_creating_an_object_owns_all_its_fields_but_the_servers_own() -> None:
    obj = updated(CONFIG_MAPS, None, config_map({"k": "1"}, uid="u", resourceVersion="3", labels={"l": "1"}))
    assert obj["metadata"]["managedFields"] == [
        {
            "manager": "u", "operation": "Update", "apiVersion": "v1", "time": "t1", "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:data": {".": {}, "f:k": {}},
                "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
            },
        }
    ]  # fmt: skip


def test_a_pod_is_owned_as_kubernetes_writes_it() -> None:
    container = {
        "name": "c",
        "image": "i",
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "resources": {},
    }
    obj = updated(PODS, None, pod(container, restartPolicy="Never"), "kubectl-create")
    (entry,) = obj["metadata"]["managedFields"]
    assert entry["fieldsV1"] == {
        "f:spec": {
            "f:containers": {
                'k:{"name":"c"}': {
                    ".": {},
                    "f:image": {},
                    "f:name": {},
                    "f:ports": {
                        ".": {},
                        'k:{"containerPort":80,"protocol":"TCP"}': {
                            ".": {}, "f:containerPort": {}, "f:protocol": {},
                        },
                    },
                    "f:resources": {},
                }
            },
            "f:restartPolicy": {},
        }
    }  # fmt: skip


def test_an_update_takes_over_what_it_changes_and_nothing_else() -> None:
    old = updated(CONFIG_MAPS, None, config_map({"k": "1", "l": "1"}), "a")
    new = json.loads(json.dumps(old))
    new["data"] = {"k": "2", "l": "1", "n": "1"}
    updated(CONFIG_MAPS, old, new, "b", now="t2")
    assert owned(new) == {"a": {".data", ".data.l"}, "b": {".data.k", ".data.n"}}


def test_an_update_that_changes_nothing_changes_no_entry() -> None:
    old = updated(CONFIG_MAPS, None, config_map({"k": "1"}), "a")
    new = updated(CONFIG_MAPS, old, json.loads(json.dumps(old)), "b", now="t2")
    assert new == old


def test_removing_a_field_takes_it_from_its_owner() -> None:
    old = updated(CONFIG_MAPS, None, config_map({"k": "1", "l": "1"}), "a")
    new = {**json.loads(json.dumps(old)), "data": {"k": "1"}}
    assert owned(updated(CONFIG_MAPS, old, new, "b")) == {"a": {".data", ".data.k"}}


def test_a_client_that_drops_managed_fields_does_not_lose_them() -> None:
    old = updated(CONFIG_MAPS, None, config_map({"k": "1"}), "a")
    assert owned(updated(CONFIG_MAPS, old, config_map({"k": "1"}), "b")) == {"a": {".data", ".data.k"}}


@pytest.mark.parametrize("given_up", [[], [{}]])
def test_a_client_can_give_up_tracking(given_up: list[Object]) -> None:
    old = updated(CONFIG_MAPS, None, config_map({"k": "1"}), "a")
    new = updated(CONFIG_MAPS, old, config_map({"k": "2"}, managedFields=given_up), "b")
    assert "managedFields" not in new["metadata"]
    assert "managedFields" not in updated(CONFIG_MAPS, new, config_map({"k": "3"}), "b")["metadata"]


def test_a_client_can_edit_entries_as_kubectl_does_when_it_migrates() -> None:
    old = updated(CONFIG_MAPS, None, config_map({"k": "1"}), "kubectl-client-side-apply")
    entries = json.loads(json.dumps(old["metadata"]["managedFields"]))
    entries[0].update(manager="kubectl", operation="Apply")
    new = updated(CONFIG_MAPS, old, config_map({"k": "1"}, managedFields=entries), "kubectl")
    assert new["metadata"]["managedFields"] == entries


def test_the_oldest_of_too_many_updaters_are_merged() -> None:
    obj = updated(CONFIG_MAPS, None, config_map({"k": "0"}), "m0", now="t00")
    for turn in range(1, UPDATE_MANAGERS_MAX + 3):
        new = json.loads(json.dumps(obj))
        new["data"][f"k{turn}"] = "1"
        obj = updated(CONFIG_MAPS, obj, new, f"m{turn}", now=f"t{turn:02d}")
    by_manager = owned(obj)
    assert len(by_manager) == UPDATE_MANAGERS_MAX
    assert by_manager["ancient-changes"] == {".data", ".data.k", ".data.k1", ".data.k2", ".data.k3"}


def test_status_and_spec_are_owned_apart() -> None:
    old = updated(PODS, None, pod({"name": "c"}), "creator")
    new = json.loads(json.dumps(old))
    new["status"] = {"phase": "Running"}
    new = updated(PODS, old, new, "kubelet", subresource="status", now="t2")
    entry = new["metadata"]["managedFields"][1]
    assert (entry["manager"], entry["subresource"]) == ("kubelet", "status")
    assert entry["fieldsV1"] == {"f:status": {"f:phase": {}}}


def test_status_sent_to_the_main_resource_is_owned_by_nobody() -> None:
    obj = updated(PODS, None, {**pod({"name": "c"}), "status": {"phase": "Running"}})
    assert owned(obj) == {
        "u": {
            '.spec.containers[name="c"]',
            '.spec.containers[name="c"].name',
            '.spec.containers[name="c"].resources',
        }
    }


def test_applying_creates_with_exactly_the_fields_of_the_configuration() -> None:
    obj = applied(None, config_map({"k": "1"}))
    assert {key: value for key, value in obj.items() if key != "metadata"} == {
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "1"},
    }  # fmt: skip
    (entry,) = obj["metadata"]["managedFields"]
    assert (entry["operation"], entry["time"]) == ("Apply", "t1")
    assert entry["fieldsV1"] == {"f:data": {"f:k": {}}}


def test_applying_the_same_again_changes_nothing_at_all() -> None:
    live = applied(None, config_map({"k": "1"}))
    assert applied(live, config_map({"k": "1"}), now="t2") == live


def test_applying_less_removes_what_nobody_else_owns() -> None:
    live = applied(None, config_map({"k": "1", "l": "1"}, labels={"x": "1"}))
    obj = applied(live, config_map({"k": "1"}), now="t2")
    assert obj["data"] == {"k": "1"}
    assert "labels" not in obj["metadata"]
    assert owned(obj) == {"a": {".data.k"}}


def test_applying_less_keeps_what_somebody_else_owns_too() -> None:
    live = applied(None, config_map({"k": "1", "l": "1"}))
    live = applied(live, config_map({"l": "1"}), "b")
    obj = applied(live, config_map({"k": "1"}))
    assert obj["data"] == {"k": "1", "l": "1"}
    assert owned(obj) == {"a": {".data.k"}, "b": {".data.l"}}


def test_applying_keeps_what_others_set() -> None:
    live = applied(None, config_map({"k": "1"}))
    new = json.loads(json.dumps(live))
    new["data"]["theirs"] = "1"
    live = updated(CONFIG_MAPS, live, new)
    assert applied(live, config_map({"k": "2"}))["data"] == {"k": "2", "theirs": "1"}


def test_a_conflict_names_the_manager_and_the_field() -> None:
    live = updated(CONFIG_MAPS, None, config_map({"k": "1"}), "kubectl-client-side-apply")
    with pytest.raises(Conflict) as refused:
        applied(live, config_map({"k": "2"}))
    assert refused.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .data.k'
    )
    (cause,) = refused.value.causes
    assert (cause.reason, cause.message, cause.field) == (
        "FieldManagerConflict", 'conflict with "kubectl-client-side-apply" using v1', ".data.k",
    )  # fmt: skip


def test_several_conflicts_are_listed_by_manager() -> None:
    live = applied(None, config_map({"k": "1", "l": "1"}), "b")
    live = applied(live, config_map({"l": "1"}), "c")
    with pytest.raises(Conflict) as refused:
        applied(live, config_map({"k": "2", "l": "2"}))
    assert refused.value.message == (
        'Apply failed with 3 conflicts: conflicts with "b":\n- .data.k\n- .data.l\n'
        'conflicts with "c":\n- .data.l'
    )
    assert [cause.field for cause in refused.value.causes] == [".data.k", ".data.l", ".data.l"]


def test_force_takes_the_fields_over() -> None:
    live = updated(CONFIG_MAPS, None, config_map({"k": "1", "l": "1"}))
    obj = applied(live, config_map({"k": "2"}), force=True)
    assert obj["data"] == {"k": "2", "l": "1"}
    assert owned(obj) == {"a": {".data.k"}, "u": {".data", ".data.l"}}


def test_agreeing_on_a_value_shares_it() -> None:
    live = applied(None, config_map({"k": "1"}), "b")
    assert owned(applied(live, config_map({"k": "1"}))) == {"a": {".data.k"}, "b": {".data.k"}}


def test_containers_merge_by_name_and_go_when_they_are_left_out() -> None:
    live = applied(None, pod({"name": "c", "image": "1"}, {"name": "d", "image": "1"}))
    live = applied(live, pod({"name": "side", "image": "1"}), "mesh")
    obj = applied(live, pod({"name": "c", "image": "2", "args": ["x"]}))
    assert obj["spec"]["containers"] == [
        {"name": "c", "image": "2", "args": ["x"]},
        {"name": "side", "image": "1"},
    ]


def test_an_element_that_another_applier_adds_to_stays_with_what_they_own() -> None:
    live = applied(None, pod({"name": "c", "image": "1"}))
    live = applied(live, pod({"name": "c", "env": [{"name": "E", "value": "1"}]}), "b")
    obj = applied(live, pod())
    assert obj["spec"]["containers"] == [{"name": "c", "env": [{"name": "E", "value": "1"}]}]


def test_the_default_protocol_is_part_of_a_ports_key() -> None:
    live = applied(None, pod({"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}]}))
    obj = applied(live, pod({"name": "c", "ports": [{"containerPort": 80}]}))
    assert obj["spec"]["containers"][0]["ports"] == [{"containerPort": 80}]


def test_atomic_lists_are_replaced_and_owned_whole() -> None:
    live = applied(None, pod({"name": "c", "args": ["a"]}), "b")
    with pytest.raises(Conflict, match=r'conflict with "b": \.spec\.containers\[name="c"\]\.args'):
        applied(live, pod({"name": "c", "args": ["b"]}))


def test_a_set_merges_its_values() -> None:
    def widget(*tags: str, **spec: Any) -> Object:
        return {
            "apiVersion": "x.io/v1",
            "kind": "Widget",
            "metadata": {"name": "w"},
            "spec": {"tags": list(tags), **spec},
        }

    live = applied(None, widget("a", "b", free={"deep": {"er": 1}}))
    live = applied(live, widget("c"), "b")
    obj = applied(live, widget("b", free={"deep": {"er": 2}}))
    assert sorted(obj["spec"]["tags"]) == ["b", "c"]
    assert owned(obj) == {
        "a": {'.spec.tags[="b"]', ".spec.free.deep", ".spec.free.deep.er"},
        "b": {'.spec.tags[="c"]'},
    }


def test_a_resource_that_nobody_tracked_belongs_to_before_first_apply() -> None:
    live = config_map({"k": "1", "l": "1"})
    assert owned(applied(live, config_map({"k": "1"}))) == {
        "a": {".data.k"},
        "before-first-apply": {".data", ".data.k", ".data.l"},
    }


def test_kubectl_takes_over_what_it_applied_on_the_clients_side() -> None:
    before = json.dumps(config_map({"k": "1"}))
    live = updated(CONFIG_MAPS, None, config_map({"k": "1"}, annotations={LAST_APPLIED: before}), "csa")
    obj = applied(live, config_map({"k": "2"}), "kubectl")
    assert obj["data"] == {"k": "2"}
    assert json.loads(obj["metadata"]["annotations"][LAST_APPLIED]) == config_map({"k": "2"})
    with pytest.raises(Conflict):
        applied(live, config_map({"k": "2"}), "argo")


def test_a_status_apply_owns_status_only() -> None:
    live = updated(PODS, None, pod({"name": "c"}))
    config = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running"},
    }  # fmt: skip
    obj = applied(live, config, "kubelet", subresource="status")
    assert owned(obj)["kubelet"] == {".status.phase"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**config_map(), "apiVersion": "v2"},
         "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1"),
        (config_map(managedFields=[]), "metadata.managedFields must be nil"),
        ({**config_map(), "spec": {}},
         "failed to create typed patch object (/m; /v1, Kind=ConfigMap): "
         ".spec: field not declared in schema"),
        (pod({"name": "c"}, {"name": "c"}),
         "failed to create typed patch object (/p; /v1, Kind=Pod): .spec.containers: "
         'duplicate entries for key [name="c"]'),
        (pod({"image": "i"}),
         "failed to create typed patch object (/p; /v1, Kind=Pod): .spec.containers: element 0: associative "
         'list with keys has an element that omits all key fields ["name"] (and doesn\'t have default values '
         "for any key fields)"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_is_refused(config: Object, message: str) -> None:
    with pytest.raises((BadRequest, Unclassified)) as refused:
        applied(None, config)
    assert refused.value.message == message


def test_inputs_are_not_changed() -> None:
    live = applied(None, config_map({"k": "1", "l": "1"}), "b")
    config = config_map({"k": "2", "x": "1"})
    before = json.dumps([live, config])
    applied(live, config, force=True)
    assert json.dumps([live, config]) == before


FIELDS: Object = {
    "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
    "f:spec": {
        "f:containers": {'k:{"name":"c"}': {".": {}, "f:args": {}}},
        "f:set": {'v:"x"': {}, "v:3": {}},
    },
}


def test_field_sets_survive_the_round_trip() -> None:
    assert encode(decode(FIELDS)) == FIELDS


def test_an_unknown_kind_of_element_is_left_out() -> None:
    assert decode({"z:what": {}, "f:a": {}}) == {("f:a",)}


@pytest.mark.parametrize("fields", [{"fa": {}}, {"k:nonsense": {}}, {"f:a": 1}, {"k:[]": {}}])
def test_field_sets_that_cannot_be_read_are_refused(fields: Object) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(fields)


def test_entries_that_cannot_be_read_count_as_none() -> None:
    old = config_map({"k": "1"}, managedFields=[{"manager": "x", "operation": "Frob"}])
    new = updated(CONFIG_MAPS, old, config_map({"k": "2"}))
    assert "managedFields" not in new["metadata"]
