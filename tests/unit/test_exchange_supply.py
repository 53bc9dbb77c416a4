"""Devices on offer: groups of emulated ones, cards as NVML tells of them, and both as ResourceSlices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cards import cards_here, driver

from walras.core.clock import rfc3339
from walras.core.errors import Invalid
from walras.devices.classes import SPEED_MILLI
from walras.devices.mig import MigInstance, free_starts, state_of
from walras.devices.mig_profiles import GEOMETRIES
from walras.devices.models import MODELS
from walras.exchange import selector, supply
from walras.exchange.book import read_pool
from walras.exchange.slices import resource_slices
from walras.kube import validation
from walras.kube.registry_builtin import for_fleet
from walras.market.types import Share

ATTRIBUTES = "device.attributes['gpu.nvidia.com']"


def test_each_group_has_the_memory_speed_and_geometry_of_its_model() -> None:
    found = supply.detect("emulated:2:H100,1:a100,1,1:Abacus")
    assert [device.id for device in found.devices] == [f"local/gpu-{at}" for at in range(5)]
    assert [device.model for device in found.devices] == ["H100", "H100", "A100", "emulated", "Abacus"]
    assert [device.memory_mib for device in found.devices] == [81559, 81559, 81920, 16384, 16384]
    assert [device.speed_milli for device in found.devices] == [1000, 1000, 500, 1000, 1000]
    assert [device.mig.name if device.mig else "" for device in found.devices] == [
        "H100-80GB", "H100-80GB", "A100-80GB", "", "",
    ]  # fmt: skip
    assert {device.attributes["productName"] for device in found.devices} == {
        "Emulated NVIDIA H100 80GB HBM3", "Emulated NVIDIA A100-SXM4-80GB", "Emulated", "Emulated Abacus",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        (f"{ATTRIBUTES}.productName.contains('H100')", {"local/gpu-0", "local/gpu-1"}),
        (f"{ATTRIBUTES}.architecture == 'Ampere'", {"local/gpu-2"}),
        (f"{ATTRIBUTES}.type == 'emulated'", {"local/gpu-0", "local/gpu-1", "local/gpu-2"}),
        (f"{ATTRIBUTES}.emulated && {ATTRIBUTES}.migCapable", {"local/gpu-0", "local/gpu-1", "local/gpu-2"}),
        ("device.driver == 'gpu.nvidia.com'", set()),
        (f"{ATTRIBUTES}.speedMilli >= 1000", {"local/gpu-0", "local/gpu-1"}),
        ("device.capacity['gpu.nvidia.com'].memory > 80 * 1024 * 1024 * 1024 - 1", {"local/gpu-2"}),
    ],
)
def test_selectors_choose_among_emulated_models(expression: str, chosen: set[str]) -> None:
    assert selector.eligible(expression, supply.detect("emulated:2:H100,1:A100").devices) == frozenset(chosen)


@pytest.mark.parametrize(
    "gpus", ["", "emulated", "emulated:", "emulated:2:", "emulated:1,", "2:H100", "gpu:1"]
)
def test_what_is_no_supply_is_refused_with_an_example(gpus: str) -> None:
    with pytest.raises(Invalid, match="such as emulated:4:A100 or emulated:2:H100,2:A100"):
        supply.detect(gpus)


@pytest.mark.parametrize("gpus", ["emulated:0", "emulated:65", "emulated:40,25", "emulated:1,0:H100"])
def test_no_device_and_very_many_are_refused(gpus: str) -> None:
    with pytest.raises(Invalid, match="between 1 and 64"):
        supply.detect(gpus)


def test_enforcement_is_said_as_it_is() -> None:
    whole, part = Share("d", 1000, 1), Share("d", 500, 1)
    cut = Share("d", 142, 1, MigInstance("1g.10gb", 0))
    emulated = supply.detect("emulated:1:H100")
    assert {emulated.enforcement_of([each]) for each in (whole, part, cut)} == {"emulated"}
    real = supply.Supply(emulated.devices, "timeslice", 1000, 1000)
    assert [real.enforcement_of([each]) for each in (whole, part, cut)] == ["exclusive", "timeslice", "mig"]


def test_a_pools_own_speeds_hold_and_are_what_selectors_see() -> None:
    devices = supply.detect("emulated:1:H100,1:A100").devices
    pool = read_pool({"metadata": {"name": "default"}, "spec": {"speeds": {"A100": 1200}}}, devices)
    assert [device.speed_milli for device in pool.devices] == [1000, 1200]
    assert selector.eligible(f"{ATTRIBUTES}.speedMilli > 1000", pool.devices) == frozenset({"local/gpu-1"})
    with pytest.raises(Invalid, match="between 1 and 1000000"):
        read_pool({"metadata": {"name": "default"}, "spec": {"speeds": {"A100": 0}}}, devices)


def test_a_pool_says_what_winners_pay_and_how_far_its_reserve_may_rise() -> None:
    pool = read_pool({"metadata": {"name": "default"}}, ())
    assert (pool.rules.payments, pool.reserve_max_micros) == ("uniform", 100_000)
    spec = {"payments": "critical", "reservePrice": "0.20", "reservePriceMax": "0.90"}
    pool = read_pool({"metadata": {"name": "default"}, "spec": spec}, ())
    assert (pool.rules.payments, pool.reserve_max_micros) == ("critical", 900_000)


def published(gpus: str) -> list[dict[str, Any]]:
    found = resource_slices(supply.detect(gpus))
    for number, each in enumerate(found):
        stored = {
            **each,
            "metadata": {**each["metadata"], "uid": str(number), "creationTimestamp": rfc3339(0)},
        }
        assert validation.validate(for_fleet()["resourceslices.resource.k8s.io"], stored, None) == []
    return found


def test_slices_of_devices_that_are_not_cut_are_one() -> None:
    (only,) = published("emulated:3")
    assert only["spec"]["driver"] == "emulated.walras.dev"
    assert [device["name"] for device in only["spec"]["devices"]] == ["gpu-0", "gpu-1", "gpu-2"]
    assert only["spec"]["devices"][0]["attributes"]["emulated"] == {"bool": True}


def test_slices_keep_kubernetes_bounds_however_many_devices_there_are() -> None:
    found = published("emulated:64:H100")
    assert {each["spec"]["pool"]["resourceSliceCount"] for each in found} == {len(found)}
    for each in found:
        devices, counters = each["spec"].get("devices"), each["spec"].get("sharedCounters")
        assert (devices is None) != (counters is None), "a slice has one of the two"
        assert len(devices or ()) <= 64
        assert len(counters or ()) <= 8
    names = [device["name"] for each in found for device in each["spec"].get("devices", ())]
    assert len(set(names)) == len(names) == 64 + 64 * 25


SLICES = {
    model: {device["name"]: device for each in published(f"emulated:1:{model}")
            for device in each["spec"].get("devices", ())}
    for model in ("H100", "A30")
}  # fmt: skip


@given(st.data(), st.sampled_from(sorted(SLICES)))
def test_instances_fit_together_by_their_counters_as_they_do_by_their_slices(
    data: st.DataObject, model: str
) -> None:
    geometry = GEOMETRIES["H100-80GB" if model == "H100" else "A30"]
    instances = [each for each in SLICES[model].values() if each["attributes"]["type"]["string"] == "mig"]
    chosen = data.draw(st.lists(st.sampled_from(instances), max_size=4, unique_by=lambda each: each["name"]))
    used = Counter(name for each in chosen for name in each["consumesCounters"][0]["counters"])
    fit = all(count == 1 for count in used.values())
    cuts = [each["attributes"]["placement"]["string"].split("@") for each in chosen]
    try:
        state_of(geometry, [MigInstance(profile, int(start)) for profile, start in cuts])
    except Invalid:
        assert not fit
    else:
        assert fit
        assert sum(each["attributes"]["milliGPU"]["int"] for each in chosen) <= 1000
    assert set(used) <= set(SLICES[model]["gpu-0"]["consumesCounters"][0]["counters"])


@pytest.mark.parametrize("name", sorted(GEOMETRIES))
def test_all_that_one_device_holds_is_never_sold_as_more_than_a_device(name: str) -> None:
    geometry = GEOMETRIES[name]

    def most(state: int) -> int:
        """Milli-GPU of the instances that still fit, by trying all of them."""
        found = 0
        for profile in geometry.profiles:
            for start in free_starts(geometry, state, profile.name):
                taken = state_of(geometry, [MigInstance(profile.name, start)])
                key = state | taken
                if key not in known:
                    known[key] = most(key)
                found = max(found, geometry.sold_milli(profile.name) + known[key])
        return found

    known: dict[int, int] = {}
    assert 990 <= most(0) <= 1000
    with pytest.raises(Invalid, match="no MIG profile"):
        geometry.sold_milli("9g.1gb")


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the kernel says of where cards are."""
    for at, node in (("0000:01:00.0", "0"), ("0000:02:00.0", "1"), ("0000:03:00.0", "-1")):
        (tmp_path / at).mkdir()
        (tmp_path / at / "numa_node").write_text(f"{node}\n")
    monkeypatch.setattr(supply, "_PCI", tmp_path)


@pytest.mark.usefixtures("bus")
def test_cards_are_found_with_their_place_speed_and_geometry() -> None:
    with cards_here("H100", "H100", "T4") as (_, here):
        found = supply.of_machine(here)
    assert (found.enforcement, found.driver, len(found.devices)) == ("mps", "simulated.walras.dev", 3)
    first, second, alone = found.devices
    assert first.model == "H100"
    assert str(first.attributes["uuid"]).startswith("GPU-")
    assert (first.attributes["emulated"], first.attributes["simulated"]) == (False, True)
    assert (first.speed_milli, second.speed_milli, alone.speed_milli) == (1000, 1000, 80)
    assert (alone.model, alone.attributes["cudaComputeCapability"]) == ("T4", "7.5.0")
    assert [device.place.nvlink for device in found.devices] == ["local/0", "local/0", ""]
    assert [device.place.numa for device in found.devices] == [0, 1, 0]
    assert [device.mig.name if device.mig else "" for device in found.devices] == ["H100-80GB"] * 2 + [""]
    assert all("Simulated" in str(device.attributes["productName"]) for device in found.devices)


def test_a_card_that_is_too_old_for_mps_has_all_shared_by_time_slices() -> None:
    with cards_here("V100", "P100") as (_, here):
        assert supply.of_machine(here).enforcement == "timeslice"


def test_an_operator_may_prefer_time_slices() -> None:
    with driver():
        found = supply.detect("simulated:1:H100", by_mps=False)
        assert found.enforcement == "timeslice"
        assert found.machine is not None
        found.machine.close()


def test_a_card_of_an_unknown_model_counts_as_the_slowest() -> None:
    assert supply.speed_of("NVIDIA Z900") == min(SPEED_MILLI.values())


def test_without_cards_two_devices_are_emulated() -> None:
    with driver():
        found = supply.detect("auto")
    assert found.emulated
    assert found.machine is None
    assert [device.model for device in found.devices] == [MODELS["emulated"].name] * 2


@pytest.mark.parametrize("gpus", ["simulated:1", "simulated:1:Abacus"])
def test_cards_are_simulated_by_known_model(gpus: str) -> None:
    with pytest.raises(Invalid, match="simulated by model, such as simulated:2:H100,1:A30"):
        supply.detect(gpus)
