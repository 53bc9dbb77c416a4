"""kubectl over workloads that run: rollouts, their history and undoing them, scaling, jobs by the clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live import Live, eventually

pytestmark = pytest.mark.e2e
Object = dict[str, Any]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    server = Live(tmp_path_factory.mktemp("workloads") / "data")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def agent(live: Live) -> Path:
    return live.agent("acme")


def workload(kind: str, name: str, **spec: Any) -> Object:
    container = {"name": "main", "image": "one", "command": ["sleep", "1000"]}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
            **spec,
        },
    }


def images(live: Live, agent: Path, name: str) -> set[str]:
    pods = live.get(agent, "pods", "-l", f"app={name}")["items"]
    return {each["spec"]["containers"][0]["image"] for each in pods}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Deployment", {"replicas": 2}),
        ("StatefulSet", {"replicas": 2, "serviceName": "s"}),
        ("DaemonSet", {}),
    ],
)
def test_a_rollout_goes_on_is_remembered_and_undone(
    live: Live, agent: Path, kind: str, spec: dict[str, Any]
) -> None:
    name = f"roll-{kind.lower()}"
    what = f"{kind.lower()}/{name}"
    live.apply(agent, workload(kind, name, **spec))
    live.kubectl(agent, "rollout", "status", what, "--timeout=60s")
    live.kubectl(agent, "set", "image", what, "main=two")
    live.kubectl(agent, "rollout", "status", what, "--timeout=60s")
    eventually(lambda: images(live, agent, name) == {"two"}, "the new image")
    history = live.kubectl(agent, "rollout", "history", what)
    assert [line.split()[0] for line in history.strip().splitlines()[2:]] == ["1", "2"]
    assert "one" in live.kubectl(agent, "rollout", "history", what, "--revision=1")
    live.kubectl(agent, "rollout", "undo", what)
    live.kubectl(agent, "rollout", "status", what, "--timeout=60s")
    eventually(lambda: images(live, agent, name) == {"one"}, "the old image")
    live.kubectl(agent, "delete", what, "--timeout=60s")
    eventually(lambda: not live.get(agent, "pods", "-l", f"app={name}")["items"], "its pods to go")


def test_a_stateful_set_is_scaled_and_keeps_its_claims(live: Live, agent: Path) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    made = workload("StatefulSet", "db", serviceName="db", replicas=1, volumeClaimTemplates=[claim])
    mount = {"name": "data", "mountPath": "/data"}
    made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [mount]
    live.apply(agent, made)
    live.kubectl(agent, "rollout", "status", "statefulset/db", "--timeout=60s")
    live.kubectl(agent, "exec", "db-0", "--", "sh", "-c", "echo kept > /data/file")
    live.kubectl(agent, "scale", "statefulset/db", "--replicas=2")
    live.kubectl(agent, "rollout", "status", "statefulset/db", "--timeout=60s")
    live.kubectl(agent, "delete", "pod", "db-0", "--timeout=60s")
    live.kubectl(agent, "rollout", "status", "statefulset/db", "--timeout=60s")
    live.kubectl(agent, "wait", "--for=condition=Ready", "pod/db-0", "--timeout=60s")
    assert live.kubectl(agent, "exec", "db-0", "--", "cat", "/data/file").strip() == "kept"


def test_a_job_is_made_from_a_cron_job_by_hand(live: Live, agent: Path) -> None:
    live.kubectl(agent, "create", "cronjob", "hello", "--image=x", "--schedule=0 0 1 1 *", "--", "true")
    live.kubectl(agent, "create", "job", "now", "--from=cronjob/hello")
    live.kubectl(agent, "wait", "--for=condition=Complete", "job/now", "--timeout=60s")
