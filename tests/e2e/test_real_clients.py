"""Programs of others that use the API as they use that of Kubernetes: operators, helm, schedulers ..."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import reference
from support.live import Live

pytestmark = pytest.mark.e2e
DEADLINE_S = 60.0


def needs(*names: str) -> pytest.MarkDecorator:
    why = reference.missing(*names)
    return pytest.mark.skipif(bool(why), reason=why or "there")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    server = Live(tmp_path_factory.mktemp("clients") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def agent(live: Live) -> Path:
    return live.agent("acme")


def until(true: Callable[[], Any], what: str) -> Any:
    """What `true` returns as soon as that is something."""
    end = time.monotonic() + DEADLINE_S
    while not (found := true()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return found


def config_map(name: str, label: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"v": label}}}


@needs("informer")
def test_an_informer_sees_what_is_what_comes_what_changes_and_what_goes(
    live: Live, agent: Path, tmp_path: Path
) -> None:
    live.apply(agent, config_map("before", "1"))
    said = tmp_path / "said"
    with said.open("w") as out:
        informer = subprocess.Popen([reference.folder() / "informer", agent, "default"], stdout=out)
    try:
        until(lambda: "synced" in said.read_text(), "the informer did not list")
        live.apply(agent, config_map("new", "1"))
        until(lambda: "added configmap new 1" in said.read_text(), "it was not told of what is new")
        live.apply(agent, config_map("new", "2"))
        until(lambda: "updated configmap new 2" in said.read_text(), "it was not told of the change")
        live.kubectl(agent, "delete", "configmap", "new", "before")
        until(lambda: "deleted configmap before" in said.read_text(), "it was not told of the deletion")
    finally:
        informer.terminate()
        informer.wait(DEADLINE_S)
    lines = said.read_text().splitlines()
    assert lines.index("added configmap before 1") < lines.index("added configmap new 1")
    assert lines.count("added configmap before 1") == lines.count("added configmap new 1") == 1


GREETINGS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "greetings.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "greetings", "singular": "greeting", "kind": "Greeting"},
        "versions": [{
            "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"text": {"type": "string"}}},
                "status": {"type": "object", "properties": {"said": {"type": "string"}}},
            }}},
        }],
    },
}  # fmt: skip


@needs("operator")
def test_an_operator_of_controller_runtime_keeps_what_its_resources_ask_for(
    live: Live, agent: Path, tmp_path: Path
) -> None:
    live.apply(agent, GREETINGS)
    live.kubectl(agent, "wait", "--for=condition=Established", "crd/greetings.example.com")
    asked = {"apiVersion": "example.com/v1", "kind": "Greeting", "metadata": {"name": "hello"}}

    def kept() -> str:
        found = live.get(agent, "configmaps")["items"]
        return str(next((each["data"]["text"] for each in found if each["metadata"]["name"] == "hello"), ""))

    with reference.program(tmp_path, "operator", (str(agent), "default")):
        live.apply(agent, {**asked, "spec": {"text": "good day"}})
        until(lambda: kept() == "good day", "the operator made nothing")
        live.apply(agent, {**asked, "spec": {"text": "good night"}})
        until(lambda: kept() == "good night", "the operator did not follow the change")
        until(
            lambda: live.get(agent, "greeting", "hello").get("status") == {"said": "good night"},
            "the operator wrote no status",
        )
        live.kubectl(agent, "delete", "configmap", "hello")
        until(lambda: kept() == "good night", "the operator did not make again what was deleted")
        assert live.get(agent, "lease", "greetings.example.com")["spec"]["holderIdentity"]
        events = live.get(agent, "events", "--field-selector", "reason=Kept")["items"]
        assert {each.get("message") or each["note"] for each in events} >= {
            "the ConfigMap was created",
            "the ConfigMap was updated",
        }
        live.kubectl(agent, "delete", "greeting", "hello")
        assert (tmp_path / "operator.log").read_text().count("farewell hello") == 1
        until(lambda: not kept(), "what the greeting owned was not collected")


CHART = {
    "Chart.yaml": "apiVersion: v2\nname: shop\nversion: 0.1.0\n",
    "values.yaml": "greeting: hello\nreplicas: 0\n",
    "templates/config.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-config\n"
        "data:\n  greeting: {{ .Values.greeting | quote }}\n"
    ),
    "templates/deployment.yaml": (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}\nspec:\n"
        "  replicas: {{ .Values.replicas }}\n  selector:\n    matchLabels: {app: {{ .Release.Name }}}\n"
        "  template:\n    metadata:\n      labels: {app: {{ .Release.Name }}}\n    spec:\n"
        "      containers:\n      - name: main\n        image: none\n        command: [sleep, '60']\n"
    ),
}


@needs("helm")
def test_helm_installs_upgrades_rolls_back_and_uninstalls_a_chart(
    live: Live, agent: Path, tmp_path: Path
) -> None:
    for name, text in CHART.items():
        (tmp_path / "shop" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / name).write_text(text)

    def helm(*words: str) -> str:
        command = [str(reference.folder() / "helm"), f"--kubeconfig={agent}", *words]
        env = {name: str(tmp_path / name) for name in ("HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME")}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE_S, env=env, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def greeting() -> str:
        return str(live.get(agent, "configmap", "web-config")["data"]["greeting"])

    chart = str(tmp_path / "shop")
    helm("install", "web", chart)
    assert greeting() == "hello"
    helm("upgrade", "web", chart, "--set", "greeting=goodbye", "--set", "replicas=1")
    assert greeting() == "goodbye"
    assert live.get(agent, "deployment", "web")["spec"]["replicas"] == 1
    helm("rollback", "web", "1")
    assert greeting() == "hello"
    assert live.get(agent, "deployment", "web")["spec"]["replicas"] == 0
    history = json.loads(helm("history", "web", "--output", "json"))
    assert [each["status"] for each in history] == ["superseded", "superseded", "deployed"]
    helm("uninstall", "web")
    assert "web" not in live.kubectl(agent, "get", "deployments,configmaps", "-o", "name")


NODE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "elsewhere"},
    "spec": {"providerID": "other://elsewhere"},
    "status": {
        "capacity": {"cpu": "2", "memory": "4Gi", "pods": "10"},
        "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


@needs("kube-scheduler")
def test_the_real_scheduler_binds_the_pods_that_name_it(live: Live, tmp_path: Path) -> None:
    live.apply(live.operator, NODE)
    # A new node is tainted until a controller sees that it is ready.
    live.kubectl(live.operator, "patch", "node", "elsewhere", "--subresource=status", "--type=merge",
                 "-p", json.dumps({"status": NODE["status"]}))  # fmt: skip
    live.kubectl(
        live.operator, "patch", "node", "elsewhere", "--type=merge", "-p", '{"spec":{"taints":null}}'
    )
    settings = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(live.operator)},
        "leaderElection": {"leaderElect": False},
        "profiles": [{"schedulerName": "real"}],
    }
    (tmp_path / "scheduler.yaml").write_text(yaml.safe_dump(settings))
    words = (
        f"--config={tmp_path / 'scheduler.yaml'}", f"--secure-port={reference.free_port()}",
        f"--authentication-kubeconfig={live.operator}", f"--authorization-kubeconfig={live.operator}",
    )  # fmt: skip
    spec = {"schedulerName": "real", "containers": [{"name": "main", "image": "none"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "placed"}, "spec": spec}
    with reference.program(tmp_path, "kube-scheduler", words):
        live.apply(live.operator, pod)

        def node() -> str:
            return str(live.get(live.operator, "pod", "placed")["spec"].get("nodeName", ""))

        assert until(node, "the scheduler bound nothing") == "elsewhere"
    events = live.get(live.operator, "events", "--field-selector", "reason=Scheduled")["items"]
    assert any("elsewhere" in (each.get("message") or each.get("note", "")) for each in events)


@needs("kube-controller-manager")
def test_controllers_of_the_real_manager_work_beside_ours(live: Live, tmp_path: Path) -> None:
    live.apply(live.operator, NODE)
    words = (
        f"--kubeconfig={live.operator}", f"--authentication-kubeconfig={live.operator}",
        f"--authorization-kubeconfig={live.operator}", f"--secure-port={reference.free_port()}",
        "--controllers=ttl-controller", "--leader-elect=true", "--leader-elect-resource-name=others",
    )  # fmt: skip
    with reference.program(tmp_path, "kube-controller-manager", words):

        def annotated() -> bool:
            found = live.get(live.operator, "node", "elsewhere")["metadata"].get("annotations") or {}
            return "node.alpha.kubernetes.io/ttl" in found

        until(annotated, "the controller wrote nothing")
        lease = live.get(live.operator, "lease", "others", "-n", "kube-system")
    assert lease["spec"]["holderIdentity"]
