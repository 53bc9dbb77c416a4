"""Classes, speeds and attributes of devices."""

from __future__ import annotations

import pytest

from walras.core.errors import Invalid
from walras.devices.classes import (
    SPEED_MILLI,
    DeviceClass,
    device_classes,
    gpu_attributes,
    mig_attributes,
    mig_counters,
    place_of,
    slice_name,
    slice_names,
    speed_milli,
)
from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import GEOMETRIES
from walras.devices.models import MODELS
from walras.devices.topology import Place

# Dense 16-bit tensor TFLOPS and memory bandwidth in GB/s, from NVIDIA's data sheets.
DATA_SHEETS = {
    "B200": (2250, 8000),
    "H200": (989, 4800),
    "GH200": (990, 4000),
    "H100": (989, 3350),
    "H100-NVL": (835, 3900),
    "H100-PCIe": (756, 2000),
    "H20": (148, 4000),
    "A100": (312, 2039),
    "A100-PCIe": (312, 1935),
    "A100-40GB": (312, 1555),
    "A40": (150, 696),
    "A30": (165, 933),
    "A10": (125, 600),
    "A10G": (70, 600),
    "L40S": (362, 864),
    "L40": (181, 864),
    "L4": (121, 300),
    "T4": (65, 320),
    "V100": (125, 900),
    "V100-32GB": (125, 900),
    "P100": (19, 732),
    "RTX6000Ada": (364, 960),
    "RTXA6000": (155, 768),
    "RTX5090": (210, 1792),
    "RTX4090": (165, 1008),
    "RTX4080": (97, 717),
    "RTX3090": (71, 936),
    "RTX3080": (60, 760),
    "RTX3060": (26, 360),
}


@pytest.mark.parametrize("model", DATA_SHEETS)
def test_a_default_speed_lies_between_what_compute_and_bandwidth_allow(model: str) -> None:
    ratios = sorted(
        its * 1000 / h100 for its, h100 in zip(DATA_SHEETS[model], DATA_SHEETS["H100"], strict=True)
    )
    assert ratios[0] * 0.95 <= SPEED_MILLI[model] <= ratios[1] * 1.05


def test_every_model_has_a_default_speed() -> None:
    assert set(SPEED_MILLI) == set(MODELS) == {"emulated", *DATA_SHEETS}


def test_the_pool_may_say_how_fast_a_model_is() -> None:
    assert speed_milli("A100") == 500
    assert speed_milli("A100", {"A100": 620}) == 620
    assert speed_milli("Z900-Ti") == min(SPEED_MILLI.values())
    assert speed_milli("Z900-Ti", {"Z900-Ti": 3000}) == 3000
    for nonsense in (0, -1, 1_000_001):
        with pytest.raises(Invalid, match="must be between 1 and 1000000 milli"):
            speed_milli("A100", {"A100": nonsense})


def test_work_and_share_go_into_each_other() -> None:
    a100 = DeviceClass("A100", frozenset({"A100"}), 500)
    assert a100.work_milli(1000) == 500
    assert a100.share_for(500) == 1000
    assert a100.share_for(501) == 1002
    l4 = DeviceClass("L4", frozenset({"L4"}), 120)
    for work in range(1, 500):
        assert l4.work_milli(l4.share_for(work)) >= work > l4.work_milli(l4.share_for(work) - 1)


def test_without_groups_each_model_is_a_class() -> None:
    classes = device_classes()
    assert set(classes) == set(MODELS)
    assert classes["L4"] == DeviceClass("L4", frozenset({"L4"}), 120)


def test_a_class_is_as_fast_as_its_slowest_model() -> None:
    classes = device_classes({"A100": "big", "H100": "big", "L4": "small"}, {"A100": 600})
    assert classes["big"].speed_milli == 600
    assert classes["big"].has("H100")
    assert not classes["small"].has("H100")


def test_attributes_tell_what_selectors_ask() -> None:
    attributes = gpu_attributes(MODELS["H100"], "GPU-1", 0, Place("n", "nvl-3", 1))
    assert attributes["productName"] == "NVIDIA H100 80GB HBM3"
    assert attributes["migCapable"] is True
    assert attributes["speedMilli"] == 1000
    assert (attributes["nvlinkDomain"], attributes["numaNode"]) == ("nvl-3", 1)
    assert place_of("n", attributes) == Place("n", "nvl-3", 1)
    assert place_of("n", {}) == place_of("n", {"numaNode": "?"}) == Place("n")
    slow = gpu_attributes(MODELS["L4"], "GPU-2", 1, Place("n"), speed=90, emulated=True)
    assert (slow["migCapable"], slow["speedMilli"], slow["emulated"]) == (False, 90, True)


def test_an_instance_tells_its_profile_and_parent() -> None:
    geometry, instance = GEOMETRIES["H100-80GB"], MigInstance("2g.20gb", 4)
    parent = gpu_attributes(MODELS["H100"], "GPU-1", 0, Place("n"))
    attributes = mig_attributes(parent, geometry, instance)
    assert attributes["type"] == "mig"
    assert (attributes["profile"], attributes["parentUUID"]) == ("2g.20gb", "GPU-1")
    assert attributes["uuid"] != "GPU-1"
    assert attributes["placement"] == "2g.20gb@4"
    assert (attributes["memoryMiB"], attributes["milliGPU"]) == (20096, 285)


def test_instances_consume_counters_that_do_not_overlap() -> None:
    h100 = GEOMETRIES["H100-80GB"]
    assert mig_counters(h100, MigInstance("2g.20gb", 4)) == {"memory-slice-4": 1, "memory-slice-5": 1}
    assert mig_counters(h100, MigInstance("1g.10gb+me", 6)) == {"memory-slice-6": 1, "media-extensions": 1}
    with pytest.raises(Invalid, match="cannot start at slice 1"):
        mig_counters(h100, MigInstance("2g.20gb", 1))


def test_slices_name_devices_and_their_instances_and_number_parts_of_one_device() -> None:
    assert slice_name(3) == "gpu-3"
    assert slice_name(3, "1g.10gb+me@4") == "gpu-3-mig-1g10gb-me-4"
    parts = [(0, ""), (1, ""), (0, ""), (0, "1g.10gb@0"), (0, "")]
    assert slice_names(parts) == ["gpu-0", "gpu-1", "gpu-0-part-2", "gpu-0-mig-1g10gb-0", "gpu-0-part-3"]
