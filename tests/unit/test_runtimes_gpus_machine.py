"""The port to the cards: what leases need is made of them; daemons are processes of a simulator's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.cards import cards_here, driver

from walras.devices.arrangement import Technique, Wanted
from walras.devices.mig import MigInstance
from walras.runtimes.base import Mount
from walras.runtimes.environment import Gpu
from walras.runtimes.gpus import cdi, machine
from walras.runtimes.gpus.cards import CardError
from walras.runtimes.gpus.machine import RESTARTS_MAX, Machine, Needed
from walras.runtimes.gpus.mps import Mps, MpsError
from walras.runtimes.gpus.nvml import Nvml

MPS = Needed(Wanted(Technique.MPS), 75, 4000)
CUT = MigInstance("3g.40gb", 4)


def daemon_of(here: Machine, uuid: str) -> Mps:
    return here._mps[uuid]


def kill(daemon: Mps) -> None:
    assert daemon._daemon is not None
    os.kill(daemon._daemon.pid, signal.SIGKILL)
    daemon._daemon.wait()


def test_shares_under_mps_have_a_daemon_that_bounds_them_and_nobody_gets_by_it() -> None:
    with cards_here("H100", "H100") as (_, here):
        first, second = here.cards
        here.arrange(first, MPS)
        assert here.arrangement(first).mps and here.arrangement(first).one_process
        assert not here.arrangement(second).mps
        daemon = daemon_of(here, first)
        assert daemon._ask("get_default_active_thread_percentage").strip() == "75.0"
        assert daemon._ask("get_default_device_pinned_mem_limit 0").strip() == "4000M"
        server = int(daemon._ask("start_server -uid 0"))
        here.arrange(first, Needed(Wanted(Technique.MPS), 50, 2000))
        assert daemon._ask(f"get_active_thread_percentage {server}").strip() == "50.0"
        pipe, shm = here.mps_directories(first)
        assert Path(pipe).is_dir() and Path(shm).is_dir()
        here.arrange(first, Needed())
        assert not here.arrangement(first).mps and not here.arrangement(first).one_process
        assert not Path(pipe).exists() and not Path(shm).exists()


def test_the_server_of_mps_is_no_stranger_on_its_card() -> None:
    with cards_here("H100") as (cards, here):
        (uuid,) = here.cards
        here.arrange(uuid, MPS)
        server = int(daemon_of(here, uuid)._ask("start_server -uid 0"))
        cards.run(0, server, 30)
        cards.run(0, 4711, 30)
        assert [use.pid for use in here.read(uuid).uses] == [4711]


def test_a_daemon_that_dies_is_started_again_with_its_bounds_but_not_for_ever() -> None:
    with cards_here("H100") as (_, here):
        (uuid,) = here.cards
        here.arrange(uuid, MPS)
        for at in range(RESTARTS_MAX):
            kill(daemon_of(here, uuid))
            (fault,) = here.tend(at)
            assert (fault.reason, fault.fatal) == ("MpsDaemonRestarted", False)
            assert daemon_of(here, uuid)._ask("get_default_active_thread_percentage").strip() == "75.0"
        assert here.tend(RESTARTS_MAX) == ()
        kill(daemon_of(here, uuid))
        (fault,) = here.tend(RESTARTS_MAX)
        assert (fault.reason, fault.fatal) == ("MpsDaemonDead", True)


def test_a_daemon_of_an_earlier_server_is_ended_before_another_starts(tmp_path: Path) -> None:
    with driver("H100"):
        before, after = machine.simulated(tmp_path), machine.simulated(tmp_path)
        (uuid,) = before.cards
        before.arrange(uuid, MPS)
        old = daemon_of(before, uuid)._daemon
        assert old is not None
        after.arrange(uuid, MPS)
        assert old.wait(10) == 0
        assert after.arrangement(uuid).mps
        after.close()


def test_a_daemon_that_cannot_be_started_is_an_error_with_the_place_of_its_log(tmp_path: Path) -> None:
    with driver("H100"):
        here = Machine(Nvml(), tmp_path, mps=("false",), simulated=True)
        (uuid,) = here.cards
        with pytest.raises(CardError, match="its log is in"):
            here.arrange(uuid, MPS)
        missing = Machine(Nvml(), tmp_path, mps=("/nowhere/mps",), simulated=True)
        with pytest.raises(CardError, match="cannot be started"):
            missing.arrange(uuid, MPS)


def test_a_daemon_whose_folders_cannot_be_made_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    daemon = Mps(
        ("true",), "GPU-1", pipe=tmp_path / "file" / "p", shm=tmp_path / "s", log=tmp_path, as_root=False
    )
    with pytest.raises(MpsError, match="cannot be started"):
        daemon.start()


def test_a_client_without_a_daemon_is_told_so(tmp_path: Path) -> None:
    with driver("H100"):
        here = machine.simulated(tmp_path)
        (uuid,) = here.cards
        with pytest.raises(MpsError, match="Cannot find MPS control daemon process"):
            daemon_of(here, uuid).servers()


def test_an_instance_is_reached_by_its_name_and_the_files_that_the_kernel_numbers(tmp_path: Path) -> None:
    with driver("H100"):
        files = tmp_path / "gpu0" / "mig" / "gi1"
        (files / "ci0").mkdir(parents=True)
        (files / "access").write_text("DeviceFileMinor: 30\nDeviceFileMode: 292\n")
        (files / "ci0" / "access").write_text("DeviceFileMinor: 31\nDeviceFileMode: 292\n")
        here = Machine(Nvml(), tmp_path, simulated=True, capabilities=tmp_path)
        (uuid,) = here.cards
        access = here.arrange(uuid, Needed(Wanted(Technique.MIG, frozenset({CUT}))))
        assert access[CUT].uuid.startswith("MIG-")
        assert access[CUT].files[-2:] == ("/dev/nvidia-caps/nvidia-cap30", "/dev/nvidia-caps/nvidia-cap31")
        assert access[None].uuid == uuid and "/dev/nvidia0" in access[None].files


def test_an_instance_without_its_compute_instance_is_made_anew() -> None:
    with cards_here("H100") as (cards, here):
        (uuid,) = here.cards
        needed = Needed(Wanted(Technique.MIG, frozenset({CUT})))
        here.arrange(uuid, needed)
        with cards.state() as state:
            state.cards[0].instances[0].computes = False
        assert here.arrangement(uuid).broken == {CUT}
        assert CUT in here.arrange(uuid, needed)
        assert here.arrangement(uuid).broken == frozenset()


def test_who_is_not_root_cuts_no_card(tmp_path: Path) -> None:
    with driver("H100"):
        here = Machine(Nvml(), tmp_path, may_cut=False, simulated=True)
        assert [card.mig for card in here.cards.values()] == [None]
        assert here.shares_by is Technique.TIMESLICE


def test_a_specification_for_containers_says_what_the_process_runtime_does(tmp_path: Path) -> None:
    gpu = Gpu({"B": "2", "A": "1"}, ("/dev/nvidia0",), (Mount("/run/x", "/run/nvidia-mps"),))
    found = cdi.specification("search.lease-1", gpu)
    assert (found["cdiVersion"], found["kind"]) == ("0.6.0", "cdi.walras.dev/gpu")
    (device,) = found["devices"]
    assert device["name"] == "search.lease-1"
    assert device["containerEdits"] == {
        "env": ["A=1", "B=2"],
        "deviceNodes": [{"path": "/dev/nvidia0"}],
        "mounts": [
            {
                "hostPath": "/run/x",
                "containerPath": "/run/nvidia-mps",
                "options": ["bind", "rw", "nosuid", "nodev"],
            }
        ],
    }
    cdi.write(tmp_path, "one", gpu)
    cdi.write(tmp_path, "two", gpu)
    cdi.keep_only(tmp_path, ["two"])
    assert [path.name for path in tmp_path.iterdir()] == ["two.json"]
