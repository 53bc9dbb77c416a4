"""Pods of images, by kubectl, against a real server whose default is the container runtime."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live import BIN, Live, eventually, processes
from support.registry import Registry, serving
from support.runtimes import BUSYBOX, container_offer, file_system

from walras.runtimes.shares import Shares

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(container_offer().make is None or not BUSYBOX, reason=container_offer().detail),
]
Object = dict[str, Any]
CONFIG = {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo by itself"], "Env": ["PATH=/bin", "FROM=image"]}


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with serving() as found:
        found.add("team/app:1", file_system(), CONFIG)
        yield found


@pytest.fixture(scope="module")
def private() -> Iterator[Registry]:
    with serving("open sesame") as found:
        # Another image than that which anybody may pull, who then may have it by this name too.
        found.add("team/own:1", file_system(), {**CONFIG, "Cmd": ["echo my own"]})
        yield found


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, registry: Registry, private: Registry) -> Iterator[Live]:
    server = Live(tmp_path_factory.mktemp("containers") / "data")
    (server.data / "engine").mkdir(parents=True)
    text = '[[registry]]\nlocation = "127.0.0.1:{}"\ninsecure = true\n'
    both = "".join(text.format(each.port) for each in (registry, private))
    (server.data / "engine" / "registries.conf").write_text(both)
    server.start("--runtime", "container")
    try:
        yield server
    finally:
        server.stop()
        assert "Traceback" not in server.log()
        assert not processes(f"unix:///run/walras-{Shares(server.data).mark}/")


@pytest.fixture(scope="module")
def agent(live: Live) -> Path:
    return live.agent("acme")


def pod(name: str, image: str, container: Object | None = None, **spec: Any) -> Object:
    made = {"name": "main", "image": image, **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [made], **spec},
    }


def status(live: Live, agent: Path, name: str) -> Object:
    return dict(live.get(agent, "pod", name).get("status") or {})


def waits(live: Live, agent: Path, name: str, reason: str) -> Object:
    def found() -> Object | None:
        for each in status(live, agent, name).get("containerStatuses") or ():
            waiting = each["state"].get("waiting", {})
            if waiting.get("reason") == reason:
                return dict(waiting)
        return None

    return dict(eventually(found, f"{name} to wait: {reason}"))


def test_an_image_runs_with_its_own_entrypoint(live: Live, agent: Path, registry: Registry) -> None:
    image = f"127.0.0.1:{registry.port}/team/app:1"
    live.apply(agent, pod("plain", image, restartPolicy="Never"))
    eventually(lambda: status(live, agent, "plain").get("phase") == "Succeeded", "the pod's end")
    assert live.kubectl(agent, "logs", "plain") == "by itself\n"
    (container,) = status(live, agent, "plain")["containerStatuses"]
    assert container["containerID"].startswith("podman://")
    assert container["imageID"].startswith(f"127.0.0.1:{registry.port}/team/app@sha256:")
    events = live.kubectl(agent, "events", "--for", "pod/plain")
    assert f'Pulling image "{image}"' in events and f'Successfully pulled image "{image}"' in events


def test_a_pod_of_an_image_does_what_any_pod_does(
    live: Live, agent: Path, registry: Registry, tmp_path: Path
) -> None:
    live.apply(
        agent,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings"},
            "data": {"colour": "red", "page": "hello from a config map"},
        },
        pod(
            "web",
            f"127.0.0.1:{registry.port}/team/app:1",
            {
                "args": ["httpd -f -p 8080 -h /www"],
                "env": [
                    {
                        "name": "COLOUR",
                        "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}},
                    }
                ],
                "volumeMounts": [
                    {"name": "settings", "mountPath": "/www"},
                    {"name": "scratch", "mountPath": "/scratch"},
                ],
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/page", "port": 8080}, "periodSeconds": 1},
                "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}},
            },
            volumes=[
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "scratch", "emptyDir": {}},
            ],
        ),
    )
    live.kubectl(agent, "wait", "--for=condition=Ready", "pod/web", "--timeout=30s")
    said = live.kubectl(agent, "exec", "web", "--", "sh", "-c", "echo $COLOUR $FROM; hostname; id -u")
    assert said == "red image\nweb\n0\n"
    text = tmp_path / "text"
    text.write_text("there and back")
    live.kubectl(agent, "cp", str(text), "web:/scratch/text")
    assert live.kubectl(agent, "exec", "web", "--", "cat", "/scratch/text") == "there and back"
    assert "runs without added capabilities" in live.kubectl(agent, "events", "--for", "pod/web")
    assert _forwarded(live, agent, "web", 8080, "/page").endswith("hello from a config map")
    _reached_by_name(live, agent, registry)
    live.kubectl(agent, "delete", "pod", "web", "asks", "--timeout=30s")


def _reached_by_name(live: Live, agent: Path, registry: Registry) -> None:
    """Pods of images are in the agent's network as all others are."""
    live.kubectl(agent, "label", "pod", "web", "app=web")
    live.kubectl(agent, "expose", "pod", "web", "--port=80", "--target-port=8080")
    asks = {"args": ["for each in 1 2 3 4 5; do wget -q -O - http://web/page && exit; sleep 1; done; exit 1"]}
    live.apply(agent, pod("asks", f"127.0.0.1:{registry.port}/team/app:1", asks, restartPolicy="Never"))
    eventually(lambda: status(live, agent, "asks").get("phase") in ("Succeeded", "Failed"), "an answer")
    assert live.kubectl(agent, "logs", "asks").endswith("hello from a config map")


def _forwarded(live: Live, agent: Path, name: str, port: int, path: str) -> str:
    command = [str(BIN / "kubectl"), "port-forward", f"pod/{name}", f":{port}"]
    env = {**os.environ, "KUBECONFIG": str(agent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as forward:
        assert forward.stdout is not None
        local = int(forward.stdout.readline().split(" -> ")[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", local), 10) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            said = b""
            while data := connection.recv(4096):
                said += data
        forward.terminate()
    del live
    return said.decode()


def test_input_reaches_a_container_that_has_one(live: Live, agent: Path, registry: Registry) -> None:
    image = f"127.0.0.1:{registry.port}/team/app:1"
    reads = {"stdin": True, "stdinOnce": True, "args": ["read word; echo heard $word; cat; echo over"]}
    live.apply(agent, pod("reader", image, reads, restartPolicy="Never"))
    live.kubectl(agent, "wait", "--for=condition=Ready", "pod/reader", "--timeout=30s")
    said = live.kubectl(agent, "attach", "-i", "reader", stdin="hello\nmore\n")
    assert "heard hello\nmore\nover\n" in said
    eventually(lambda: status(live, agent, "reader").get("phase") == "Succeeded", "the reader's end")


def test_an_image_that_cannot_be_had_is_waited_for(live: Live, agent: Path, registry: Registry) -> None:
    missing = f"127.0.0.1:{registry.port}/team/later:1"
    live.apply(
        agent,
        pod("later", missing, {"args": ["echo arrived; sleep 1000"]}),
        pod("never", "team/app:1", {"imagePullPolicy": "Never"}),
        pod("wrong", "Team/App"),
    )
    assert "manifest unknown" in waits(live, agent, "later", "ImagePullBackOff")["message"]
    assert (
        "is not present with pull policy of Never"
        in waits(live, agent, "never", "ErrImageNeverPull")["message"]
    )
    assert "repository name must be lowercase" in waits(live, agent, "wrong", "InvalidImageName")["message"]
    registry.add("team/later:1", file_system(), CONFIG)
    live.kubectl(agent, "wait", "--for=condition=Ready", "pod/later", "--timeout=30s")
    live.kubectl(agent, "delete", "pod", "later", "never", "wrong", "--timeout=30s")


def test_a_pod_may_choose_another_runtime(live: Live, agent: Path, registry: Registry) -> None:
    names = live.kubectl(agent, "get", "runtimeclasses", "-o", "name").split()
    assert {"runtimeclass.node.k8s.io/process", "runtimeclass.node.k8s.io/container"} <= set(names)
    runs = {"command": ["sh", "-c", "test -d /sys/fs/cgroup && ls /usr/bin | wc -l"]}
    live.apply(
        agent,
        pod("here", "any", runs, runtimeClassName="process", restartPolicy="Never"),
        pod("lost", "any", runs, runtimeClassName="container", restartPolicy="Never"),
    )
    eventually(lambda: "process://" in str(status(live, agent, "here").get("containerStatuses")), "a process")
    waits(live, agent, "lost", "ErrImagePull")
    live.kubectl(agent, "delete", "pod", "here", "lost", "--timeout=30s")


def test_a_server_that_is_killed_finds_its_pods_again_and_runs_them_once(
    live: Live, agent: Path, registry: Registry
) -> None:
    image, word = f"127.0.0.1:{registry.port}/team/app:1", f"10{os.getpid()}2"
    live.apply(agent, pod("lasting", image, {"args": [f"sleep {word}; :"]}))
    live.kubectl(agent, "wait", "--for=condition=Ready", "pod/lasting", "--timeout=30s")
    live.stop(9)
    assert processes(f"sleep\0{word}"), "containers outlive a server that is killed"
    live.start("--runtime", "container", "--listen", "127.0.0.1:" + live.ready["url"].rpartition(":")[2])
    eventually(
        lambda: status(live, agent, "lasting")["containerStatuses"][0]["restartCount"] == 1, "a restart"
    )
    eventually(lambda: len(processes(f"sleep\0{word}")) == 1, "one program")
    live.kubectl(agent, "delete", "pod", "lasting", "--timeout=30s")
    assert not processes(f"sleep\0{word}")


def test_a_container_that_fills_its_disk_is_evicted_and_others_run_on(
    live: Live, agent: Path, registry: Registry
) -> None:
    image = f"127.0.0.1:{registry.port}/team/app:1"
    limits = {"resources": {"limits": {"ephemeral-storage": "16Mi"}}}
    fills = "dd if=/dev/zero of=/hole bs=1M count=64; sleep 1000"
    live.apply(agent, pod("fills", image, {**limits, "args": [fills]}, restartPolicy="Never"))
    live.apply(agent, pod("stays", image, {**limits, "args": ["sleep 1000"]}))
    found = eventually(
        lambda: status(live, agent, "fills").get("reason") and status(live, agent, "fills"), "an eviction"
    )
    assert found["phase"] == "Failed" and found["reason"] == "Evicted"
    said = "Pod ephemeral local storage usage exceeds the total limit of containers 16Mi. "
    assert found["message"] == said
    assert status(live, agent, "stays")["phase"] == "Running"
    assert not any((live.data / "engine" / "storage" / "overlay").glob("*/diff/hole"))


def test_an_agent_by_the_name_of_one_that_is_gone_has_neither_its_images_nor_its_files(
    live: Live, registry: Registry, private: Registry
) -> None:
    own, any_ = f"127.0.0.1:{private.port}/team/own:1", f"127.0.0.1:{registry.port}/team/app:1"
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    volumes = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    first = live.agent("tenant")
    live.kubectl(
        first, "create", "secret", "docker-registry", "key", f"--docker-server=127.0.0.1:{private.port}",
        "--docker-username=me", "--docker-password=open sesame",
    )  # fmt: skip
    keeps = {**mounts, "args": ["trap '' TERM; echo x > /data/secret; while :; do sleep 1; done"]}
    live.apply(first, claim, pod("keeps", own, keeps, **volumes, imagePullSecrets=[{"name": "key"}]))
    live.kubectl(first, "wait", "--for=condition=Ready", "pod/keeps", "--timeout=30s")
    live.walras("agent", "delete", "tenant", "--yes")
    second = live.agent("tenant")
    looks = {**mounts, "args": ["ls -A /data | wc -l"]}
    live.apply(
        second,
        claim,
        pod("looks", any_, looks, **volumes, restartPolicy="Never"),
        pod("runs", own, restartPolicy="Never"),
    )
    eventually(
        lambda: status(live, second, "looks").get("phase") == "Succeeded", "the volume to be looked at"
    )
    assert live.kubectl(second, "logs", "looks").strip() == "0"
    waits(live, second, "runs", "ErrImagePull")
    live.walras("agent", "delete", "tenant", "--yes")
    assert not (live.data / "agents" / "tenant").exists()
