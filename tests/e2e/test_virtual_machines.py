"""Virtual machines on a real server, by kubectl: a pod in one, and KubeVirt's kinds, with real guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
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
    disk["spec"]["template"]["spec"]["volumes"][0] = {"name": "scratch", "containerDisk": {"image": "fedora"}}
    live.apply(agent, disk)
    told = eventually(
        lambda: [
            each
            for each in live.get(agent, "vm", "disk").get("status", {}).get("conditions", ())
            if each["type"] == "Failure"
        ],
        "the machine to say so",
    )
    assert "not the disk of an image" in told[0]["message"]
