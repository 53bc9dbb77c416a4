"""The unmodified kubectl against a real server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.e2e
Server = Any  # the fixture's ApiServer

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {k: v}\n"
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {containers: [{name: c, image: local, command: [sleep, "60"]}]}
"""
CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.demo.io}
spec:
  group: demo.io
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns: [{name: Budget, type: integer, jsonPath: .spec.budget}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What the widget is to do.
            properties:
              budget: {type: integer, maximum: 100, description: Credits to spend.}
              replicas: {type: integer, default: 1}
            x-kubernetes-validations: [{rule: "self.budget != 13", message: "thirteen is unlucky"}]
          status: {type: object, properties: {replicas: {type: integer}}}
"""


def named(template: str, name: str) -> str:
    return template.replace("NAME", name)


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """Its output, when it went well."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What it complained of, when it did."""
    assert done.returncode != 0, f"{done.args} was not refused:\n{done.stdout}"
    return done.stderr


def loaded(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return dict(json.loads(ok(done)))


def eventually(check: Callable[[], Any], timeout_s: float = 20) -> Any:
    """Waits for another program, by polling with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


# Discovery and explanation


def test_what_there_is_can_be_discovered(apiserver: Server) -> None:
    rows = [line.split() for line in ok(apiserver.kubectl("api-resources", "--no-headers")).splitlines()]
    kinds = {row[-1] for row in rows}
    assert {"Pod", "Job", "Deployment", "Bid", "GPULease", "CustomResourceDefinition"} <= kinds
    assert {"Agent", "Pool"}.isdisjoint(kinds)
    fleet = ok(apiserver.kubectl("api-resources", "-o", "name", cluster="fleet", token="operator"))
    assert {"agents.walras.dev", "pools.walras.dev"} <= set(fleet.split())
    assert "walras.dev/v1alpha1" in ok(apiserver.kubectl("api-versions")).split()
    assert "Server Version: v1.36" in ok(apiserver.kubectl("version"))
    assert "is running at" in ok(apiserver.kubectl("cluster-info"))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("deployment.spec.strategy", "rollingUpdate"),
        ("pod.spec.containers.resources", "limits"),
        ("bids.spec.packages", "maxPrice"),
        ("configmap", "binaryData"),
    ],
)
def test_fields_are_explained(apiserver: Server, what: str, words: str) -> None:
    assert words in ok(apiserver.kubectl("explain", what))


# Reading and writing


def test_a_manifest_is_created_read_in_every_form_and_deleted(apiserver: Server) -> None:
    k, manifest = apiserver.kubectl, named(CONFIG_MAP, "forms")
    assert "created (server dry run)" in ok(k("create", "-f", "-", "--dry-run=server", stdin=manifest))
    assert "NotFound" in refused(k("get", "cm", "forms"))
    assert ok(k("create", "-f", "-", stdin=manifest)) == "configmap/forms created\n"
    assert "already exists" in refused(k("create", "-f", "-", stdin=manifest))
    header, row = ok(k("get", "cm", "forms", "-o", "wide")).splitlines()
    assert header.split() == ["NAME", "DATA", "AGE"] and row.split()[:2] == ["forms", "1"]
    assert loaded(k("get", "cm", "forms", "-o", "json"))["data"] == {"k": "v"}
    assert yaml.safe_load(ok(k("get", "cm", "forms", "-o", "yaml")))["data"] == {"k": "v"}
    assert ok(k("get", "cm", "forms", "-o", "jsonpath={.data.k}")) == "v"
    assert ok(k("get", "cm", "forms", "-o", "name")) == "configmap/forms\n"
    assert ok(k("get", "cm", "forms", "--no-headers", "-o", "custom-columns=X:.data.k")) == "v\n"
    assert "forms" in ok(k("get", "cm", "-A")) and "forms" in ok(k("get", "cm", "--chunk-size=1"))
    assert "k:\n----\nv" in ok(k("describe", "cm", "forms"))
    assert ok(k("delete", "cm", "forms")) == 'configmap "forms" deleted from default namespace\n'
    assert "NotFound" in refused(k("delete", "cm", "forms"))


def test_client_side_apply_creates_changes_nothing_and_merges(apiserver: Server) -> None:
    k, manifest = apiserver.kubectl, named(DEPLOYMENT, "applied")
    assert ok(k("apply", "-f", "-", stdin=manifest)) == "deployment.apps/applied created\n"
    assert ok(k("apply", "-f", "-", stdin=manifest)) == "deployment.apps/applied unchanged\n"
    ok(k("scale", "deploy/applied", "--replicas=5"))
    changed = manifest.replace("image: local", "image: other").replace("  replicas: 2\n", "")
    assert "image: other" in k("diff", "-f", "-", stdin=changed).stdout
    assert ok(k("apply", "-f", "-", stdin=changed)) == "deployment.apps/applied configured\n"
    spec = loaded(k("get", "deploy", "applied", "-o", "json"))["spec"]
    assert spec["template"]["spec"]["containers"][0]["image"] == "other"
    ok(k("delete", "deploy", "applied"))


def test_server_side_apply_tells_conflicts_and_can_be_forced(apiserver: Server) -> None:
    k, manifest = apiserver.kubectl, named(CONFIG_MAP, "owned")
    assert (
        ok(k("apply", "--server-side", "-f", "-", stdin=manifest)) == "configmap/owned serverside-applied\n"
    )
    before = loaded(k("get", "cm", "owned", "-o", "json", "--show-managed-fields"))["metadata"]
    assert [each["manager"] for each in before["managedFields"]] == ["kubectl"]
    ok(k("apply", "--server-side", "-f", "-", stdin=manifest))
    assert (
        loaded(k("get", "cm", "owned", "-o", "json"))["metadata"]["resourceVersion"]
        == before["resourceVersion"]
    )
    other = manifest.replace("k: v", "k: mine")
    said = refused(k("apply", "--server-side", "--field-manager=me", "-f", "-", stdin=other))
    assert 'conflict with "kubectl"' in said and ".data.k" in said
    ok(k("apply", "--server-side", "--field-manager=me", "--force-conflicts", "-f", "-", stdin=other))
    assert ok(k("get", "cm", "owned", "-o", "jsonpath={.data.k}")) == "mine"
    ok(k("delete", "cm", "owned"))


def test_client_side_apply_can_be_taken_over_by_server_side_apply(apiserver: Server) -> None:
    k, manifest = apiserver.kubectl, named(CONFIG_MAP, "migrated")
    ok(k("apply", "-f", "-", stdin=manifest))
    ok(k("apply", "--server-side", "-f", "-", stdin=manifest.replace("{k: v}", "{k: v, l: w}")))
    ok(k("apply", "--server-side", "-f", "-", stdin=manifest))
    assert loaded(k("get", "cm", "migrated", "-o", "json"))["data"] == {"k": "v"}
    ok(k("delete", "cm", "migrated"))


def test_the_three_patches_do_what_they_say(apiserver: Server) -> None:
    k = apiserver.kubectl
    ok(k("create", "-f", "-", stdin=named(DEPLOYMENT, "patched")))
    image = '{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"two"}]}}}}'
    ok(k("patch", "deploy", "patched", "-p", image))
    ok(k("patch", "deploy", "patched", "--type=merge", "-p", '{"spec":{"replicas":4}}'))
    ok(
        k(
            "patch",
            "deploy",
            "patched",
            "--type=json",
            "-p",
            '[{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]',
        )
    )
    found = loaded(k("get", "deploy", "patched", "-o", "json"))
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["command"]) == ("two", ["sleep", "60"])
    assert (found["spec"]["replicas"], found["metadata"]["labels"]) == (4, {"x": "y"})
    said = refused(
        k("patch", "deploy", "patched", "--type=json", "-p", '[{"op":"test","path":"/kind","value":"x"}]')
    )
    assert "the server rejected our request" in said
    ok(k("delete", "deploy", "patched"))


def test_labels_annotations_edit_and_replace(apiserver: Server, tmp_path: Path) -> None:
    k, manifest = apiserver.kubectl, named(CONFIG_MAP, "edited")
    ok(k("create", "-f", "-", stdin=manifest))
    assert ok(k("label", "cm", "edited", "tier=gold")) == "configmap/edited labeled\n"
    assert "already has a value" in refused(k("label", "cm", "edited", "tier=tin"))
    ok(k("label", "cm", "edited", "tier=tin", "--overwrite"))
    assert ok(k("annotate", "cm", "edited", "note=x")) == "configmap/edited annotated\n"
    assert ok(k("get", "cm", "-l", "tier in (tin)", "-o", "name")) == "configmap/edited\n"
    assert (
        ok(k("get", "cm", "--field-selector", "metadata.name=edited", "-o", "name")) == "configmap/edited\n"
    )
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/k: v/k: edited/" "$1"\n')
    editor.chmod(0o700)
    assert ok(k("edit", "cm", "edited", KUBE_EDITOR=str(editor))) == "configmap/edited edited\n"
    assert ok(k("get", "cm", "edited", "-o", "jsonpath={.data.k}")) == "edited"
    assert ok(k("replace", "-f", "-", stdin=manifest)) == "configmap/edited replaced\n"
    assert ok(k("get", "cm", "edited", "-o", "jsonpath={.data.k}{.metadata.labels}")) == "v"
    assert "NotFound" in refused(k("replace", "-f", "-", stdin=named(CONFIG_MAP, "nobody")))
    stale = yaml.safe_load(ok(k("get", "cm", "edited", "-o", "yaml")))
    ok(k("label", "cm", "edited", "a=b"))
    assert "the object has been modified" in refused(k("replace", "-f", "-", stdin=yaml.safe_dump(stale)))
    ok(k("delete", "cm", "-l", "a=b"))


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        (("create", "namespace", "made"), "namespace/made created\n"),
        (("create", "serviceaccount", "bot"), "serviceaccount/bot created\n"),
        (("create", "secret", "generic", "s1", "--from-literal=a=b"), "secret/s1 created\n"),
        (("create", "configmap", "c1", "--from-literal=a=b"), "configmap/c1 created\n"),
        (("create", "job", "j1", "--image=local", "--", "true"), "job.batch/j1 created\n"),
        (("create", "deployment", "d1", "--image=local"), "deployment.apps/d1 created\n"),
        (("create", "service", "clusterip", "v1", "--tcp=80"), "service/v1 created\n"),
        (("create", "priorityclass", "p1", "--value=5"), "priorityclass.scheduling.k8s.io/p1 created\n"),
        (("run", "r1", "--image=local", "--restart=Never", "--", "true"), "pod/r1 created\n"),
    ],
)
def test_the_generators_of_kubectl_work(apiserver: Server, arguments: tuple[str, ...], row: str) -> None:
    assert ok(apiserver.kubectl(*arguments)) == row
    kind, _, name = row.split(maxsplit=1)[0].partition("/")
    assert loaded(apiserver.kubectl("get", kind, name, "-o", "json"))["metadata"]["name"] == name
    ok(apiserver.kubectl("delete", kind, name, "--wait=false"))


def test_secrets_are_stored_encoded(apiserver: Server) -> None:
    ok(apiserver.kubectl("create", "secret", "generic", "coded", "--from-literal=a=b"))
    assert ok(apiserver.kubectl("get", "secret", "coded", "-o", "jsonpath={.data.a}")) == "Yg=="


def test_deployments_are_scaled_exposed_restarted_and_given_images(apiserver: Server) -> None:
    k = apiserver.kubectl
    ok(k("create", "-f", "-", stdin=named(DEPLOYMENT, "web")))
    assert ok(k("scale", "deploy/web", "--replicas=3")) == "deployment.apps/web scaled\n"
    assert ok(k("set", "image", "deploy/web", "c=third")) == "deployment.apps/web image updated\n"
    assert ok(k("rollout", "restart", "deploy/web")) == "deployment.apps/web restarted\n"
    assert ok(k("expose", "deploy/web", "--port=80")) == "service/web exposed\n"
    found = loaded(k("get", "deploy", "web", "-o", "json"))
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (3, 4)
    header, row = ok(k("get", "deploy", "web", "-o", "wide")).splitlines()
    assert header.split() == [
        "NAME",
        "READY",
        "UP-TO-DATE",
        "AVAILABLE",
        "AGE",
        "CONTAINERS",
        "IMAGES",
        "SELECTOR",
    ]
    assert row.split()[:2] == ["web", "0/3"] and row.split()[-3:] == ["c", "third", "app=web"]
    assert "timed out waiting" in refused(
        k("wait", "--for=condition=Available", "deploy/web", "--timeout=1s")
    )
    assert "Waiting for deployment" in k("rollout", "status", "deploy/web", "--timeout=1s").stdout
    assert "Replicas:" in ok(k("describe", "deploy", "web"))
    ok(k("delete", "deploy,svc", "web"))


# Pods


def started(apiserver: Server, name: str, node: str = "base") -> None:
    """The pod as its node's runtime would leave it: bound and running."""

    def run(pod: dict[str, Any]) -> None:
        pod["spec"]["nodeName"] = node
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        pod["status"] = {"phase": "Running", "conditions": [ready]}

    apiserver.run(apiserver.api.edit("one", "pods", "default", name, run))


def test_a_pod_is_run_described_waited_for_and_its_log_read(apiserver: Server) -> None:
    k = apiserver.kubectl
    ok(k("run", "talker", "--image=local", "--", "echo", "hello"))
    assert ok(k("logs", "talker")) == ""
    started(apiserver, "talker")
    assert (
        ok(k("wait", "--for=condition=Ready", "pod/talker", "--timeout=20s")) == "pod/talker condition met\n"
    )
    header, row = ok(k("get", "pod", "talker", "-o", "wide")).splitlines()
    assert header.split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[2] == "Running" and "base" in row.split()
    assert ok(k("logs", "talker", "--tail=5", "--since=60s", "--timestamps")) == "hello\nworld\n"
    asked = apiserver.pods.asked[-1]
    assert (asked["cluster"], asked["pod"], asked["container"]) == ("one", "talker", "talker")
    assert (asked["tail_lines"], asked["since_seconds"], asked["timestamps"]) == (5, 60, True)
    assert "is not valid for pod" in refused(k("logs", "talker", "-c", "nobody"))
    assert "Node:             base" in ok(k("describe", "pod", "talker"))
    apiserver.run(apiserver.api.delete("one", "pods", "default", "talker", grace_seconds=0))


def test_a_log_is_followed_until_the_client_leaves(apiserver: Server) -> None:
    ok(apiserver.kubectl("run", "endless", "--image=local"))
    started(apiserver, "endless")
    following = start(apiserver, "logs", "-f", "endless")
    try:
        assert [line(following) for _ in range(2)] == ["hello\n", "world\n"]
        assert len(apiserver.app.streams) == 1
    finally:
        stop(following)
    eventually(lambda: not apiserver.app.streams)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("top", "nodes"), "Metrics API not available"),
    ],
)
def test_what_is_not_served_is_refused_in_words(
    apiserver: Server, arguments: tuple[str, ...], said: str
) -> None:
    ok(apiserver.kubectl("run", "odd", "--image=local"))
    assert said in refused(apiserver.kubectl(*arguments))
    ok(apiserver.kubectl("delete", "pod", "odd"))


def test_pods_are_deleted_at_once_or_in_their_own_time(apiserver: Server) -> None:
    k = apiserver.kubectl
    for name in ("quick", "slow"):
        ok(k("run", name, "--image=local"))
        started(apiserver, name)
    assert "force deleted" in ok(k("delete", "pod", "quick", "--force", "--grace-period=0"))
    ok(k("delete", "pod", "slow", "--wait=false"))
    metadata = loaded(k("get", "pod", "slow", "-o", "json"))["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == 30
    assert "Terminating" in ok(k("get", "pod", "slow"))
    apiserver.run(apiserver.api.delete("one", "pods", "default", "slow", grace_seconds=0))
    assert "NotFound" in refused(k("get", "pod", "slow"))


def test_pods_are_bound_and_evicted_through_their_subresources(apiserver: Server) -> None:
    ok(apiserver.kubectl("run", "bound", "--image=local"))
    pods = "/clusters/one/api/v1/namespaces/default/pods/bound"
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "bound"},
        "target": {"kind": "Node", "name": "n1"},
    }
    with apiserver.client() as client:
        assert client.post(f"{pods}/binding", json=binding).status_code == 201
        assert client.get(pods).json()["spec"]["nodeName"] == "n1"
        again = client.post(f"{pods}/binding", json=binding)
        assert (again.status_code, again.json()["reason"]) == (409, "Conflict")
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "bound"}}
        assert client.post(f"{pods}/eviction", json=eviction).json()["status"] == "Success"
        assert "deletionTimestamp" in client.get(pods).json()["metadata"]
    apiserver.run(apiserver.api.delete("one", "pods", "default", "bound", grace_seconds=0))


def test_nodes_are_cordoned_tainted_and_drained(apiserver: Server) -> None:
    k = apiserver.kubectl
    apiserver.run(apiserver.api.create("one", "nodes", {"metadata": {"name": "n2"}, "spec": {}}))
    ok(k("run", "guest", "--image=local", "--labels=app=guest"))
    started(apiserver, "guest", "n2")
    assert ok(k("cordon", "n2")) == "node/n2 cordoned\n"
    assert "SchedulingDisabled" in ok(k("get", "nodes"))
    assert ok(k("uncordon", "n2")) == "node/n2 uncordoned\n"
    assert ok(k("taint", "nodes", "n2", "a=b:NoSchedule")) == "node/n2 tainted\n"
    assert "cannot delete" in refused(k("drain", "n2"))
    draining = start(apiserver, "drain", "n2", "--force")
    eventually(lambda: "deletionTimestamp" in loaded(k("get", "pod", "guest", "-o", "json"))["metadata"])
    apiserver.run(apiserver.api.delete("one", "pods", "default", "guest", grace_seconds=0))
    assert finished(draining) == 0
    assert "may not be changed" in refused(k("label", "node", "n2", "walras.dev/bid=x"))
    assert "forbidden" in refused(k("delete", "node", "n2"))


# Watches


def start(apiserver: Server, *arguments: str) -> subprocess.Popen[str]:
    command = [str(apiserver.kubectl_path), "--kubeconfig", str(apiserver.kubeconfig()), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def finished(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=20)
    return process.returncode


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_watch_tells_what_happens_and_ends_with_its_client(apiserver: Server) -> None:
    k = apiserver.kubectl
    ok(k("create", "-f", "-", stdin=named(CONFIG_MAP, "seen")))
    watching = start(apiserver, "get", "cm", "seen", "-w", "--output-watch-events")
    try:
        assert line(watching).split() == ["EVENT", "NAME", "DATA", "AGE"]
        assert line(watching).split()[:3] == ["ADDED", "seen", "1"]
        eventually(lambda: apiserver.app.streams)
        ok(k("patch", "cm", "seen", "--type=merge", "-p", '{"data":{"l":"w"}}'))
        assert line(watching).split()[:3] == ["MODIFIED", "seen", "2"]
        ok(k("delete", "cm", "seen"))
        assert line(watching).split()[:2] == ["DELETED", "seen"]
    finally:
        stop(watching)
    eventually(lambda: not apiserver.app.streams and not len(apiserver.api.hub), timeout_s=5)


def test_a_deletion_is_waited_for(apiserver: Server) -> None:
    ok(apiserver.kubectl("create", "-f", "-", stdin=named(CONFIG_MAP, "kept")))
    keep = '{"metadata":{"finalizers":["test.io/keep"]}}'
    ok(apiserver.kubectl("patch", "cm", "kept", "--type=merge", "-p", keep))
    deleting = start(apiserver, "delete", "cm", "kept", "--timeout=20s")
    eventually(
        lambda: (
            "deletionTimestamp" in loaded(apiserver.kubectl("get", "cm", "kept", "-o", "json"))["metadata"]
        )
    )
    assert deleting.poll() is None
    ok(apiserver.kubectl("patch", "cm", "kept", "--type=merge", "-p", '{"metadata":{"finalizers":null}}'))
    assert finished(deleting) == 0


# Custom resources


def test_a_custom_resource_is_defined_used_explained_and_removed(apiserver: Server) -> None:
    k = apiserver.kubectl
    ok(k("apply", "-f", "-", stdin=CRD))
    ok(k("wait", "--for=condition=Established", "crd/widgets.demo.io", "--timeout=20s"))
    one = "apiVersion: demo.io/v1\nkind: Widget\nmetadata: {name: one}\nspec: {budget: 7}\n"
    assert ok(k("apply", "-f", "-", stdin=one.replace("7", "6"))) == "widget.demo.io/one created\n"
    assert ok(k("apply", "-f", "-", stdin=one)) == "widget.demo.io/one configured\n"
    header, row = ok(k("get", "wd")).splitlines()
    assert header.split() == ["NAME", "BUDGET"] and row.split() == ["one", "7"]
    assert ok(k("get", "widget", "one", "-o", "jsonpath={.spec.replicas}")) == "1"
    assert "Credits to spend." in ok(k("explain", "widgets.spec"))
    assert "less than or equal to 100" in refused(
        k("patch", "wd", "one", "--type=merge", "-p", '{"spec":{"budget":500}}')
    )
    assert "thirteen is unlucky" in refused(
        k("patch", "wd", "one", "--type=merge", "-p", '{"spec":{"budget":13}}')
    )
    assert "unknown field" in refused(
        k("create", "-f", "-", stdin=one.replace("budget", "bugdet").replace("one", "two"))
    )
    assert ok(k("scale", "widgets/one", "--replicas=4")) == "widget.demo.io/one scaled\n"
    assert "widgets" not in ok(k("api-resources", cluster="two", token="two"))
    ok(k("delete", "wd", "one"))
    ok(k("delete", "crd", "widgets.demo.io", "--timeout=20s"))
    assert "widgets" in refused(k("get", "widgets"))


# Access


def test_an_agent_can_ask_who_it_is_and_what_it_may_do(apiserver: Server) -> None:
    k = apiserver.kubectl
    assert loaded(k("auth", "whoami", "-o", "json"))["status"]["userInfo"]["username"] == "agent:one"
    assert ok(k("auth", "can-i", "create", "pods")) == "yes\n"
    assert "no - nodes come and go" in k("auth", "can-i", "create", "nodes").stdout
    assert k("auth", "can-i", "patch", "gpuleases.walras.dev", "--subresource=status").stdout.startswith("no")
    rules = ok(k("auth", "can-i", "--list"))
    assert "pods" in rules and "gpuleases.walras.dev" in rules
    assert ok(k("auth", "can-i", "*", "*", cluster="fleet", token="operator")) == "yes\n"


def test_a_wrong_token_is_told_so(apiserver: Server) -> None:
    assert "Unauthorized" in refused(apiserver.kubectl("get", "pods", token="nobody"))


@pytest.mark.parametrize("cluster", ["two", "fleet", "*", "no-such-agent"])
def test_kubectl_with_an_agents_token_gets_nowhere_else(apiserver: Server, cluster: str) -> None:
    for arguments in (
        ("get", "pods"),
        ("get", "secrets", "-A"),
        ("api-resources",),
        ("get", "--raw", f"/clusters/{cluster}/walras/v1/cost"),
        ("delete", "ns", "default"),
    ):
        assert "orbidden" in refused(apiserver.kubectl(*arguments, cluster=cluster))
    refused(apiserver.kubectl("create", "-f", "-", cluster=cluster, stdin=named(CONFIG_MAP, "intruder")))


def test_the_operator_reads_all_clusters_at_once_and_writes_to_none_of_them_that_way(
    apiserver: Server,
) -> None:
    for cluster in ("one", "two"):
        ok(
            apiserver.kubectl(
                "create", "-f", "-", cluster=cluster, token=cluster, stdin=named(CONFIG_MAP, "each")
            )
        )
    found = loaded(apiserver.kubectl("get", "cm", "-A", "-o", "json", cluster="*", token="operator"))
    clusters = {
        item["metadata"]["annotations"]["walras.dev/cluster"]
        for item in found["items"]
        if item["metadata"]["name"] == "each"
    }
    assert clusters == {"one", "two"}
    refused(apiserver.kubectl("delete", "cm", "each", cluster="*", token="operator"))
    refused(
        apiserver.kubectl("create", "-f", "-", cluster="*", token="operator", stdin=named(CONFIG_MAP, "all"))
    )


# Faults


def test_faults_are_told_in_kubernetes_own_words(apiserver: Server) -> None:
    k = apiserver.kubectl
    bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{image: x}]}\n"
    assert "spec.containers[0].name: Required value" in refused(k("create", "-f", "-", stdin=bad))
    unknown = named(DEPLOYMENT, "typo").replace("replicas: 2", "replcas: 2")
    assert 'unknown field "spec.replcas"' in refused(k("create", "-f", "-", stdin=unknown))
    warned = k("create", "--validate=warn", "-f", "-", stdin=unknown)
    assert 'Warning: unknown field "spec.replcas"' in warned.stderr and ok(warned)
    ok(k("delete", "deploy", "typo"))
    assert 'namespaces "nowhere" not found' in refused(k("create", "cm", "x", "-n", "nowhere"))
    assert "Invalid value" in refused(k("create", "cm", "Upper_Case"))
