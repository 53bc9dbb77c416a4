"""kill -9 at any moment: no acknowledged write, no credit and no lease is lost."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.live import Live, eventually, phase, pod, serving

from walras.kube.api import API
from walras.kube.store.sqlite import SqliteStore
from walras.server.system import SystemClock, SystemIds
from walras.tenants.objects import AGENTS

pytestmark = pytest.mark.e2e
CONFIG_MAPS = "/clusters/acme/api/v1/namespaces/default/configmaps"
CRASHES = 5
MAPS = 2000
"""Config maps the writer fills before it goes round: below an agent's quota, however fast the machine."""


class Writer(threading.Thread):
    """Writes config maps one after the other and remembers what was last acknowledged of each."""

    def __init__(self, client: httpx.Client) -> None:
        super().__init__(daemon=True)
        self._client = client
        self.acknowledged: dict[str, int] = {}
        self.over = threading.Event()

    def run(self) -> None:
        with self._client as http:
            for number in itertools.count():
                if self.over.is_set():
                    return
                name = f"w-{number % MAPS}"
                body = {"metadata": {"name": name}, "data": {"n": str(number)}}
                try:
                    if name in self.acknowledged:
                        answer = http.put(f"{CONFIG_MAPS}/{name}", json=body)
                    else:
                        answer = http.post(CONFIG_MAPS, json=body)
                except httpx.HTTPError:
                    time.sleep(0.02)
                    continue
                if answer.is_success:
                    self.acknowledged[name] = number


def serving_pod(name: str) -> dict[str, object]:
    limits = {"walras.dev/milligpu": "250"}
    container = {
        "name": "c",
        "image": "host",
        "command": ["/bin/sleep", "600"],
        "resources": {"limits": limits},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {"walras.dev/class": "latency"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def test_killed_again_and_again_while_it_writes_and_leases(live: Live) -> None:
    acme = live.agent("acme", "--balance", "50")
    url = live.ready["url"].removeprefix("https://")
    chance = random.Random(20)
    writer = Writer(live.client(acme))
    writer.start()
    leases: set[str] = set()
    for crash in range(CRASHES):
        with live.client(acme) as http:
            answer = http.post(
                "/clusters/acme/api/v1/namespaces/default/pods", json=serving_pod(f"p-{crash}")
            )
            assert answer.status_code == 201, answer.text
        time.sleep(chance.uniform(0.2, 2.0))
        live.stop(signal.SIGKILL)
        live.start("--listen", url)
        acknowledged = dict(writer.acknowledged)
        known = {
            each["metadata"]["name"]: int(each["data"].get("n", 0))
            for each in live.get(acme, "configmaps")["items"]
        }
        lost = {name: n for name, n in acknowledged.items() if known.get(name, -1) < n}
        assert not lost
        ledger = json.loads(live.walras("ledger", "-o", "json"))
        assert ledger["balanced"] is True, ledger
        verified = json.loads(live.walras("ledger", "verify", "-o", "json"))
        assert verified["fault"] is None, verified
        found = {
            each["metadata"]["uid"]
            for each in live.get(acme, "gpuleases")["items"]
            if each["status"]["phase"] in ("Active", "Reserved")
        }
        assert leases <= found
        leases = found
    writer.over.set()
    writer.join(10)
    assert writer.acknowledged

    def all_run() -> bool:
        pods = live.get(acme, "pods")["items"]
        running = [each for each in pods if each["status"].get("phase") == "Running"]
        return len(running) == min(CRASHES, 4)

    eventually(all_run, "the pods that fit to run again")
    cost = json.loads(live.walras("cost", "-o", "json"))
    assert cost["balanced"] is True


def test_killed_before_an_agent_of_the_name_of_another_was_given_a_cluster(tmp_path: Path) -> None:
    """The first is deleted by force and the second made: the server dies before it has seen either."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }

    def uses(script: str) -> dict[str, Any]:
        made = pod("uses", script)
        made["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        made["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        return made

    def ended() -> bool:
        return phase(live, own, "uses") == "Succeeded"

    with serving(tmp_path) as live:
        own = live.agent("tenant")
        live.apply(own, claim, uses("echo x > /data/secret"))
        eventually(ended, "the claim to be written to")
        live.stop(signal.SIGKILL)
        store = SqliteStore(live.data / "walras.db")
        asyncio.run(_replaced(API(store, SystemClock(), SystemIds()), "tenant"))
        store.close()
        live.start()
        secret = live.get(live.operator, "secret", "agent-tenant", "-n", "walras-system")
        own = tmp_path / "second"
        own.write_bytes(base64.b64decode(secret["data"]["kubeconfig"]))
        live.apply(own, claim, uses("ls -A /data | wc -l"))
        eventually(ended, "the claim to be looked at")
        assert live.kubectl(own, "logs", "uses").strip() == "0"


async def _replaced(api: API, name: str) -> None:
    agent = api.get("fleet", AGENTS, "", name)
    await api.edit("fleet", AGENTS, "", name, lambda it: it["metadata"].pop("finalizers"))
    await api.delete("fleet", AGENTS, "", name)
    await api.create("fleet", AGENTS, {"metadata": {"name": name}, "spec": agent["spec"]})
