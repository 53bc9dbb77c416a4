"""Devices on offer: groups of emulated ones, cards as NVML tells of them, and both as ResourceSlices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.core.clock import rfc3339
from walras.core.errors import Invalid
from walras.devices.mig import MigInstance, free_starts, state_of
from walras.devices.mig_profiles import GEOMETRIES
from walras.devices.models import MODELS
from walras.exchange import nvml, selector, supply
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


def card(name: str, bus: str, memory_mib: int = 81559) -> SimpleNamespace:
    return SimpleNamespace(name=name, bus=bus, memory=memory_mib * 2**20)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[SimpleNamespace]:
    """Cards that the driver's library reports: of the first three, two are linked."""
    cards = [
        card("NVIDIA H100 80GB HBM3", "00000000:17:00.0"),
        card("NVIDIA H100 80GB HBM3", "00000000:65:00.0", 81553),
        card("NVIDIA Z900", "00000000:CA:00.0", 4096),
    ]
    for bus, node in (("0000:17:00.0", "0"), ("0000:65:00.0", "1"), ("0000:ca:00.0", "-1")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "numa_node").write_text(f"{node}\n")
    monkeypatch.setattr(nvml, "_PCI", tmp_path)

    def linked(one: SimpleNamespace, other: SimpleNamespace, what: int) -> int:
        assert what == pynvml.NVML_P2P_CAPS_INDEX_NVLINK
        both = {one.bus[9:11], other.bus[9:11]} == {"17", "65"}
        return int(pynvml.NVML_P2P_STATUS_OK if both else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)

    answers: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(cards),
        "nvmlDeviceGetHandleByIndex": lambda at: cards[at],
        "nvmlDeviceGetName": lambda handle: handle.name,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle.bus[9:11]}",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=handle.memory),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=handle.bus.encode()),
        "nvmlDeviceGetP2PStatus": linked,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return cards


def test_cards_are_found_with_their_place_and_speed(machine: list[SimpleNamespace]) -> None:
    found = supply.detect("auto")
    assert (found.enforcement, found.driver, len(found.devices)) == ("timeslice", "gpu.nvidia.com", 3)
    first, odd, unknown = found.devices
    assert first.model == "H100"
    assert first.attributes["uuid"] == "GPU-17"
    assert first.attributes["emulated"] is False
    # A driver that reports some MiB less makes a card no slower.
    assert (odd.model, odd.memory_mib, odd.speed_milli) == ("H100-80GB-HBM3", 81553, first.speed_milli)
    assert (unknown.model, unknown.attributes["cudaComputeCapability"]) == ("Z900", "9.0.0")
    assert [device.place.nvlink for device in found.devices] == ["local/0", "local/0", ""]
    assert [device.place.numa for device in found.devices] == [0, 1, 0]
    assert all(device.mig is None for device in found.devices), "nothing here cuts real cards yet"


def test_without_cards_two_devices_are_emulated(machine: list[SimpleNamespace]) -> None:
    machine.clear()
    found = supply.detect("auto")
    assert found.emulated
    assert [device.model for device in found.devices] == [MODELS["emulated"].name] * 2
