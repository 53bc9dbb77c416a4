"""Tables look as kubectl users know them."""

from __future__ import annotations

from typing import Any

import pytest

from walras.core.clock import rfc3339
from walras.core.errors import BadRequest
from walras.kube.registry import Resource
from walras.kube.tables import META_VERSION, partial, table
from walras.kube.tables.columns import human_duration
from walras.kube.tables.jsonpath import PathFault, parse

NOW = 1_700_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def resource(plural: str, group: str = "", version: str = "v1", **rest: Any) -> Resource:
    return Resource(group, version, plural.title(), plural, plural[:-1], True, {}, **rest)


def ago(ms: int) -> str:
    return rfc3339(NOW - ms)


def obj(name: str = "web", age_ms: int = 5 * MINUTE, **rest: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": ago(age_ms)}, **rest}


def shown(of: Resource, item: dict[str, Any], *, wide: bool = False) -> dict[str, Any]:
    """Column headings, as kubectl writes them, with the cells below."""
    result = table(of, [item], now_ms=NOW)
    (row,) = result["rows"]
    assert len(row["cells"]) == len(result["columnDefinitions"])
    pairs = zip(result["columnDefinitions"], row["cells"], strict=True)
    return {column["name"].upper(): cell for column, cell in pairs if wide or column["priority"] == 0}


def pod(**status: Any) -> dict[str, Any]:
    containers = [{"name": held["name"]} for held in status.get("containerStatuses", [{"name": "c"}])]
    inits = [
        {"name": held["name"], **({"restartPolicy": "Always"} if held.pop("sidecar", False) else {})}
        for held in status.get("initContainerStatuses", ())
    ]
    return obj(spec={"containers": containers, "initContainers": inits}, status=status)


def container(state: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"name": "c", "state": state, "restartCount": 0, **rest}


RUNNING: dict[str, Any] = {"running": {}}
DONE: dict[str, Any] = {"terminated": {"exitCode": 0, "reason": "Completed"}}


@pytest.mark.parametrize(
    ("status", "ready", "text"),
    [
        ({"phase": "Pending"}, "0/1", "Pending"),
        ({"phase": "Running", "containerStatuses": [container(RUNNING, ready=True)]}, "1/1", "Running"),
        ({"phase": "Running", "containerStatuses": [container(RUNNING, ready=False)]}, "0/1", "Running"),
        (
            {
                "phase": "Pending",
                "containerStatuses": [container({"waiting": {"reason": "ContainerCreating"}})],
            },
            "0/1",
            "ContainerCreating",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [container({"waiting": {"reason": "CrashLoopBackOff"}})],
            },
            "0/1",
            "CrashLoopBackOff",
        ),
        ({"phase": "Succeeded", "containerStatuses": [container(DONE)]}, "0/1", "Completed"),
        (
            {"phase": "Failed", "containerStatuses": [container({"terminated": {"exitCode": 3}})]},
            "0/1",
            "ExitCode:3",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [container({"terminated": {"exitCode": 9, "signal": 9}})],
            },
            "0/1",
            "Signal:9",
        ),
        ({"phase": "Failed", "reason": "Evicted"}, "0/1", "Evicted"),
        (
            {"phase": "Running", "containerStatuses": [container(DONE), container(RUNNING, ready=True)]},
            "1/2",
            "NotReady",
        ),
        (
            {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [container(DONE), container(RUNNING, ready=True)],
            },
            "1/2",
            "Running",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
            },
            "0/1",
            "SchedulingGated",
        ),
        ({"phase": "Pending", "initContainerStatuses": [container({"running": {}})]}, "0/1", "Init:0/1"),
        (
            {"phase": "Pending", "initContainerStatuses": [container({"terminated": {"exitCode": 1}})]},
            "0/1",
            "Init:ExitCode:1",
        ),
        (
            {
                "phase": "Running",
                "initContainerStatuses": [container(RUNNING, ready=True, started=True, sidecar=True)],
                "containerStatuses": [container(RUNNING, ready=True)],
            },
            "2/2",
            "Running",
        ),
    ],
)
def test_a_pod_shows_what_its_containers_do(status: dict[str, Any], ready: str, text: str) -> None:
    row = shown(resource("pods"), pod(**status))
    assert (row["READY"], row["STATUS"]) == (ready, text)


def test_a_pod_shows_its_restarts_and_when_the_last_was() -> None:
    last = {"terminated": {"exitCode": 1, "finishedAt": ago(90_000)}}
    statuses = [container(RUNNING, ready=True, restartCount=4, lastState=last)]
    row = shown(resource("pods"), pod(phase="Running", containerStatuses=statuses))
    assert row == {
        "NAME": "web", "READY": "1/1", "STATUS": "Running", "RESTARTS": "4 (90s ago)", "AGE": "5m",
    }  # fmt: skip


def test_a_pod_that_is_being_deleted_is_terminating_unless_it_has_ended() -> None:
    item = pod(phase="Running", containerStatuses=[container(RUNNING, ready=True)])
    item["metadata"]["deletionTimestamp"] = ago(0)
    assert shown(resource("pods"), item)["STATUS"] == "Terminating"
    item["status"] = {"phase": "Succeeded", "containerStatuses": [container(DONE)]}
    assert shown(resource("pods"), item)["STATUS"] == "Completed"


def test_wide_pods_show_where_they_run() -> None:
    item = pod(phase="Running", podIPs=[{"ip": "10.1.2.3"}])
    item["spec"]["nodeName"] = "n1"
    row = shown(resource("pods"), item, wide=True)
    assert [row[key] for key in ("IP", "NODE", "NOMINATED NODE", "READINESS GATES")] == [
        "10.1.2.3", "n1", "<none>", "<none>",
    ]  # fmt: skip


def test_an_ended_pod_is_a_completed_row() -> None:
    (row,) = table(resource("pods"), [pod(phase="Failed")], now_ms=NOW)["rows"]
    assert row["conditions"] == [
        {"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}
    ]
    (row,) = table(resource("pods"), [pod(phase="Running")], now_ms=NOW)["rows"]
    assert "conditions" not in row


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-1500, "0s"), (-2000, "<invalid>"), (0, "0s"), (119_999, "119s"), (2 * MINUTE, "2m"),
        (2 * MINUTE + 5000, "2m5s"), (10 * MINUTE, "10m"), (179 * MINUTE, "179m"), (3 * HOUR, "3h"),
        (3 * HOUR + 7 * MINUTE, "3h7m"), (8 * HOUR + 7 * MINUTE, "8h"), (47 * HOUR, "47h"), (2 * DAY, "2d"),
        (50 * HOUR, "2d2h"), (8 * DAY, "8d"), (729 * DAY, "729d"), (730 * DAY, "2y"), (731 * DAY, "2y1d"),
        (365 * 9 * DAY, "9y"),
    ],
)  # fmt: skip
def test_ages_are_as_kubectl_rounds_them(ms: int, text: str) -> None:
    assert human_duration(ms) == text


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({"completions": 3}, {"succeeded": 1, "startTime": ago(MINUTE)}, ("Running", "1/3", "60s")),
        ({"parallelism": 4}, {}, ("Running", "0/1 of 4", "")),
        ({"parallelism": 1}, {}, ("Running", "0/1", "")),
        (
            {"completions": 1},
            {
                "succeeded": 1,
                "startTime": ago(HOUR),
                "completionTime": ago(HOUR - 5000),
                "conditions": [{"type": "Complete", "status": "True"}],
            },
            ("Complete", "1/1", "5s"),
        ),
        (
            {"completions": 1},
            {"conditions": [{"type": "Failed", "status": "True"}]},
            ("Failed", "0/1", ""),
        ),
        ({"completions": 1}, {"conditions": [{"type": "Suspended", "status": "True"}]},
         ("Suspended", "0/1", "")),
    ],
)  # fmt: skip
def test_a_job_shows_how_far_it_is(
    spec: dict[str, Any], status: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    row = shown(resource("jobs", "batch"), obj(spec=spec, status=status))
    assert (row["STATUS"], row["COMPLETIONS"], row["DURATION"]) == expected


def test_a_deployment_and_a_replica_set_show_counts_and_wide_their_template() -> None:
    spec = {
        "replicas": 3,
        "selector": {
            "matchLabels": {"b": "1"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}],
        },
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}},
    }
    item = obj(spec=spec, status={"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2})
    row = shown(resource("deployments", "apps"), item, wide=True)
    assert row == {
        "NAME": "web", "READY": "1/3", "UP-TO-DATE": 2, "AVAILABLE": 0, "AGE": "5m",
        "CONTAINERS": "c,d", "IMAGES": "i,j", "SELECTOR": "a in (x,y),b=1",
    }  # fmt: skip
    row = shown(resource("replicasets", "apps"), item)
    assert row == {"NAME": "web", "DESIRED": 3, "CURRENT": 2, "READY": 1, "AGE": "5m"}


def test_a_node_shows_whether_it_takes_pods() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36"}}
    item = obj(spec={"unschedulable": True}, status=ready)
    item["metadata"]["labels"] = {"node-role.kubernetes.io/gpu": "", "kubernetes.io/role": "base"}
    assert shown(resource("nodes"), item) == {
        "NAME": "web", "STATUS": "Ready,SchedulingDisabled", "ROLES": "base,gpu", "AGE": "5m",
        "VERSION": "v1.36",
    }  # fmt: skip
    assert shown(resource("nodes"), obj())["STATUS"] == "Unknown"


@pytest.mark.parametrize(
    ("of", "item", "expected"),
    [
        (resource("namespaces"), obj(status={"phase": "Active"}), ["web", "Active", "5m"]),
        (resource("configmaps"), obj(data={"a": "1"}, binaryData={"b": ""}), ["web", 2, "5m"]),
        (resource("secrets"), obj(type="Opaque", data={"a": ""}), ["web", "Opaque", 1, "5m"]),
        (resource("serviceaccounts"), obj(), ["web", "5m"]),
        (resource("leases", "coordination.k8s.io"), obj(spec={"holderIdentity": "me"}), ["web", "me", "5m"]),
        (
            resource("priorityclasses", "scheduling.k8s.io"),
            obj(value=7, preemptionPolicy="Never"),
            ["web", 7, False, "5m", "Never"],
        ),
        (
            resource("resourceslices", "resource.k8s.io"),
            obj(spec={"nodeName": "n", "driver": "d", "pool": {"name": "p"}}),
            ["web", "n", "d", "p", "5m"],
        ),
        (
            resource("customresourcedefinitions", "apiextensions.k8s.io"),
            obj(),
            ["web", ago(5 * MINUTE)],
        ),
        (
            resource("services"),
            obj(
                spec={
                    "type": "NodePort",
                    "clusterIPs": ["10.0.0.1"],
                    "ports": [
                        {"port": 80, "protocol": "TCP", "nodePort": 30080},
                        {"port": 53, "protocol": "UDP"},
                    ],
                    "selector": {"b": "2", "a": "1"},
                }
            ),
            ["web", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "5m", "a=1,b=2"],
        ),
        (
            resource("persistentvolumeclaims"),
            obj(
                spec={"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"},
                status={"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
            ),
            ["web", "Bound", "v", "1Gi", "RWO", "s", "<unset>", "5m", "Filesystem"],
        ),
    ],
    ids=lambda value: value.plural if isinstance(value, Resource) else "",
)
def test_plain_kinds(of: Resource, item: dict[str, Any], expected: list[Any]) -> None:
    assert list(shown(of, item, wide=True).values()) == expected


def test_an_event_shows_when_it_was_last_seen_and_on_what() -> None:
    event = obj(
        "web.1", type="Warning", reason="BackOff", message=" Back-off\n", count=3,
        firstTimestamp=ago(HOUR), lastTimestamp=ago(30_000),
        involvedObject={"kind": "Pod", "name": "web"}, source={"component": "kubelet", "host": "n1"},
    )  # fmt: skip
    assert shown(resource("events"), event, wide=True) == {
        "LAST SEEN": "30s", "TYPE": "Warning", "REASON": "BackOff", "OBJECT": "pod/web", "SUBOBJECT": "",
        "SOURCE": "kubelet, n1", "MESSAGE": "Back-off", "FIRST SEEN": "60m", "COUNT": 3, "NAME": "web.1",
    }  # fmt: skip


def test_a_custom_resource_shows_the_columns_that_its_crd_declares() -> None:
    columns = (
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
        {"name": "Count", "type": "integer", "jsonPath": ".status.count"},
        {"name": "Device", "type": "string", "jsonPath": ".spec.devices[*].device"},
        {"name": "Map", "type": "string", "jsonPath": ".spec.map", "priority": 1},
        {"name": "Since", "type": "date", "jsonPath": ".status.at"},
        {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
        {"name": "Gone", "type": "string", "jsonPath": ".spec.gone"},
    )
    item = obj(
        spec={"devices": [{"device": "d0"}, {"device": "d1"}], "map": {"b": 1, "a": [True]}, "on": True},
        status={
            "conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}],
            "count": 3,
            "at": ago(2 * HOUR),
        },
    )
    row = shown(resource("foos", "x.io", builtin=False, printer_columns=columns), item, wide=True)
    assert row == {
        "NAME": "web", "READY": "True", "COUNT": 3, "DEVICE": "d0", "MAP": '{"a":[true],"b":1}',
        "SINCE": "120m", "ON": True, "GONE": None,
    }  # fmt: skip


def test_a_custom_resource_without_columns_shows_its_age() -> None:
    assert shown(resource("foos", "x.io", builtin=False), obj()) == {"NAME": "web", "AGE": "5m"}


def test_nonsense_in_an_object_or_a_crd_does_not_spoil_the_table() -> None:
    item = pod(phase="Running", containerStatuses=[container(RUNNING, restartCount=1, lastState={
        "terminated": {"finishedAt": "yesterday"}})])  # fmt: skip
    item["metadata"]["creationTimestamp"] = "long ago"
    assert [shown(resource("pods"), item)[key] for key in ("RESTARTS", "AGE")] == ["1", "<invalid>"]
    job = obj(status={"startTime": "yesterday"})
    assert shown(resource("jobs", "batch"), job)["DURATION"] == ""
    columns = ({"name": "Bad", "type": "string", "jsonPath": ".a["},)
    foos = resource("foos", "x.io", builtin=False, printer_columns=columns)
    assert shown(foos, obj()) == {"NAME": "web", "BAD": None}


def test_rows_carry_metadata_the_object_or_nothing() -> None:
    item = obj(data={"a": "1"})
    maps = resource("configmaps")
    rows = [
        table(maps, [item], now_ms=NOW, include_object=include)["rows"][0]["object"]
        for include in ("", "Metadata", "Object", "None")
    ]
    assert rows == [partial(item), partial(item), item, None]
    assert partial(item) == {
        "kind": "PartialObjectMetadata", "apiVersion": META_VERSION, "metadata": item["metadata"],
    }  # fmt: skip
    with pytest.raises(BadRequest, match='unrecognized includeObject value: "All"'):
        table(maps, [item], now_ms=NOW, include_object="All")


def test_every_column_says_what_it_means() -> None:
    for plural, group in (("pods", ""), ("nodes", ""), ("jobs", "batch"), ("events", ""), ("services", "")):
        for column in table(resource(plural, group), [], now_ms=NOW)["columnDefinitions"]:
            assert column["description"], column


def test_later_events_of_a_watch_leave_the_headers_out() -> None:
    assert table(resource("pods"), [], now_ms=NOW, headers=False)["columnDefinitions"] is None


DOC = {
    "spec": {"list": [{"n": 1, "name": "a"}, {"n": 2, "name": "b"}, {"name": "c"}], "a.b": "dotted"},
    "kind": "X",
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".kind", ["X"]),
        ("{.kind}", ["X"]),
        ("$.kind", ["X"]),
        (".spec.list[0].name", ["a"]),
        (".spec.list[-1].name", ["c"]),
        (".spec.list[*].name", ["a", "b", "c"]),
        (".spec.list[0:2].name", ["a", "b"]),
        (".spec.list[1:].name", ["b", "c"]),
        (".spec.list[0,2].name", ["a", "c"]),
        (".spec['a.b']", ["dotted"]),
        (r".spec.a\.b", ["dotted"]),
        ('.spec.list[?(@.name=="b")].n', [2]),
        (".spec.list[?(@.n>1)].name", ["b"]),
        (".spec.list[?(@.n != 1)].name", ["b"]),
        (".spec.list[?(@.n)].name", ["a", "b"]),
        ("..n", [1, 2]),
        (".spec.list[9].name", []),
        (".nothing.at.all", []),
        (".kind[0]", []),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    assert parse(path).find(DOC) == found


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b==", ".a[x]", ".a }", ".a[?(b)]", ".a[::0]"])
def test_nonsense_paths_are_refused(path: str) -> None:
    with pytest.raises(PathFault):
        parse(path)
