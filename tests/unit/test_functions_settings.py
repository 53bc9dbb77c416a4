"""What revisions say of their scale and their limits, what the schema refuses, and what pods become of it."""

from __future__ import annotations

from typing import Any

import pytest
from support.functions import service

from walras.core.errors import Invalid
from walras.functions.connections import BadAnswer, parse_head
from walras.functions.settings import INSTANCES_MAX, Limits, Scaling, limits_of, scaling_of
from walras.functions.template import is_probed, pod_template, port_of
from walras.kube import defaults, validation
from walras.kube.registry_builtin import for_agents

Object = dict[str, Any]
SERVICE = for_agents()["services.serving.knative.dev"]


def revision(annotations: Object | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": "r", "uid": "u", "annotations": annotations or {}},
        "spec": {"containers": [{"image": "none"}], **spec},
    }


def scaled(**annotations: str) -> Scaling:
    prefix = "autoscaling.knative.dev/"
    return scaling_of(revision({prefix + name.replace("_", "-"): text for name, text in annotations.items()}))


def test_the_defaults_are_knatives() -> None:
    found = scaled()
    assert (found.minimum, found.maximum, found.initial) == (0, 100, 1)
    # 70 % of 100 requests at once, over a minute; panics over 6 s at twice as many.
    assert (found.metric, found.target_milli) == ("concurrency", 70_000)
    assert (found.window_ms, found.panic_window_ms, found.panic_threshold_percent) == (60_000, 6_000, 200)
    assert limits_of(revision()) == Limits(0, 300_000)


@pytest.mark.parametrize(
    ("annotations", "field", "value"),
    [
        ({"min_scale": "2"}, "minimum", 2),
        ({"minScale": "2"}, "minimum", 2),
        ({"max_scale": "7"}, "maximum", 7),
        ({"max_scale": "0"}, "maximum", 100),
        ({"max_scale": "500"}, "maximum", 500),
        ({"min_scale": "200"}, "maximum", 200),
        ({"max_scale": "9999"}, "maximum", INSTANCES_MAX),
        ({"initial_scale": "0"}, "initial", 0),
        ({"initial_scale": "9", "max_scale": "3"}, "initial", 3),
        ({"target": "10"}, "target_milli", 7_000),
        ({"target": "0.5", "target_utilization_percentage": "100"}, "target_milli", 500),
        ({"metric": "rps"}, "target_milli", 140_000),
        ({"window": "20s"}, "window_ms", 20_000),
        ({"window": "20s"}, "panic_window_ms", 2_000),
        ({"window": "5s"}, "panic_window_ms", 1_000),
        ({"window": "1h"}, "window_ms", 3_600_000),
        ({"scale_down_delay": "15m"}, "down_delay_ms", 900_000),
        ({"scale_to_zero_pod_retention_period": "0s"}, "retention_ms", 0),
        ({"panic_threshold_percentage": "150.0"}, "panic_threshold_percent", 150),
    ],
)
def test_annotations_are_read(annotations: dict[str, str], field: str, value: int) -> None:
    assert getattr(scaled(**annotations), field) == value


def test_what_an_instance_takes_at_most_is_its_target() -> None:
    assert scaling_of(revision(containerConcurrency=10)).target_milli == 7_000
    lower = {"autoscaling.knative.dev/target": "4"}
    assert scaling_of(revision(lower, containerConcurrency=10)).target_milli == 2_800


@pytest.mark.parametrize(
    "annotations",
    [{"min_scale": "-1"}, {"target": "x"}, {"window": "soon"}, {"metric": "cpu"}, {"max_scale": "9" * 20}],
)
def test_what_cannot_be_read_is_invalid(annotations: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"autoscaling\.knative\.dev"):
        scaled(**annotations)


# The schema


def faults(made: Object) -> list[str]:
    made = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", **made}
    made["metadata"] = {"namespace": "default", "uid": "u", **made["metadata"]}
    defaults.apply(SERVICE, made)
    return [f"{each.field}: {each.message}" for each in validation.validate(SERVICE, made, None)]


def changed(change: str, value: Any) -> Object:
    made = service()
    at: Any = made["spec"]
    *path, last = change.split(".")
    for step in path:
        at = at[int(step)] if step.isdigit() else at.setdefault(step, {})
    at[last] = value
    return made


def annotated(name: str, value: str) -> Object:
    made = service()
    key = "autoscaling.knative.dev/" + name.replace("_", "-")
    made["spec"]["template"]["metadata"]["annotations"][key] = value
    return made


def test_a_service_is_valid_and_gets_knatives_defaults() -> None:
    made = service()
    assert faults(made) == []
    defaults.apply(SERVICE, made)
    assert made["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert made["spec"]["template"]["spec"]["timeoutSeconds"] == 300
    assert made["spec"]["template"]["spec"]["containerConcurrency"] == 0


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (changed("traffic", [{"percent": 50}]), "100 together"),
        (changed("traffic", [{"percent": 60}, {"revisionName": "hello-1", "percent": 60}]), "100 together"),
        (
            changed("traffic", [{"percent": 100, "tag": "a"}, {"revisionName": "hello-1", "tag": "a"}]),
            "a tag names one target",
        ),
        (
            changed("traffic", [{"percent": 100, "latestRevision": True, "revisionName": "hello-1"}]),
            "either the latest revision",
        ),
        (changed("traffic", [{"percent": 100, "latestRevision": False}]), "either the latest revision"),
        (changed("template.metadata.name", "other-1"), "begins with the name of its service"),
        (changed("template.spec.containerConcurrency", 1001), "should be less than or equal to 1000"),
        (changed("template.spec.timeoutSeconds", 601), "should be less than or equal to 600"),
        (changed("template.spec.responseStartTimeoutSeconds", 301), "at most timeoutSeconds"),
        (changed("template.spec.containers", []), "should have at least 1 items"),
        (changed("template.spec.containers", [{"image": "a"}, {"image": "b"}]), "exactly one has ports"),
        (
            changed("template.spec.containers.0.env", [{"name": "PORT", "value": "1"}]),
            "given to every instance",
        ),
        (service("a.b"), "as part of a host name"),
        (service("1a"), "as part of a host name"),
        (service("a" * 58), "at most 57"),
        (service("a" * 40, traffic=[{"percent": 100, "tag": "b" * 23}]), "62 characters together"),
        (annotated("min_scale", "-1"), "integers"),
        (service(min_scale="3", max_scale="2"), "less than"),
        (annotated("window", "0s"), "at least 1s"),
        (annotated("window", "2h"), "at most 1h"),
        (annotated("window", "1.5s"), "whole seconds"),
        (annotated("target", "0"), "0.01"),
        (annotated("target_utilization_percentage", "101"), "1 to 100"),
        (annotated("panic_threshold_percentage", "100"), "110"),
        (annotated("metric", "cpu"), "concurrency or rps"),
        (annotated("metric_aggregation_algorithm", "weightedExponential"), "linear"),
        (annotated("class", "hpa.autoscaling.knative.dev"), "kpa"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_service_cannot_mean_is_refused_where_it_is_written(made: Object, words: str) -> None:
    found = faults(made)
    assert len(found) == 1 and words in found[0], found


@pytest.mark.parametrize(
    "made",
    [
        service(min_scale="1", max_scale="0"),
        service(window="90s"),
        service(window="1m30s"),
        service(window="1h"),
        service(scale_down_delay="0s"),
        service(target="0.01"),
        service(target="1000"),
        service(metric="rps"),
        service(target_utilization_percentage="66.6"),
        service(panic_window_percentage="12.5", panic_threshold_percentage="150.75"),
        service(metric_aggregation_algorithm="linear"),
        service(traffic=[]),
        service("a" * 57),
        service("a" * 40, traffic=[{"percent": 100, "tag": "b" * 22}]),
        service(
            traffic=[{"revisionName": "hello-1", "percent": 100}, {"latestRevision": True, "tag": "next"}]
        ),
        service(revision="hello-blue"),
    ],
)
def test_what_knative_takes_is_taken(made: Object) -> None:
    assert faults(made) == []


def noted(**annotations: str) -> Object:
    made = service()
    made["metadata"]["annotations"] = {key.replace("_", "/", 1): value for key, value in annotations.items()}
    return made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (noted(**{"autoscaling.knative.dev_min-scale": "1"}), 'under "spec.template.metadata.annotations"'),
        (noted(**{"serving.knative.dev_rollout-duration": "soon"}), "a duration of whole seconds"),
        (noted(**{"serving.knative.dev_rollout-duration": "0.5s"}), "a duration of whole seconds"),
        (noted(**{"serving.knative.dev_rollout-duration": "25h"}), "at most 24h"),
    ],
)
def test_annotations_of_a_service_that_it_cannot_mean_are_refused(made: Object, words: str) -> None:
    (fault,) = faults(made)
    assert words in fault and fault.startswith("metadata.annotations[")


def test_a_template_that_changes_and_keeps_its_revisions_name_is_refused() -> None:
    def faults_after(before: Object, after: Object) -> list[str]:
        both = []
        for each in (before, after):
            made = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", **each}
            made["metadata"] = {
                "namespace": "default",
                "uid": "u",
                "resourceVersion": "1",
                **made["metadata"],
            }
            defaults.apply(SERVICE, made)
            both.append(made)
        return [each.field for each in validation.validate(SERVICE, both[1], both[0])]

    named, other = service(revision="hello-blue"), service(revision="hello-blue", says="else")
    assert faults_after(named, other) == ["spec.template.metadata.name"]
    assert faults_after(named, service(revision="hello-green", says="else")) == []
    assert faults_after(service(), service(says="else")) == []
    assert faults_after(named, service(revision="hello-blue", traffic=[{"percent": 100, "tag": "a"}])) == []


# Pods


def test_probes_get_the_port_and_connecting_needs_none() -> None:
    made = revision()
    made["spec"]["containers"][0] |= {
        "ports": [{"containerPort": 9000}],
        "readinessProbe": {"httpGet": {"path": "/ready"}},
        "livenessProbe": {"tcpSocket": {"port": 7}},
    }
    container = pod_template(made)["spec"]["containers"][0]
    assert container["readinessProbe"] == {"httpGet": {"path": "/ready", "port": 9000}, "periodSeconds": 1}
    assert container["livenessProbe"] == {"tcpSocket": {"port": 7}}
    assert is_probed(pod_template(made)) and port_of(made) == 9000
    made["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 0}, "successThreshold": 1}
    assert not is_probed(pod_template(made))


def test_of_several_containers_the_one_with_ports_answers_and_fields_of_a_revision_are_no_pods() -> None:
    made = revision(
        containers=[{"image": "a"}, {"image": "b", "ports": [{"containerPort": 80}]}],
        containerConcurrency=3,
        timeoutSeconds=9,
        nodeSelector={"a": "b"},
    )
    spec = pod_template(made)["spec"]
    assert [each["name"] for each in spec["containers"]] == ["user-container-0", "user-container"]
    assert [{"PORT"} & {each["name"] for each in c["env"]} for c in spec["containers"]] == [set(), {"PORT"}]
    assert spec.keys() == {"containers", "nodeSelector"}


# Answers


@pytest.mark.parametrize(
    ("head", "method", "framing", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5", "GET", "length", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0", "GET", "none", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5", "GET", "length", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close", "GET", "length", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5", "GET", "length", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: Keep-Alive", "GET", "length", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", "GET", "chunked", True),
        (b"HTTP/1.1 200 OK", "GET", "close", False),
        (b"HTTP/1.1 200", "GET", "close", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5", "HEAD", "none", True),
        (b"HTTP/1.1 204 No Content", "GET", "none", True),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5", "GET", "none", True),
    ],
)
def test_where_an_answer_ends(head: bytes, method: str, framing: str, keeps: bool) -> None:
    found = parse_head(head, method)
    assert (found.framing, found.keeps) == (framing, keeps)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK",
        b"HTTP/1.1 99 No",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\nbad name: x",
        b"HTTP/1.1 200 OK\r\n folded: x",
        b"HTTP/1.1 200 OK\r\nx: a\x00b",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked",
        b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"x: y" for _ in range(300)),
    ],
)
def test_an_answer_that_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_head(head, "GET")
