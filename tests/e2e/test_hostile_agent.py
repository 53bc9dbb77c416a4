"""An agent that attacks the others, the market and the machine: it gets nothing, and nobody notices."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.live import Live, eventually, phase, pod, processes, serving

pytestmark = pytest.mark.e2e

WALRAS = "apis/walras.dev/v1alpha1"
PODS = "api/v1/namespaces/default/pods"
BIDS = f"{WALRAS}/namespaces/default/bids"
LEASES = f"{WALRAS}/namespaces/default/gpuleases"
CONFIGS = "api/v1/namespaces/default/configmaps"
MERGE = {"content-type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("hostile")) as live:
        # Displacement need not wait for the usual five seconds.
        live.kubectl(live.operator, "patch", "pool", "default", "--type", "merge", "-p",
                     '{"spec": {"minimumQuantum": "0s"}}')  # fmt: skip
        yield live


@pytest.fixture(scope="module")
def one(server: Live) -> Path:
    """The attacker."""
    return server.agent("one", "--balance", "50")


@pytest.fixture(scope="module")
def two(server: Live) -> Path:
    """The neighbour."""
    return server.agent("two", "--balance", "50")


@pytest.fixture(scope="module")
def http(server: Live, one: Path) -> Iterator[httpx.Client]:
    """The attacker's requests to its own cluster."""
    with server.client(one) as client:
        client.base_url = client.base_url.join("/clusters/one/")
        yield client


def status_of(server: Live, config: Path, kind: str, name: str) -> dict[str, Any]:
    return dict(server.get(config, kind, name).get("status") or {})


def only_base_is_left(server: Live, config: Path) -> None:
    eventually(
        lambda: [node["metadata"]["name"] for node in server.get(config, "nodes")["items"]] == ["base"],
        "the lease's node to go",
    )


def balanced(server: Live) -> bool:
    return bool(json.loads(server.walras("ledger", "-o", "json"))["balanced"])


# Other clusters


READS = (
    "", "api", "apis", "api/v1", "openapi/v3", "walras/v1/prices", "walras/v1/ledger", "walras/v1/cost",
    "api/v1/secrets", "api/v1/namespaces", "api/v1/nodes", f"{CONFIGS}/kube-root-ca.crt", f"{BIDS}", LEASES,
    f"{CONFIGS}?watch=true", "api/v1/pods?watch=true&resourceVersion=0", f"{PODS}/x/log?follow=true",
    f"{PODS}/x/proxy/", f"{WALRAS}/agents", f"{WALRAS}/pools/default",
)  # fmt: skip
WRITES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("POST", CONFIGS, {}), ("PUT", f"{CONFIGS}/kube-root-ca.crt", {}), ("DELETE", CONFIGS, {}),
    ("DELETE", f"{CONFIGS}/kube-root-ca.crt", {}), ("DELETE", "api/v1/namespaces/default", {}),
    ("PATCH", f"{CONFIGS}/kube-root-ca.crt", {"content-type": "application/json-patch+json"}),
    ("PATCH", f"{CONFIGS}/kube-root-ca.crt", MERGE),
    ("PATCH", f"{CONFIGS}/kube-root-ca.crt", {"content-type": "application/strategic-merge-patch+json"}),
    ("PATCH", f"{CONFIGS}/x?fieldManager=m&force=true", {"content-type": "application/apply-patch+yaml"}),
    ("POST", PODS, {}), ("POST", f"{PODS}/x/binding", {}), ("POST", f"{PODS}/x/eviction", {}),
    ("PATCH", f"{PODS}/x/status", MERGE), ("POST", BIDS, {}), ("PATCH", f"{BIDS}/x/status", MERGE),
    ("PATCH", f"{LEASES}/x", MERGE), ("POST", "api/v1/nodes", {}), ("POST", f"{WALRAS}/agents", {}),
    ("PATCH", f"{WALRAS}/agents/one", MERGE), ("PATCH", f"{WALRAS}/pools/default", MERGE),
    ("POST", "apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {}),
)  # fmt: skip


@pytest.mark.parametrize("cluster", ["two", "fleet", "*", "nobody"])
def test_a_token_opens_its_own_cluster_and_no_other_by_any_verb(
    server: Live, one: Path, two: Path, cluster: str
) -> None:
    with server.client(one) as thief:
        for path in READS:
            answer = thief.get(f"/clusters/{cluster}/{path}")
            assert answer.status_code in (403, 404), (path, answer.text)
        for method, path, headers in WRITES:
            answer = thief.request(
                method, f"/clusters/{cluster}/{path}", headers=headers, content=b'{"metadata":{"name":"x"}}'
            )
            assert answer.status_code in (403, 404), (method, path, answer.text)


@pytest.mark.parametrize(
    "place", ["%74wo", "one/../two", "one%2f..%2ftwo", "..%2ftwo", "one/%2e%2e/two", "two%00", "TWO", "//two"]
)
def test_no_spelling_of_a_path_leads_elsewhere(server: Live, one: Path, two: Path, place: str) -> None:
    with server.client(one) as thief:
        request = thief.build_request("GET", "/")
        request.url = request.url.copy_with(raw_path=f"/clusters/{place}/api/v1/secrets".encode())
        answer = thief.send(request)
    assert answer.status_code in (400, 403, 404), answer.text


def test_without_a_good_token_there_is_nothing(server: Live, one: Path) -> None:
    with server.client(one) as client:
        for token in ("x", "operator", client.headers["authorization"].split()[1][:-1]):
            answer = client.get("/clusters/one/api/v1/pods", headers={"authorization": f"Bearer {token}"})
            assert answer.status_code in (401, 403)


def test_an_owner_in_another_cluster_is_no_owner(server: Live, http: httpx.Client, two: Path) -> None:
    server.kubectl(two, "create", "configmap", "theirs", "--from-literal=a=b")
    uid = server.get(two, "configmap", "theirs")["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": uid}
    owned = {"metadata": {"name": "mine", "ownerReferences": [{**reference, "blockOwnerDeletion": True}]}}
    assert http.post(CONFIGS, json=owned).status_code == 201
    # In this cluster there is no such owner, so what it owned is collected, and nothing elsewhere is.
    eventually(lambda: http.get(f"{CONFIGS}/mine").status_code == 404, "the orphan to be collected")
    assert server.get(two, "configmap", "theirs")["metadata"]["uid"] == uid
    assert "deletionTimestamp" not in server.get(two, "configmap", "theirs")["metadata"]


# The market


def leased(server: Live, config: Path, name: str, script: str, milli: int, price: str = "1.00") -> Any:
    """A pod under a lease of its own; the lease."""
    made = pod(name, script, milli=milli, price=price, job_class="latency")
    made["spec"]["terminationGracePeriodSeconds"] = 1
    server.apply(config, made)
    eventually(lambda: phase(server, config, name) == "Running", f"{name} to run")
    leases = server.get(config, "gpuleases")["items"]
    return next(
        each for each in leases if each["spec"]["bid"] == name and each["status"]["phase"] == "Active"
    )


def test_nothing_that_the_market_writes_can_be_forged(server: Live, one: Path, http: httpx.Client) -> None:
    lease = leased(server, one, "forger", "sleep 600", 300)
    node, name = lease["status"]["node"], lease["metadata"]["name"]
    more = {"capacity": {"walras.dev/milligpu": "9000"}, "allocatable": {"walras.dev/milligpu": "9000"}}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "forger", "uid": "u"}
    device = '[{"device": "local/gpu-0", "milliGPU": 1000, "memoryMiB": 1, "index": 0}]'
    forged: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", f"api/v1/nodes/{node}/status", {"status": more}),
        ("PATCH", "api/v1/nodes/base/status", {"status": more}),
        ("PATCH", f"api/v1/nodes/{node}", {"metadata": {"annotations": {"walras.dev/devices": device}}}),
        ("PATCH", "api/v1/nodes/base", {"metadata": {"annotations": {"walras.dev/devices": device}}}),
        ("PATCH", "api/v1/nodes/base", {"metadata": {"labels": {"walras.dev/lease": "x"}}}),
        ("PATCH", f"api/v1/nodes/{node}", {"metadata": {"finalizers": ["example.com/keep"]}}),
        ("PATCH", f"api/v1/nodes/{node}", {"metadata": {"ownerReferences": [owner]}}),
        ("DELETE", f"api/v1/nodes/{node}", {}),
        ("DELETE", "api/v1/nodes", {}),
        ("POST", "api/v1/nodes", {"metadata": {"name": "lease-mine"}}),
        ("PATCH", f"{LEASES}/{name}", {"spec": {"price": "0.00"}}),
        ("PATCH", f"{LEASES}/{name}", {"spec": {"end": "2100-01-01T00:00:00Z"}}),
        ("PATCH", f"{LEASES}/{name}", {"metadata": {"finalizers": ["example.com/keep"]}}),
        ("PATCH", f"{LEASES}/{name}/status", {"status": {"phase": "Active", "charged": "0"}}),
        ("DELETE", f"{LEASES}/{name}", {}),
        ("DELETE", LEASES, {}),
        ("POST", LEASES, {"metadata": {"name": "mine"}, "spec": lease["spec"]}),
        ("PATCH", f"{BIDS}/forger/status", {"status": {"phase": "Pending"}}),
    ]
    for method, path, body in forged:
        headers = MERGE if method == "PATCH" else {}
        answer = http.request(method, path, json=body, headers=headers)
        assert answer.status_code == 403, (method, path, answer.text)
    after = server.get(one, "gpulease", name)
    assert (after["spec"], after["metadata"].get("finalizers")) == (lease["spec"], None)
    # What is the agent's to say is taken.
    assert (
        http.patch(f"{LEASES}/{name}", json={"spec": {"resalePrice": "5"}}, headers=MERGE).status_code == 200
    )
    assert http.patch(
        f"api/v1/nodes/{node}", json={"spec": {"unschedulable": True}}, headers=MERGE
    ).is_success
    server.kubectl(one, "delete", "pod", "forger")
    only_base_is_left(server, one)


def rejected(server: Live, config: Path, name: str) -> bool:
    return phase(server, config, name) == "Failed"


def test_a_pod_that_is_bound_by_hand_gets_no_more_than_its_node_has(
    server: Live, one: Path, http: httpx.Client
) -> None:
    lease = leased(server, one, "holder", "sleep 600", 300)
    node = lease["status"]["node"]
    for name, wanted, milli in (
        ("named", node, 200),
        ("on-base", "base", 100),
        ("elsewhere", "lease-zzz", 100),
    ):
        made = pod(name, "sleep 600", milli=milli)
        made["spec"]["nodeName"] = wanted
        assert http.post(PODS, json=made).status_code == 201
    made = pod("bound", "sleep 600", milli=200)
    made["spec"]["schedulerName"] = "mine"
    assert http.post(PODS, json=made).status_code == 201
    binding = {"metadata": {"name": "bound"}, "target": {"kind": "Node", "name": node}}
    assert http.post(f"{PODS}/bound/binding", json=binding).status_code == 201
    for name in ("named", "on-base", "bound"):
        eventually(partial(rejected, server, one, name), f"{name} to be rejected")
        assert status_of(server, one, "pod", name)["reason"] == "OutOfwalras.dev/milligpu"
    eventually(lambda: http.get(f"{PODS}/elsewhere").status_code == 404, "a pod of no node to be collected")
    server.kubectl(one, "delete", "pods", "--all", "--grace-period=1")
    only_base_is_left(server, one)


def test_a_pod_that_says_it_has_ended_has_ended(server: Live, one: Path, http: httpx.Client) -> None:
    script = "trap '' TERM; while :; do sleep 1; done; : mark-liar"
    lease = leased(server, one, "liar", script, 300)
    assert processes("mark-liar")
    done = {"status": {"phase": "Succeeded", "containerStatuses": []}}
    assert http.patch(f"{PODS}/liar/status", json=done, headers=MERGE).status_code == 200
    eventually(
        lambda: status_of(server, one, "gpulease", lease["metadata"]["name"])["phase"] == "Ended", "the lease"
    )
    assert not processes("mark-liar")
    only_base_is_left(server, one)
    server.kubectl(one, "delete", "pod", "liar")


def test_finalizers_keep_objects_but_neither_processes_nor_capacity_nor_money(
    server: Live, one: Path, two: Path, http: httpx.Client
) -> None:
    script = "trap '' TERM; while :; do sleep 1; done; : mark-keeper"
    leased(server, one, "keeper", script, 1000, "0.30")
    keep = {"metadata": {"finalizers": ["example.com/keep"]}}
    assert http.patch(f"{PODS}/keeper", json=keep, headers=MERGE).status_code == 200
    assert http.patch(f"{BIDS}/keeper", json=keep, headers=MERGE).status_code == 200
    # A bid that is worth more takes the device, whatever keeps the objects of the one before.
    leased(server, two, "winner", "sleep 600", 1000, "5.00")
    assert not processes("mark-keeper")
    only_base_is_left(server, one)
    assert status_of(server, one, "pod", "keeper")["phase"] == "Failed"
    ledger = json.loads(server.walras("ledger", "-o", "json"))
    assert ledger["balanced"] is True
    held = {account["id"]: account["held"] for account in ledger["accounts"]}
    assert held["agent:one"] == "0.00"
    free: dict[str, Any] = {"metadata": {"finalizers": []}}
    http.patch(f"{PODS}/keeper", json=free, headers=MERGE)
    http.patch(f"{BIDS}/keeper", json=free, headers=MERGE)
    server.kubectl(two, "delete", "pod", "winner", "--grace-period=1")
    eventually(lambda: http.get(f"{PODS}/keeper").status_code == 404, "the pod to go")


def test_labels_and_priority_classes_that_nobody_could_mean_win_nothing(
    server: Live, one: Path, http: httpx.Client
) -> None:
    terms = {"class": "vip", "max-price": "-7", "restart-cost": "-9", "term": "x", "deadline": "z"}
    annotations = {f"walras.dev/{key}": value for key, value in terms.items()}
    evil = {"metadata": {"name": "evil", "annotations": annotations}, "value": 5}
    assert http.post("apis/scheduling.k8s.io/v1/priorityclasses", json=evil).status_code == 201
    labelled, classy = pod("labelled", "true", milli=10), pod("classy", "true", milli=10)
    labelled["metadata"]["labels"] = {"walras.dev/class": "vip"}
    classy["metadata"]["annotations"] = {}
    classy["spec"]["priorityClassName"] = "evil"
    for made in (labelled, classy):
        assert http.post(PODS, json=made).status_code == 201

    def told() -> bool:
        events = server.get(one, "events")["items"]
        invalid = {each["involvedObject"]["name"] for each in events if each["reason"] == "InvalidRequest"}
        return {"labelled", "classy"} <= invalid

    eventually(told, "both to be told")
    assert server.get(one, "bids")["items"] == []
    server.kubectl(one, "delete", "pods", "--all")


# What one agent may take of the server


def test_a_flood_of_bids_leaves_room_for_others(
    server: Live, one: Path, two: Path, http: httpx.Client
) -> None:
    packages = [{"maxPrice": f"{price}.00", "milliGPU": 950} for price in range(1, 9)]

    def flood(number: int) -> int:
        spec = {"class": "latency" if number % 2 else "batch", "packages": packages}
        bid = {
            "apiVersion": "walras.dev/v1alpha1",
            "kind": "Bid",
            "metadata": {"name": f"flood-{number}"},
            "spec": spec,
        }
        return http.post(BIDS, json=bid).status_code

    with ThreadPoolExecutor(8) as pool:
        codes = set(pool.map(flood, range(600)))
    assert codes == {201}
    calm = leased(server, two, "calm", "sleep 600", 50, "1.00")
    assert calm["status"]["phase"] == "Active"

    def queued() -> bool:
        found = http.get(BIDS).json()["items"]
        return any(each.get("status", {}).get("explanation", {}).get("reason") == "Queued" for each in found)

    eventually(queued, "bids beyond the agent's turn to be told")
    assert balanced(server)
    server.kubectl(two, "delete", "pod", "calm", "--grace-period=1")
    assert http.delete(BIDS).status_code == 200
    only_base_is_left(server, one)


def test_an_agent_has_as_many_objects_as_it_was_given(server: Live, two: Path) -> None:
    agent = {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "small"},
        "spec": {"budget": {"income": "1/h"}, "controlPlane": {"quota": {"objects": 40}}},
    }
    server.apply(server.operator, agent)
    eventually(lambda: status_of(server, server.operator, "agent", "small").get("endpoint"), "the agent")
    with server.client(server.operator) as client:
        path = f"/clusters/small/{CONFIGS}"
        codes = [client.post(path, json={"metadata": {"name": f"c{n}"}}).status_code for n in range(50)]
        assert 201 in codes and codes[-1] == 403
        assert "exceeded quota" in client.post(path, json={"metadata": {"name": "more"}}).json()["message"]
        assert client.delete(f"{path}/c0").status_code == 200
        assert client.post(path, json={"metadata": {"name": "more"}}).status_code == 201
    server.kubectl(two, "create", "configmap", "unbothered")


def test_a_hundred_watches_are_served_beside_others(server: Live, one: Path, two: Path) -> None:
    opened, closing = threading.Semaphore(0), threading.Event()

    def watch(_: int) -> bool:
        with (
            server.client(one) as client,
            client.stream("GET", f"/clusters/one/{CONFIGS}?watch=true&timeoutSeconds=30") as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            opened.release()
            closing.wait(30)
            return answer.status_code == 200

    with ThreadPoolExecutor(100) as pool:
        watches = [pool.submit(watch, number) for number in range(100)]
        for _ in watches:
            assert opened.acquire(timeout=30)
        server.kubectl(two, "create", "configmap", "served")
        assert server.get(two, "configmap", "served")
        closing.set()
        assert all(each.result() for each in watches)


def test_rules_and_selectors_that_would_take_the_servers_memory_are_not_run(
    server: Live, http: httpx.Client
) -> None:
    bomb = "self.text.replace('', self.text).replace('', self.text).replace('', self.text).size() > 0"
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": bomb}],
    }
    names = {"plural": "bombs", "singular": "bomb", "kind": "Bomb", "listKind": "BombList"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    definitions = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    told = http.post(definitions, json={"metadata": {"name": "bombs.example.com"}, "spec": spec})
    assert told.status_code == 422 and "estimated rule cost exceeds budget" in told.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (CONFIGS, {"metadata": {"name": "big", "annotations": {"a": "x" * 300_000}}}, 422),
        (CONFIGS, {"metadata": {"name": "big"}, "data": {"a": "x" * 1_100_000}}, 422),
        (CONFIGS, {"metadata": {"name": "big"}, "data": {"a": "x" * 4_000_000}}, 413),
        (CONFIGS, {"metadata": {"name": "../../two"}}, 422),
        (CONFIGS, {"metadata": {"name": "a/b"}}, 422),
        (CONFIGS, {"metadata": {"name": "naïve"}}, 422),
        (CONFIGS, {"metadata": {"name": "a\u0000b"}}, 422),
        (CONFIGS, {"metadata": {"name": "x" * 300}}, 422),
        (CONFIGS, {"metadata": {"name": "x"}, "data": {"../../etc/passwd": "x"}}, 422),
        ("api/v1/namespaces", {"metadata": {"name": ".."}}, 422),
        (f"{CONFIGS}/..%2f..%2fx", None, 400),
        (f"{CONFIGS}/%00", None, 400),
        ("api/v1/namespaces/..%2Ftwo/pods", None, 400),
        ("api/v1/namespaces/default/persistentvolumeclaims", {"metadata": {"name": ".."}}, 422),
    ],
)  # fmt: skip
def test_sizes_and_names_that_no_object_may_have_are_refused(
    http: httpx.Client, path: str, body: Any, code: int
) -> None:
    answer = http.get(path) if body is None else http.post(path, json=body)
    assert answer.status_code == code, answer.text[:300]
    assert answer.json()["kind"] == "Status"


# The machine


def test_volumes_of_the_host_are_not_to_be_had(server: Live, one: Path) -> None:
    def wants(name: str, volume: dict[str, Any], **mount: Any) -> dict[str, Any]:
        made = pod(name, "cat /v/* /v")
        made["spec"]["volumes"] = [{"name": "v", **volume}]
        made["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v", **mount}]
        return made

    server.apply(
        one, wants("host", {"hostPath": {"path": "/"}}), wants("nfs", {"nfs": {"server": "x", "path": "/"}})
    )

    def told() -> bool:
        events = server.get(one, "events")["items"]
        said = {
            each["involvedObject"]["name"]: each["message"]
            for each in events
            if each["reason"] == "FailedMount"
        }
        return "of type hostPath" in said.get("host", "") and "of type nfs" in said.get("nfs", "")

    eventually(told, "both to be told")
    assert server.get(one, "pod", "host")["status"]["phase"] == "Pending"
    escape = wants("escape", {"emptyDir": {}}, subPath="../../../..")
    said = server.kubectl(one, "apply", "-f", "-", stdin=json.dumps(escape), check=False)
    assert "must not contain '..'" in said
    server.kubectl(one, "delete", "pod", "host", "nfs", "--grace-period=0", "--force")


PROBE = """
try() { cat "$1" >/dev/null 2>&1 && echo "READ $1"; }
for name in walras.db operator.kubeconfig tls/ca.key; do
  for root in "" /oldroot /proc/1/root /proc/@PID@/root; do try $root@DATA@/$name; done
done
for path in /proc/@PID@/environ /proc/@PID@/mem /etc/shadow /root/.ssh/id_rsa; do try $path; done
kill -0 @PID@ 2>/dev/null && echo "SEES the server"
for socket in $(awk '{print $8}' /proc/net/unix | grep /); do echo "SOCKET $socket"; done
python3 -c 'import socket; socket.create_connection(("127.0.0.1", @PORT@), 2)' 2>/dev/null && echo REACHED
grep -q '^CapEff:.*[1-9a-f]' /proc/self/status && echo "HAS capabilities"
touch /usr/x 2>/dev/null && echo "WROTE /usr"
echo probed as $(id -u)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="what root's runtime promises")
def test_a_pod_sees_nothing_of_the_server_the_host_or_its_neighbours(server: Live, one: Path) -> None:
    assert server.process is not None
    script = PROBE.replace("@DATA@", str(server.data)).replace("@PID@", str(server.process.pid))
    made = pod("probe", script.replace("@PORT@", server.ready["url"].rpartition(":")[2]))
    made["spec"]["containers"][0] |= {
        "securityContext": {"privileged": True, "runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}},
        "env": [{"name": "LD_PRELOAD", "value": "/no/such/library.so"}],
    }
    server.apply(one, made)
    eventually(lambda: phase(server, one, "probe") in ("Succeeded", "Failed"), "the probe to end")
    lines = [
        line
        for line in server.kubectl(one, "logs", "probe").splitlines()
        if "/no/such/library.so" not in line
    ]
    assert len(lines) == 1 and lines[0].startswith("probed as ")
    assert int(lines[0].split()[-1]) > 65_534
    said = server.kubectl(one, "describe", "pod", "probe")
    assert "runs without privileged, added capabilities" in said
    server.kubectl(one, "delete", "pod", "probe")


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "hostIPC"])
def test_a_pod_that_wants_a_namespace_of_the_host_does_not_begin(server: Live, one: Path, field: str) -> None:
    made = pod("wants", "echo begun")
    made["spec"][field] = True
    server.apply(one, made)
    why = f"{field} not given: agents share the machine"
    eventually(lambda: why in server.kubectl(one, "describe", "pod", "wants"), "the kubelet to say why")
    assert phase(server, one, "wants") == "Pending"
    server.kubectl(one, "delete", "pod", "wants")


@pytest.mark.skipif(os.geteuid() != 0, reason="what root's runtime promises")
def test_the_sandboxs_maker_makes_nothing_outside_of_it(server: Live, one: Path, tmp_path: Path) -> None:
    """bubblewrap makes directories and mount points as root before it shuts the door."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "links"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    volume = [{"name": "v", "persistentVolumeClaim": {"claimName": "links"}}]

    def with_volume(name: str, script: str, path: str) -> dict[str, Any]:
        made = pod(name, script)
        made["spec"]["volumes"] = volume
        made["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": path}]
        return made

    target = tmp_path / "made"
    links = " ".join(f"ln -s /oldroot{target}-{name} /d/{name};" for name in ("env", "walras", "a"))
    server.apply(one, claim, with_volume("prepare", links, "/d"))
    eventually(lambda: phase(server, one, "prepare") == "Succeeded", "the links to be made")
    tries = [
        with_volume("over-run", "true", "/run"),
        with_volume("over-own", "true", "/run/walras"),
        with_volume("linked", "true", "/d"),
    ]
    tries[2]["spec"]["containers"][0]["workingDir"] = "/d/a/deeper"
    for number, place in enumerate(
        (f"/../oldroot{target}", f"/x/../../oldroot{target}", f"//..//oldroot{target}")
    ):
        away = pod(f"away-{number}", "true")
        away["spec"]["containers"][0]["workingDir"] = place
        tries.append(away)
    server.apply(one, *tries)
    for made in tries:
        name = made["metadata"]["name"]

        def over(name: str = name) -> bool:
            status = status_of(server, one, "pod", name)
            waiting = status.get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {})
            return status.get("phase") in ("Succeeded", "Failed") or "Error" in waiting.get("reason", "")

        eventually(over, f"{name} to end")
    assert list(tmp_path.iterdir()) == []
    server.kubectl(one, "delete", "pods", "--all", "--grace-period=0", "--force")
