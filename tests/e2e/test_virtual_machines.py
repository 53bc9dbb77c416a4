"""Virtual machines on a real server, by kubectl: a pod in one, and KubeVirt's kinds, with real guests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket
import yaml
from support import live as support
from support.live import Live, eventually

from walras.runtimes.handlers import VM, offers

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        all(each.make is None for each in offers(Path("/nowhere")) if each.handler == VM),
        reason="no runtime vm here",
    ),
]
Object = dict[str, Any]
ACTS = "/apis/subresources.kubevirt.io/v1/namespaces/default"
USER_DATA = """#cloud-config
hostname: crate
write_files:
- path: /srv/words
  content: from a file
  permissions: "0600"
runcmd:
- mkfs.ext4 -q /dev/vda
- mount /dev/vda /mnt && cp /srv/words /mnt/words
- [sh, -c, "echo $(cat /mnt/words), $(cat /proc/sys/kernel/hostname)"]
final_message: All is up.
"""


def machine(name: str, **spec: Any) -> Object:
    devices = {"disks": [{"name": "scratch"}, {"name": "seed"}]}
    template = {
        "domain": {"memory": {"guest": "192Mi"}, "cpu": {"cores": 1}, "devices": devices},
        "terminationGracePeriodSeconds": 20,
        "volumes": [
            {"name": "scratch", "emptyDisk": {"capacity": "64Mi"}},
            {"name": "seed", "cloudInitNoCloud": {"userData": USER_DATA}},
        ],
    }
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"template": {"spec": template}, **spec},
    }


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    support.DEADLINE_S = 120.0
    server = Live(tmp_path_factory.mktemp("machines") / "data")
    server.start()
    try:
        yield server
    finally:
        server.stop()
        support.DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def agent(live: Live) -> Path:
    return live.agent("acme")


def launchers(live: Live, agent: Path, name: str) -> list[Object]:
    found = live.get(agent, "pods", "-l", f"vm.kubevirt.io/name={name}")["items"]
    return list(found)


def test_a_machine_applies_its_data_runs_and_stops_in_its_own_time(live: Live, agent: Path) -> None:
    live.apply(agent, machine("box", runStrategy="RerunOnFailure"))
    live.kubectl(agent, "wait", "vm/box", "--for=condition=Ready", "--timeout=100s")
    (pod,) = launchers(live, agent, "box")
    name = pod["metadata"]["name"]
    said = eventually(
        lambda: "All is up." in (log := live.kubectl(agent, "logs", name, check=False)) and log, "the console"
    )
    assert "from a file, crate" in said and "failed" not in said
    shown = live.kubectl(agent, "get", "vm,vmi")
    assert "Running" in shown and "base" in shown
    kernel = live.kubectl(agent, "exec", name, "--", "uname", "-r").strip()
    assert kernel in said
    # Stopped from within: it has succeeded, and its strategy leaves it so.
    live.kubectl(agent, "exec", name, "--", "poweroff")
    eventually(lambda: live.get(agent, "vmi", "box")["status"]["phase"] == "Succeeded", "its end")
    assert live.get(agent, "vm", "box")["status"]["printableStatus"] == "Stopped"
    live.kubectl(agent, "delete", "vm", "box", "--wait=false")
    eventually(lambda: not launchers(live, agent, "box"), "its pod to go")


def test_a_machine_that_is_halted_while_it_runs_is_gone_with_its_guest(live: Live, agent: Path) -> None:
    live.apply(agent, machine("halted", running=True))
    live.kubectl(agent, "wait", "vm/halted", "--for=condition=Ready", "--timeout=100s")
    assert support.processes("qemu-system")
    live.kubectl(agent, "patch", "vm", "halted", "--type=merge", "-p", '{"spec":{"running":false}}')
    eventually(
        lambda: live.get(agent, "vm", "halted")["status"]["printableStatus"] == "Stopped", "it to stop"
    )
    assert launchers(live, agent, "halted") == []


def test_what_is_wrong_with_a_manifest_is_told_by_the_server_or_by_the_machine(
    live: Live, agent: Path
) -> None:
    both = machine("both", running=True, runStrategy="Always")
    refused = live.kubectl(agent, "apply", "-f", "-", stdin=str(both), check=False)
    assert "One of Running or RunStrategy must be specified" in refused
    disk = machine("disk", running=True)
    disk["spec"]["template"]["spec"]["volumes"][0] = {"name": "scratch", "dataVolume": {"name": "fedora"}}
    live.apply(agent, disk)
    told = eventually(
        lambda: [
            each
            for each in live.get(agent, "vm", "disk").get("status", {}).get("conditions", ())
            if each["type"] == "Failure"
        ],
        "the machine to say so",
    )
    assert "no importer of disks" in told[0]["message"]


SERVES = """#cloud-config
write_files:
- {path: /srv/hello, content: hello from the guest}
runcmd:
- "python3 -m http.server 8080 --directory /srv >/dev/null 2>&1 &"
- "echo resolver $(grep -c 10.244.0.1 /etc/resolv.conf)"
"""


def subresource(live: Live, agent: Path, path: str, **options: Any) -> httpx.Response:
    """As virtctl asks for it."""
    with live.client(agent) as client:
        return client.put(f"/clusters/acme{ACTS}/{path}", json=options)


@contextmanager
def stream(live: Live, agent: Path, path: str) -> Iterator[websocket.WebSocket]:
    """As virtctl connects."""
    token = yaml.safe_load(agent.read_text())["users"][0]["user"]["token"]
    url = f"{live.ready['url'].replace('https', 'wss')}/clusters/acme{ACTS}/{path}"
    made = websocket.create_connection(
        url, timeout=support.DEADLINE_S, subprotocols=["plain.kubevirt.io"],
        header=[f"Authorization: Bearer {token}"], sslopt={"ca_certs": live.ready["ca_file"]},
    )  # fmt: skip
    try:
        assert made.getsubprotocol() == "plain.kubevirt.io"
        yield made
    finally:
        made.close()


def hears(made: websocket.WebSocket, what: bytes) -> bytes:
    said = b""
    while what not in said:
        data = made.recv()
        said += data if isinstance(data, bytes) else data.encode()
    return said


def test_a_machine_is_entered_held_restarted_and_reached_as_by_virtctl(live: Live, agent: Path) -> None:
    served = machine("served", runStrategy="Manual")
    served["spec"]["template"]["metadata"] = {"labels": {"app": "served"}}
    served["spec"]["template"]["spec"]["volumes"][1]["cloudInitNoCloud"]["userData"] = SERVES
    ports = [{"port": 80, "targetPort": 8080}]
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "served"},
        "spec": {"selector": {"app": "served"}, "ports": ports},
    }  # fmt: skip
    live.apply(agent, served, service)
    assert subresource(live, agent, "virtualmachines/served/start").status_code == 202
    live.kubectl(agent, "wait", "vm/served", "--for=condition=Ready", "--timeout=100s")
    assert subresource(live, agent, "virtualmachines/served/start").status_code == 409
    with stream(live, agent, "virtualmachineinstances/served/console") as console:
        console.send_binary(b"echo $((6 * 7)) $(hostname)\n")
        hears(console, b"42 served")
    (device,) = live.get(agent, "vmi", "served")["status"]["interfaces"]
    eventually(lambda: fetched(live, agent) is not None, "the guest's server")
    # From a pod of the agent, by the Service's name.
    asks = "import urllib.request as u; print(u.urlopen('http://served/hello', timeout=20).read().decode())"
    container = {"name": "main", "image": "none", "command": ["python3", "-c", asks]}
    spec = {"restartPolicy": "Never", "containers": [container]}
    live.apply(agent, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asks"}, "spec": spec})
    eventually(lambda: support.phase(live, agent, "asks") == "Succeeded", "a pod that asks the guest")
    assert live.kubectl(agent, "logs", "asks") == "hello from the guest\n"
    # Held: nothing is answered, and the Service leads nowhere.
    assert subresource(live, agent, "virtualmachineinstances/served/pause").status_code == 200
    eventually(lambda: "Paused" in live.kubectl(agent, "get", "vm", "served"), "it to be shown as held")
    eventually(
        lambda: (
            not any(
                each["conditions"]["ready"]
                for piece in live.get(agent, "endpointslices", "-l", "kubernetes.io/service-name=served")[
                    "items"
                ]
                for each in piece.get("endpoints") or ()
            )
        ),
        "the Service to have no endpoint",
    )
    assert subresource(live, agent, "virtualmachineinstances/served/unpause").status_code == 200
    eventually(lambda: fetched(live, agent) is not None, "the guest's server again")
    first = live.get(agent, "vmi", "served")["metadata"]["uid"]
    assert subresource(live, agent, "virtualmachines/served/restart", gracePeriodSeconds=0).status_code == 202
    eventually(
        lambda: (
            live.kubectl(agent, "get", "vmi", "served", "-o", "jsonpath={.metadata.uid}", check=False)
            not in ("", first)
            and live.get(agent, "vm", "served")["status"]["printableStatus"] == "Running"
        ),
        "another instance",
    )
    again = live.get(agent, "vmi", "served")["status"]["interfaces"][0]
    assert again["ipAddress"].startswith("10.244.") and device["ipAddress"].startswith("10.244.")
    assert subresource(live, agent, "virtualmachines/served/stop").status_code == 202
    eventually(lambda: live.get(agent, "vm", "served")["status"]["printableStatus"] == "Stopped", "its stop")


def fetched(live: Live, agent: Path) -> bytes | None:
    """What the guest's server answers through a forwarded port; None while nothing listens there."""
    try:
        with stream(live, agent, "virtualmachines/served/portforward/8080/tcp") as port:
            port.send_binary(b"GET /hello HTTP/1.0\r\n\r\n")
            return hears(port, b"hello from the guest")
    except (websocket.WebSocketException, OSError):
        return None
