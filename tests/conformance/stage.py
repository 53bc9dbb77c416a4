"""What the specs need of a cluster: a node that is Ready and takes pods, and a pod in kube-system."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import yaml
from support import reference
from support.live import BIN, Live

from conformance import images

NODE: Final = "simulated-0"
DEADLINE_S: Final = 120.0
# Who runs nodes with this annotation is kwok: pods on them become Running with nothing behind them.
_FAKE: Final = "kwok.x-k8s.io/node"
_CAPACITY: Final = {"cpu": "32", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "100Gi"}
_NODE: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": NODE,
        "annotations": {_FAKE: "fake"},
        "labels": {
            "kubernetes.io/hostname": NODE,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        },
    },
    "spec": {"providerID": f"kwok://{NODE}"},
    "status": {"capacity": _CAPACITY, "allocatable": _CAPACITY},
}
# By whose address the specs see whether a cluster is of IPv4 or IPv6.
_SERVICE: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "kubernetes", "namespace": "default"},
    "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]},
}
_POD: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "simulated", "namespace": "kube-system"},
    "spec": {"containers": [{"name": "main", "image": "none"}]},
}


@contextmanager
def embedded(work: Path) -> Iterator[Path]:
    """The kubeconfig of the operator's cluster of a server: there nodes are the operator's to make."""
    (work / "home").mkdir(parents=True)
    live = Live(work / "home" / "data")
    live.start()
    try:
        with simulated(live.operator, work):
            yield live.operator
    finally:
        live.stop()


@contextmanager
def contained(work: Path) -> Iterator[Path]:
    """The kubeconfig of an agent of a server that runs pods as containers, with images that specs use."""
    (work / "home").mkdir(parents=True)
    live = Live(work / "home" / "data")
    live.start("--runtime", "container")
    try:
        (work / "images").mkdir()
        images.make(live.data / "engine", work / "images")
        yield _at_root(live.agent("conformance", "--balance", "1000"))
    finally:
        live.stop()


def _at_root(kubeconfig: Path) -> Path:
    """The same cluster without a path before the API's own, which some specs write into what they expect."""
    config = yaml.safe_load(kubeconfig.read_text())
    for each in config["clusters"]:
        each["cluster"]["server"] = each["cluster"]["server"].partition("/clusters/")[0]
    kubeconfig.write_text(yaml.safe_dump(config))
    return kubeconfig


@contextmanager
def real(work: Path) -> Iterator[Path]:
    """The kubeconfig of kube-apiserver with its controller manager and scheduler."""
    with reference.running(work) as running:
        running.manage()
        with simulated(running.kubeconfig, work):
            yield running.kubeconfig


@contextmanager
def simulated(kubeconfig: Path, work: Path) -> Iterator[None]:
    """A simulated node, Ready, and a pod that runs on it."""
    with ExitStack() as stack:
        words = (
            f"--kubeconfig={kubeconfig}", f"--config={reference.folder() / 'kwok.yaml'}",
            f"--manage-nodes-with-annotation-selector={_FAKE}=fake",
        )  # fmt: skip
        if not _kubectl(kubeconfig, "get", "service", "kubernetes", "--ignore-not-found"):
            _kubectl(kubeconfig, "apply", "-f", "-", stdin=json.dumps(_SERVICE))
        _kubectl(kubeconfig, "apply", "-f", "-", stdin=json.dumps(_NODE))
        stack.enter_context(reference.program(work, "kwok", words))
        _await(kubeconfig, "the node", "node", NODE, "Ready")
        # A new node is tainted until a controller sees that it is ready, if there is one.
        with suppress(RuntimeError):
            _kubectl(kubeconfig, "taint", "node", NODE, "node.kubernetes.io/not-ready-")
        _await_account(kubeconfig)
        _kubectl(kubeconfig, "apply", "-f", "-", stdin=json.dumps(_POD))
        _await(kubeconfig, "the pod", "pod", "simulated", "Ready", "-n", "kube-system")
        yield


def _kubectl(kubeconfig: Path, *words: str, stdin: str = "") -> str:
    command = [str(BIN / "kubectl"), f"--kubeconfig={kubeconfig}", *words]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _await(kubeconfig: Path, what: str, kind: str, name: str, condition: str, *words: str) -> None:
    timeout = f"--timeout={DEADLINE_S:.0f}s"
    try:
        _kubectl(kubeconfig, "wait", f"--for=condition={condition}", timeout, kind, name, *words)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{what} did not become {condition}: {error}") from None


def _await_account(kubeconfig: Path) -> None:
    until = time.monotonic() + DEADLINE_S
    while "default" not in _kubectl(kubeconfig, "-n", "kube-system", "get", "serviceaccounts", "-o", "name"):
        if time.monotonic() > until:
            raise RuntimeError("kube-system got no default ServiceAccount")
        time.sleep(0.5)
