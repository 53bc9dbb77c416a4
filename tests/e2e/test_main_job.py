"""The main job, end to end: `walras up`, agents, kubectl, pods that win and lose shares and do real work."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.live import Live, eventually, phase, pod, pod_spec

pytestmark = pytest.mark.e2e


def test_a_pod_without_a_gpu_runs_on_the_base_node_at_once(live: Live) -> None:
    acme = live.agent("acme")
    live.apply(acme, pod("hello", "echo hello from $HOSTNAME; exit 3"))
    eventually(lambda: phase(live, acme, "hello") == "Failed", "the pod to end")
    found = live.get(acme, "pod", "hello")
    assert found["spec"]["nodeName"] == "base"
    assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert live.kubectl(acme, "logs", "hello").strip() == "hello from hello"


def test_a_pod_that_asks_for_a_share_wins_it_runs_and_is_billed_for_what_it_used(live: Live) -> None:
    acme = live.agent("acme")
    live.apply(acme, pod("infer", "echo $WALRAS_MILLIGPU; sleep 2", milli=250, job_class="latency"))
    eventually(lambda: phase(live, acme, "infer") == "Running", "the pod to run")
    (lease,) = live.get(acme, "gpuleases")["items"]
    assert lease["spec"]["devices"][0]["enforcement"] == "emulated"
    node = live.get(acme, "node", lease["status"]["node"])
    assert node["status"]["allocatable"]["walras.dev/milligpu"] == "250"
    assert live.get(acme, "pod", "infer")["spec"]["nodeName"] == node["metadata"]["name"]
    eventually(lambda: phase(live, acme, "infer") == "Succeeded", "the pod to end")
    assert live.kubectl(acme, "logs", "infer").strip() == "250"
    eventually(lambda: not lease_nodes(live, acme), "the node to go with the lease")
    cost = json.loads(live.walras("cost", "--by", "pod", "-o", "json"))
    assert [row["pod"] for row in cost["rows"]] == ["infer"]
    assert cost["rows"][0]["gpuSeconds"] >= 0.5
    assert cost["balanced"] is True
    ledger = json.loads(live.walras("ledger", "-o", "json"))
    assert ledger["balanced"] is True


def lease_nodes(live: Live, kubeconfig: Path) -> list[str]:
    names = [node["metadata"]["name"] for node in live.get(kubeconfig, "nodes")["items"]]
    return [name for name in names if name.startswith("lease-")]


TRAIN = """
step=$(cat /data/step 2>/dev/null || echo 0)
echo "resuming from step $step"
trap 'echo $step > /data/step; echo "checkpoint at step $step"; exit 0' TERM
while [ $step -lt 100000 ]; do step=$((step + 1)); echo $step > /data/progress; sleep 0.05; done
"""


def training_job() -> list[dict[str, Any]]:
    spec = pod_spec(TRAIN, 1000)
    spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "checkpoints"}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "checkpoints"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train"},
        "spec": {
            "backoffLimit": 0,
            "template": {"metadata": {"annotations": {"walras.dev/max-price": "0.50"}}, "spec": spec},
        },
    }
    return [claim, job]


def logs_of_job(live: Live, kubeconfig: Path) -> str:
    return live.kubectl(kubeconfig, "logs", "-l", "batch.kubernetes.io/job-name=train", check=False)


def test_training_gives_way_to_inference_and_comes_back_from_its_checkpoint(live: Live) -> None:
    trainer, searcher = live.agent("trainer"), live.agent("searcher")
    live.apply(trainer, *training_job())

    def running() -> list[dict[str, Any]]:
        pods = live.get(trainer, "pods")["items"]
        return [each for each in pods if each["status"].get("phase") == "Running"]

    first = eventually(running, "training to run")[0]["metadata"]["name"]
    time.sleep(6)  # the minimum quantum, in which nobody is displaced
    live.apply(searcher, pod("query", "sleep 3", milli=1000, price="5.00", job_class="latency"))
    eventually(lambda: phase(live, searcher, "query") in ("Running", "Succeeded"), "inference to run")
    assert first not in [each["metadata"]["name"] for each in running()]
    eventually(lambda: phase(live, searcher, "query") == "Succeeded", "inference to end")
    again = eventually(running, "training to come back")[0]["metadata"]["name"]
    assert again != first
    log = eventually(lambda: logs_of_job(live, trainer), "its log")
    resumed = int(log.split("resuming from step ")[1].split()[0])
    assert resumed > 0, log
    job = live.get(trainer, "job", "train")
    assert job["status"].get("failed", 0) == 0
    events = live.get(trainer, "events")["items"]
    assert "Displaced" in {event["reason"] for event in events}
    assert json.loads(live.walras("ledger", "-o", "json"))["balanced"] is True


def test_a_killed_server_loses_no_write_no_credit_and_no_lease(live: Live) -> None:
    acme = live.agent("acme", "--balance", "50")
    server = pod("long", "echo started; sleep 600", milli=500, job_class="latency")
    server["spec"]["restartPolicy"] = "Always"
    live.apply(acme, server)
    eventually(lambda: phase(live, acme, "long") == "Running", "the pod to run")
    eventually(lambda: live.get(acme, "gpuleases")["items"][0]["status"]["meteredSeconds"] >= 1, "a reading")
    before = live.get(acme, "gpuleases")["items"][0]
    url = live.ready["url"]
    assert live.stop(signal.SIGKILL) == -signal.SIGKILL
    live.start("--listen", url.removeprefix("https://"))
    after = live.get(acme, "gpuleases")["items"][0]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["phase"] == "Active"
    assert after["status"]["meteredSeconds"] >= before["status"]["meteredSeconds"]
    assert json.loads(live.walras("ledger", "-o", "json"))["balanced"] is True

    def restarted() -> bool:
        status = live.get(acme, "pod", "long")["status"]
        return bool(status["phase"] == "Running" and status["containerStatuses"][0]["restartCount"] == 1)

    eventually(restarted, "the pod to run again on its lease")


def test_a_refused_bid_is_explained_and_the_winning_price_wins(live: Live) -> None:
    first, second = live.agent("first"), live.agent("second")
    live.apply(first, pod("holds", "sleep 600", milli=1000, price="2.00", job_class="latency"))
    eventually(lambda: phase(live, first, "holds") == "Running", "the first pod to run")
    live.apply(second, pod("wants", "sleep 600", milli=1000, price="0.20", job_class="latency"))
    explained = eventually(
        lambda: bid_of(live, second, "wants").get("status", {}).get("explanation"), "the explanation"
    )
    assert explained["constraint"]
    assert explained["clearingPrice"]
    said = live.walras("explain", "bid/wants", "--agent", "second")
    assert explained["reason"] in said or explained["message"] in said


def bid_of(live: Live, kubeconfig: Path, name: str) -> dict[str, Any]:
    bids = live.get(kubeconfig, "bids")["items"]
    return next((bid for bid in bids if bid["metadata"]["name"] == name), {})


def test_one_agents_token_opens_nothing_of_anothers(live: Live) -> None:
    one, two = live.agent("one"), live.agent("two")
    config = yaml.safe_load(one.read_text())
    config["clusters"][0]["cluster"]["server"] = yaml.safe_load(two.read_text())["clusters"][0]["cluster"][
        "server"
    ]
    thief = live.data.parent / "thief.kubeconfig"
    thief.write_text(yaml.safe_dump(config))
    for words in (
        ("get", "pods"),
        ("get", "secrets", "-A"),
        ("get", "bids"),
        ("create", "configmap", "x"),
        ("delete", "configmap", "kube-root-ca.crt"),
    ):
        assert "forbidden" in live.kubectl(thief, *words, check=False).lower(), words


def test_ctrl_c_drains_and_exits_with_zero(live: Live) -> None:
    acme = live.agent("acme")
    live.apply(acme, pod("long", "trap 'exit 0' TERM; sleep 600 & wait", milli=500, job_class="latency"))
    eventually(lambda: phase(live, acme, "long") == "Running", "the pod to run")
    assert live.stop(signal.SIGINT) == 0


def test_a_second_server_on_the_same_data_or_port_is_refused(live: Live) -> None:
    said = live.walras("up", "--data", str(live.data), "--listen", "127.0.0.1:0", check=False)
    assert "Traceback" not in said
    assert str(live.process.pid if live.process else "") in said
    other = live.data.parent / "other"
    address = live.ready["url"].removeprefix("https://")
    said = live.walras("up", "--data", str(other), "--listen", address, check=False)
    assert "in use" in said
    assert "Traceback" not in said
