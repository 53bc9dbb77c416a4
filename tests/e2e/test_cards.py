"""Simulated cards under a real server: shares and instances by name, faults from outside, and back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live import Live, eventually, phase, pod, serving

pytestmark = pytest.mark.e2e
SHOW = "env | grep CUDA | sort; ls /run/nvidia-mps; sleep 600"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with serving(tmp_path, "simulated:2:H100") as found:
        yield found


def cut(name: str, script: str, profile: str) -> dict[str, Any]:
    found = pod(name, script)
    found["spec"]["containers"][0]["resources"] = {"limits": {f"nvidia.com/mig-{profile}": 1}}
    return found


def happens(live: Live, *words: str) -> None:
    module, folder = "walras.runtimes.gpus.simulated_cards", str(live.data / "simulated-gpus")
    subprocess.run([sys.executable, "-m", module, folder, *words], check=True)


def off(live: Live) -> list[str]:
    lines = live.walras("device", "list").splitlines()[1:]
    return [line.split()[0] for line in lines if " Off " in line]


def variables(live: Live, kubeconfig: Path, name: str) -> dict[str, str]:
    eventually(lambda: phase(live, kubeconfig, name) == "Running", f"{name} to run")
    lines = eventually(lambda: live.kubectl(kubeconfig, "logs", name), f"{name} to speak").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_pods_get_their_part_of_a_card_and_lose_it_when_it_fails(live: Live) -> None:
    acme = live.agent("acme")
    live.apply(acme, pod("part", SHOW, milli=250), cut("cut", SHOW, "2g.20gb"))
    part, instance = variables(live, acme, "part"), variables(live, acme, "cut")
    assert part["CUDA_VISIBLE_DEVICES"].startswith("GPU-")
    assert part["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"
    assert "control" in live.kubectl(acme, "logs", "part"), "the daemon is met where it is said to be"
    assert instance["CUDA_VISIBLE_DEVICES"].startswith("MIG-")
    leases = {lease["spec"]["bid"]: lease for lease in live.get(acme, "gpuleases")["items"]}
    assert {name: each["spec"]["devices"][0]["enforcement"] for name, each in leases.items()} == {
        "part": "mps",
        "cut": "mig",
    }
    device = leases["cut"]["spec"]["devices"][0]["device"]
    happens(live, "xid", device[-1], "79")
    eventually(lambda: off(live) == [device], "the card to leave the market")
    eventually(lambda: "pod/cut" not in live.kubectl(acme, "get", "pods", "-o", "name"), "its pod to end")
    assert phase(live, acme, "part") == "Running"
    live.walras("device", "return", device)
    assert off(live) == []
    live.apply(acme, cut("again", SHOW, "2g.20gb"))
    assert variables(live, acme, "again")["CUDA_VISIBLE_DEVICES"].startswith("MIG-")
    assert json.loads(live.walras("cost", "-o", "json"))["balanced"] is True


def test_after_a_killed_server_no_daemon_and_no_instance_is_left_that_no_lease_has(live: Live) -> None:
    acme = live.agent("acme")
    live.apply(acme, pod("part", SHOW, milli=250), cut("cut", SHOW, "1g.10gb"))
    for name in ("part", "cut"):
        variables(live, acme, name)
    live.stop(signal.SIGKILL)
    live.start()

    def idle() -> bool:
        found = json.loads((live.data / "simulated-gpus" / "cards.json").read_text())["cards"]
        return not any(card["instances"] or card["one_process"] for card in found)

    eventually(idle, "the cards to be tidy")
