"""The driver's library as we speak with it: real pynvml, behind it a simulator with its C functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pynvml
import pytest
from support.cards import driver

from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import GEOMETRIES, geometry_of
from walras.runtimes.gpus import nvml_mig
from walras.runtimes.gpus.cards import CardError
from walras.runtimes.gpus.nvml import Nvml
from walras.runtimes.gpus.nvml_events import Events
from walras.runtimes.gpus.simulated_cards import main

MODELS = ("A30", "A100-40GB", "A100", "H100", "H100-NVL", "H20", "H200", "B200")


def test_a_simulator_says_that_it_is_one() -> None:
    with driver("H100"):
        assert Nvml().versions() == ("580.0.0-simulated", "13.0")


@pytest.mark.parametrize("model", MODELS)
def test_every_instance_that_our_tables_allow_can_be_made_and_is_found_again(model: str) -> None:
    geometry = geometry_of(model)
    assert geometry is not None and geometry in GEOMETRIES.values()
    with driver(model):
        nvml = Nvml()
        (card,) = nvml.cards()
        assert card.mig is not None and card.mig.profiles == geometry.profiles
        nvml.set_mig(card.uuid, True)
        for profile in card.mig.profiles:
            for start in profile.starts:
                nvml.create(card, profile.name, start)
                (made,) = nvml.made(card)
                assert made.instance == MigInstance(profile.name, start)
                assert made.uuid.startswith("MIG-")
                nvml.destroy(card, made)
        assert nvml.made(card) == ()


def test_instances_that_overlap_are_refused_and_nothing_is_left_of_them() -> None:
    with driver("H100"):
        nvml = Nvml()
        (card,) = nvml.cards()
        nvml.set_mig(card.uuid, True)
        nvml.create(card, "3g.40gb", 0)
        with pytest.raises(CardError) as refused:
            nvml.create(card, "4g.40gb", 0)
        assert refused.value.code == pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES
        with pytest.raises(CardError) as refused:
            nvml.create(card, "2g.20gb", 6)
        assert refused.value.code == pynvml.NVML_ERROR_INVALID_ARGUMENT
        assert [made.instance for made in nvml.made(card)] == [MigInstance("3g.40gb", 0)]


def test_a_mode_does_not_change_under_a_program_and_an_instance_is_not_taken_from_one() -> None:
    with driver("H100") as cards:
        nvml = Nvml()
        (card,) = nvml.cards()
        cards.run(0, 77, 1000)
        with pytest.raises(CardError, match="turning MIG on") as refused:
            nvml.set_mig(card.uuid, True)
        assert refused.value.busy and not nvml.mig(card.uuid)
        cards.end(77)
        nvml.set_mig(card.uuid, True)
        nvml.create(card, "1g.10gb", 0)
        (made,) = nvml.made(card)
        cards.run(0, 78, 1000, instance=made.id)
        with pytest.raises(CardError) as refused:
            nvml.destroy(card, made)
        assert refused.value.busy


def test_a_card_without_mig_is_no_card_in_mig_mode() -> None:
    with driver("T4"):
        nvml = Nvml()
        (card,) = nvml.cards()
        assert card.mig is None and not nvml.mig(card.uuid) and nvml.made(card) == ()


def test_a_card_that_the_driver_cuts_otherwise_than_we_know_is_not_cut_once_it_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = GEOMETRIES["H100-80GB"]
    moved = tuple(replace(each, starts=each.starts[-1:]) for each in known.profiles)
    monkeypatch.setattr(nvml_mig, "geometry_of", lambda model: replace(known, profiles=moved))
    with driver("H100"):
        nvml = Nvml()
        (card,) = nvml.cards()
        assert card.mig is not None, "while MIG is off the driver tells no places"
        nvml.set_mig(card.uuid, True)
        assert [card.mig for card in nvml.cards()] == [None]


def test_readings_tell_of_processes_heat_and_energy() -> None:
    now = [1000]
    with driver("H100", now_ms=lambda: now[0]) as cards:
        nvml = Nvml()
        (card,) = nvml.cards()
        first = nvml.reading(card.uuid)
        cards.run(0, 10, 1000, 30)
        cards.run(0, 11, 500, 20)
        cards.throttle(0, pynvml.nvmlClocksEventReasonHwThermalSlowdown, 91)
        now[0] += 10_000
        read = nvml.reading(card.uuid)
        assert (read.utilisation_percent, read.memory_used_mib, read.temperature_c) == (50, 1500, 91)
        assert [(use.pid, use.memory_mib, use.sm_percent) for use in read.uses] == [
            (10, 1000, 30),
            (11, 500, 20),
        ]
        assert read.throttled == ("thermal, by the hardware",)
        # 70 W at rest and 600 W at work: 335 W for ten seconds.
        assert (read.energy_mj or 0) - (first.energy_mj or 0) == 3_350_000


def test_clients_of_mps_are_seen_though_drivers_list_them_apart() -> None:
    with driver("H100") as cards:
        nvml = Nvml()
        (card,) = nvml.cards()
        nvml.set_one_process(card.uuid, True)
        cards.run(0, 10, 1000, 30)
        cards.run(0, 11, 500, 20)
        assert [(use.pid, use.memory_mib, use.sm_percent) for use in nvml.reading(card.uuid).uses] == [
            (10, 1000, 30),
            (11, 500, 20),
        ]


def test_a_client_of_mps_that_the_driver_lists_twice_is_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with driver("H100") as cards:
        nvml = Nvml()
        (card,) = nvml.cards()
        cards.run(0, 10, 1000, 30)
        monkeypatch.setattr(
            pynvml, "nvmlDeviceGetMPSComputeRunningProcesses", pynvml.nvmlDeviceGetComputeRunningProcesses
        )
        (use,) = nvml.reading(card.uuid).uses
        assert (use.pid, use.memory_mib) == (10, 1000)


def test_in_mig_mode_the_driver_tells_memory_by_instance_and_no_utilisation() -> None:
    with driver("H100") as cards:
        nvml = Nvml()
        (card,) = nvml.cards()
        nvml.set_mig(card.uuid, True)
        nvml.create(card, "1g.10gb", 3)
        (made,) = nvml.made(card)
        cards.run(0, 10, 1000, 30, made.id)
        read = nvml.reading(card.uuid)
        assert read.utilisation_percent is None
        (use,) = read.uses
        assert (use.instance, use.sm_percent) == (made.id, None)


@pytest.mark.parametrize(("xid", "fatal"), [(79, True), (48, True), (31, False), (13, False)])
def test_an_xid_is_fatal_unless_programs_cause_it(xid: int, fatal: bool) -> None:
    with driver("H100", "H100") as cards:
        nvml = Nvml()
        uuids = [card.uuid for card in nvml.cards()]
        events = Events(uuids)
        assert events.wait(0) == ()
        cards.xid(1, xid)
        (fault,) = events.wait(0)
        assert (fault.uuid, fault.reason, fault.fatal) == (uuids[1], f"Xid{xid}", fatal)
        events.close()


def test_a_lost_card_says_so_whatever_it_is_asked() -> None:
    with driver("H100") as cards:
        nvml = Nvml()
        (card,) = nvml.cards()
        cards.lose(0)
        for ask in (nvml.reading, nvml.mig, nvml.one_process, nvml.minor):
            with pytest.raises(CardError) as refused:
                ask(card.uuid)
            assert refused.value.lost


def test_one_lost_card_hides_no_other_and_all_lost_are_no_empty_machine() -> None:
    with driver("H100", "A30", "H100") as cards:
        cards.lose(0)
        nvml = Nvml()
        assert [(card.index, card.product, card.nvlink) for card in nvml.cards()] == [
            (1, "NVIDIA A30", None),
            (2, "NVIDIA H100 80GB HBM3", None),
        ]
        cards.lose(1)
        cards.lose(2)
        with pytest.raises(CardError) as refused:
            nvml.cards()
        assert refused.value.lost


def test_without_a_driver_there_are_no_cards() -> None:
    with driver() as _:
        assert Nvml().cards() == ()


def test_simulated_cards_outlive_the_server_and_anything_may_happen_to_them_from_outside(
    tmp_path: Path,
) -> None:
    def happens(*words: str) -> None:
        assert main([str(tmp_path), *words]) == 0

    with driver("H100", "H100", folder=tmp_path):
        nvml = Nvml()
        card, other = nvml.cards()
        nvml.set_mig(card.uuid, True)
        nvml.create(card, "2g.20gb", 2)
        happens("xid", "0", "79")
        (fault,) = Events([card.uuid]).wait(100)
        assert (fault.uuid, fault.reason) == (card.uuid, "Xid79")
        happens("throttle", "1", "91")
        happens("run", "1", "4711", "900", "30")
        read = nvml.reading(other.uuid)
        assert (read.temperature_c, read.throttled, read.uses[0].pid) == (91, ("thermal",), 4711)
        happens("end", "4711")
        assert nvml.reading(other.uuid).uses == ()
        happens("lose", "1")
        with pytest.raises(CardError):
            nvml.reading(other.uuid)
        happens("mend", "1")
        assert nvml.reading(other.uuid).uses == ()
        assert main([str(tmp_path), "explode", "1"]) == 2
    with driver("H100", "H100", folder=tmp_path):
        (again,) = Nvml().made(card)
        assert again.instance == MigInstance("2g.20gb", 2)
