"""Label and field selectors say what apimachinery's say, in the same words."""

from __future__ import annotations

from typing import Any

import pytest

from walras.core.errors import BadRequest
from walras.kube.registry import Resource
from walras.kube.selectors import from_label_selector, parse_fields, parse_labels

PODS = Resource("", "v1", "Pod", "pods", "pod", True, {})
NODES = Resource("", "v1", "Node", "nodes", "node", False, {})
EVENTS = Resource("", "v1", "Event", "events", "event", True, {})
JOBS = Resource("batch", "v1", "Job", "jobs", "job", True, {})
CONFIGMAPS = Resource("", "v1", "ConfigMap", "configmaps", "configmap", True, {})
SLICES = Resource("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", "resourceslice", False, {})
SHIRTS = Resource(
    "example.com",
    "v1",
    "Shirt",
    "shirts",
    "shirt",
    True,
    {},
    builtin=False,
    selectable_fields=("spec.color",),
)


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("app=web", {"app": "web"}, True),
        ("app == web", {"app": "web"}, True),
        ("app=web", {}, False),
        ("app!=web", {}, True),
        ("app!=web", {"app": "web"}, False),
        ("app", {"app": ""}, True),
        ("app", {}, False),
        ("!app", {}, True),
        ("! app", {"app": ""}, False),
        ("app=", {"app": ""}, True),
        ("app=,tier=x", {"app": "", "tier": "x"}, True),
        ("app in (a, b)", {"app": "b"}, True),
        ("app in (a,b)", {"app": "c"}, False),
        ("app in (a,,b)", {"app": ""}, True),
        ("app in (a,)", {"app": ""}, True),
        ("app in ()", {"app": ""}, True),
        ("app notin (a,b)", {}, True),
        ("app notin (a,b),tier", {"app": "a", "tier": "x"}, False),
        ("in in (in,notin)", {"in": "notin"}, True),
        ("n>3", {"n": "10"}, True),
        ("n<3", {"n": "10"}, False),
        ("n>3", {"n": "many"}, False),
        ("n>3", {}, False),
        ("example.com/app=web,tier!=db", {"example.com/app": "web", "tier": "web"}, True),
    ],
)
def test_labels_match(text: str, labels: dict[str, str], expected: bool) -> None:
    assert parse_labels(text).matches(labels) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("!!a", "unable to parse requirement: found '!', expected: identifier"),
        ("/a=b", 'unable to parse requirement: <nil>: Invalid value: "/a": prefix part must be non-empty'),
        ("n>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, "
                "the value must be an integer"),
    ],
)  # fmt: skip
def test_nonsense_labels_are_refused_in_the_words_of_apimachinery(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_labels(text)
    assert refused.value.message == message


def test_a_value_that_no_label_can_have_is_refused_with_the_rule() -> None:
    with pytest.raises(BadRequest) as refused:
        parse_labels("app=-web")
    assert refused.value.message == (
        'unable to parse requirement: values[0][app]: Invalid value: "-web": a valid label must be an empty '
        "string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
        "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    )


def test_a_label_selector_object_joins_labels_and_expressions() -> None:
    selector = from_label_selector(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector.matches({"app": "web", "tier": "b"})
    assert not selector.matches({"app": "web", "tier": "b", "old": ""})
    assert not selector.matches({"app": "web"})


def test_no_label_selector_selects_nothing_and_an_empty_one_everything() -> None:
    assert not from_label_selector(None).matches({})
    assert from_label_selector({}).matches({"a": "b"})


def test_a_label_selector_object_with_a_bad_operator_is_refused() -> None:
    with pytest.raises(BadRequest, match='"Near" is not a valid label selector operator'):
        from_label_selector({"matchExpressions": [{"key": "a", "operator": "Near"}]})


POD: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"nodeName": "n1", "restartPolicy": "Always"},
    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("metadata.name=web", True),
        ("metadata.name==web,spec.nodeName!=n2", True),
        ("spec.host=n1", True),
        ("status.phase!=Running", False),
        ("status.podIP=10.0.0.1", True),
        ("spec.hostNetwork=false", True),
        ("status.nominatedNodeName=", True),
        ("metadata.namespace=other", False),
    ],
)
def test_pod_fields_match(text: str, expected: bool) -> None:
    assert parse_fields(text, PODS).matches(POD) is expected


def test_fields_that_are_absent_have_their_zero_value() -> None:
    assert parse_fields("spec.unschedulable=false", NODES).matches({"spec": {}})
    assert parse_fields("spec.unschedulable!=false", NODES).matches({"spec": {"unschedulable": True}})
    assert parse_fields("status.successful=0", JOBS).matches({})
    assert parse_fields("status.successful=2", JOBS).matches({"status": {"succeeded": 2}})


def test_events_are_selected_by_what_they_concern() -> None:
    event = {
        "involvedObject": {"kind": "Pod", "uid": "u1"},
        "reportingComponent": "kubelet",
        "type": "Warning",
    }
    wanted = "involvedObject.kind=Pod,involvedObject.uid=u1,source=kubelet,type!=Normal"
    assert parse_fields(wanted, EVENTS).matches(event)


def test_each_type_is_selected_by_its_own_fields_and_cluster_scoped_ones_by_no_namespace() -> None:
    requests = Resource("certificates.k8s.io", "v1", "CertificateSigningRequest",
                        "certificatesigningrequests", "certificatesigningrequest", False, {})  # fmt: skip
    signed = {"metadata": {"name": "a"}, "spec": {"signerName": "example.com/x"}}
    assert parse_fields("spec.signerName=example.com/x", requests).matches(signed)
    assert not parse_fields("spec.signerName=example.com/y", requests).matches(signed)
    assert parse_fields("status.podIPs=", PODS).matches(POD)
    with pytest.raises(BadRequest, match=r"field label not supported: metadata\.namespace"):
        parse_fields("metadata.namespace=", NODES)
    storage = Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", "storageclass", False, {})
    assert parse_fields("metadata.namespace=", storage).matches(signed)
    assert not parse_fields("metadata.namespace=x", storage).matches(signed)


def test_a_custom_resource_is_selected_by_the_fields_it_declares() -> None:
    assert parse_fields("spec.color=blue", SHIRTS).matches({"spec": {"color": "blue"}})
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.size"):
        parse_fields("spec.size=L", SHIRTS)


def test_escaped_characters_are_data() -> None:
    obj = {"metadata": {"name": "a,b=c\\"}}
    assert parse_fields(r"metadata.name=a\,b\=c\\", CONFIGMAPS).matches(obj)


@pytest.mark.parametrize(
    ("text", "resource", "message"),
    [
        ("spec.foo=1", PODS, "field label not supported: spec.foo"),
        ("spec.foo=1", JOBS, 'field label "spec.foo" not supported for Job'),
        ("spec.pool=1", SLICES,
         "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.pool"),
        ("data.a=1", CONFIGMAPS,
         '"data.a" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ("metadata.name", PODS, "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        (r"metadata.name=a\b", PODS, r"invalid field selector: invalid escape sequence: \b"),
        ("a=b=c", CONFIGMAPS, "invalid field selector: unescaped character in value: 61"),
        ("metadata.labels.app=a", SHIRTS, "field label not supported: metadata.labels.app"),
    ],
)  # fmt: skip
def test_nonsense_fields_are_refused(text: str, resource: Resource, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_fields(text, resource)
    assert refused.value.message == message


def test_a_field_without_name_and_value_is_no_condition() -> None:
    assert parse_fields("=", CONFIGMAPS).matches({"metadata": {"name": "a"}})


def test_the_one_name_that_can_match_is_known() -> None:
    assert parse_fields("metadata.name=web", PODS).exact("metadata.name") == "web"
    assert parse_fields("metadata.name!=web", PODS).exact("metadata.name") is None
