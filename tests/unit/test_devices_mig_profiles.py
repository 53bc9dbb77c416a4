"""MIG tables against what NVIDIA publishes: the user guide's rows and the text of nvidia-smi."""

from __future__ import annotations

import re

import pytest
from support import docs

from walras.core.errors import Invalid
from walras.devices.classes import SPEED_MILLI
from walras.devices.mig_profiles import GEOMETRIES, MigProfile, geometry_of, share_of
from walras.devices.models import MODELS
from walras.devices.placement import Shape

# `nvidia-smi mig -lgip`: name, instances, GiB. Of several drivers the least.
LGIP = {
    "A30": """
        1g.6gb 4 5.69    1g.6gb+me 1 5.69    2g.12gb 2 11.39    2g.12gb+me 1 11.39    4g.24gb 1 22.79""",
    "A100-40GB": """
        1g.5gb 7 4.75    1g.5gb+me 1 4.75    1g.10gb 4 9.62    2g.10gb 3 9.62
        3g.20gb 2 19.50    4g.20gb 1 19.50    7g.40gb 1 39.25""",
    "A100-80GB": """
        1g.10gb 7 9.50    1g.10gb+me 1 9.50    1g.20gb 4 19.50    2g.20gb 3 19.50
        3g.40gb 2 39.25    4g.40gb 1 39.25    7g.80gb 1 78.50""",
    "H100-80GB": """
        1g.10gb 7 9.75    1g.10gb+me 1 9.75    1g.20gb 4 19.62    2g.20gb 3 19.62
        3g.40gb 2 39.50    4g.40gb 1 39.50    7g.80gb 1 79.25""",
    "H100-94GB": """
        1g.12gb 7 10.75    1g.12gb+me 1 10.75    1g.24gb 4 21.62    2g.24gb 3 21.62
        3g.47gb 2 46.37    4g.47gb 1 46.37    7g.94gb 1 93.12""",
    "H100-96GB": """
        1g.12gb 7 11.00    1g.12gb+me 1 11.00    1g.24gb 4 23.00    2g.24gb 3 23.00
        3g.48gb 2 46.50    4g.48gb 1 46.50    7g.96gb 1 93.00""",
    "H200-141GB": """
        1g.18gb 7 16.00    1g.18gb+me 1 16.00    1g.35gb 4 32.50    2g.35gb 3 32.50
        3g.71gb 2 69.75    4g.71gb 1 69.75    7g.141gb 1 140.00""",
    "B200-180GB": """
        1g.23gb 7 20.50    1g.23gb+me 1 20.50    1g.45gb 4 41.00    2g.45gb 3 41.00
        3g.90gb 2 82.00    4g.90gb 1 82.00    7g.180gb 1 164.00""",
}

# `nvidia-smi mig -lgipp`: {starts}:memory slices, by the digit before g and whether it has the memory of 2g.
LGIPP = {
    "1g": "{0,1,2,3,4,5,6}:1",
    "1g wide": "{0,2,4,6}:2",
    "2g": "{0,2,4}:2",
    "3g": "{0,4}:4",
    "4g": "{0}:4",
    "7g": "{0}:8",
}
A30_LGIPP = {"1g": "{0,1,2,3}:1", "2g": "{0,2}:2", "4g": "{0}:4"}


def rows(text: str) -> dict[str, tuple[int, float]]:
    words = text.split()
    return {
        name: (int(count), float(gib))
        for name, count, gib in zip(words[::3], words[1::3], words[2::3], strict=True)
    }


@pytest.mark.parametrize("name", LGIP)
def test_profiles_are_those_that_nvidia_smi_lists(name: str) -> None:
    geometry, listed = GEOMETRIES[name], rows(LGIP[name])
    assert {each.name for each in geometry.profiles} == set(listed)
    for each in geometry.profiles:
        count, gib = listed[each.name]
        assert each.maximum == count
        assert int(each.memory_mib / 1024 * 100) / 100 == gib
        assert each.media == ("+me" in each.name)


def lgipp_row(name: str, profile: MigProfile) -> str:
    if name == "A30":
        return A30_LGIPP[profile.name[:2]]
    wide = profile.name.startswith("1g.") and profile.memory_slices == 2
    return LGIPP["1g wide" if wide else profile.name[:2]]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_starts_are_those_that_nvidia_smi_prints(name: str) -> None:
    for each in GEOMETRIES[name].profiles:
        starts = ",".join(str(start) for start in each.starts)
        assert f"{{{starts}}}:{each.memory_slices}" == lgipp_row(name, each)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_names_tell_slices_and_about_the_memory(name: str) -> None:
    for each in GEOMETRIES[name].profiles:
        parts = re.fullmatch(r"(\d)g\.(\d+)gb(\+me)?", each.name)
        assert parts
        assert int(parts[1]) == each.compute_slices
        assert 0.87 * int(parts[2]) <= each.memory_mib / 1024 <= int(parts[2])


def test_a_profile_is_worth_its_part_of_the_compute_rounded_up() -> None:
    h100 = GEOMETRIES["H100-80GB"]
    assert [each.milli for each in h100.profiles] == [1000, 572, 429, 286, 143, 143, 143]
    assert [each.size_milli for each in h100.profiles] == [1000, 572, 500, 286, 250, 143, 143]
    assert [each.milli for each in GEOMETRIES["A30"].profiles] == [1000, 500, 500, 250, 250]


def test_no_device_has_more_memory_in_instances_than_in_all() -> None:
    for model in MODELS.values():
        geometry = geometry_of(model.name)
        for each in geometry.profiles if geometry else ():
            assert each.maximum * each.memory_mib <= model.memory_mib


def test_geometry_goes_by_model() -> None:
    of = {name: geometry.name for name in MODELS if (geometry := geometry_of(name))}
    assert of == {
        "A30": "A30",
        "A100-40GB": "A100-40GB",
        "A100": "A100-80GB",
        "A100-PCIe": "A100-80GB",
        "H100": "H100-80GB",
        "H100-PCIe": "H100-80GB",
        "H100-NVL": "H100-94GB",
        "H20": "H100-96GB",
        "GH200": "H100-96GB",
        "H200": "H200-141GB",
        "B200": "B200-180GB",
    }
    assert geometry_of("L4") is None


@pytest.mark.parametrize(
    ("name", "milli", "memory_mib", "nearest"),
    [
        ("H100-80GB", 1, 0, "1g.10gb"),
        ("H100-80GB", 143, 9984, "1g.10gb"),
        ("H100-80GB", 143, 9985, "1g.20gb"),
        ("H100-80GB", 144, 0, "2g.20gb"),
        ("H100-80GB", 250, 0, "2g.20gb"),
        ("H100-80GB", 100, 30000, "3g.40gb"),
        ("H100-80GB", 500, 0, "4g.40gb"),
        ("H100-80GB", 573, 0, "7g.80gb"),
        ("H100-80GB", 1000, 81152, "7g.80gb"),
        ("H100-80GB", 1000, 81153, None),
        ("H100-80GB", 1001, 0, None),
        ("A30", 251, 0, "2g.12gb"),
        ("A30", 500, 12000, "4g.24gb"),
    ],
)
def test_a_share_becomes_the_least_profile_that_holds_it(
    name: str, milli: int, memory_mib: int, nearest: str | None
) -> None:
    found = GEOMETRIES[name].nearest(milli, memory_mib)
    assert (found.name if found else None) == nearest


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    h100 = GEOMETRIES["H100-80GB"]
    assert "3g.40gb" in h100
    assert "3g.20gb" not in h100
    with pytest.raises(Invalid, match=r"no MIG profile of H100-80GB; it has 7g\.80gb, 4g\.40gb"):
        h100["3g.20gb"]
    with pytest.raises(Invalid, match="not a known MIG profile"):
        share_of("9g.1gb")


def test_a_profile_of_several_models_promises_what_the_least_of_them_has() -> None:
    assert share_of("1g.10gb") == Shape(143, 9728)
    assert share_of("1g.12gb+me") == Shape(143, 11008)
    assert share_of("2g.12gb") == Shape(500, 11672)


def test_what_a_device_reports_takes_the_place_of_the_table() -> None:
    b200 = GEOMETRIES["B200-180GB"].measured({"3g.90gb": 91648})
    assert b200["3g.90gb"].share == Shape(429, 91648)
    assert b200["1g.23gb"].memory_mib == 20992


FRACTIONS = docs.DOCS / "concepts" / "fractions.md"


def test_the_page_on_fractions_has_the_same_profiles() -> None:
    said = {row[0]: row[1:] for row in docs.rows(docs.section(FRACTIONS, "MIG"))}
    assert said == {
        each.name: [
            f"{each.compute_slices} / {each.memory_slices}",
            ", ".join(f"`{profile.name}` {profile.memory_mib}" for profile in each.profiles),
        ]
        for each in GEOMETRIES.values()
    }


def test_the_page_on_fractions_has_the_same_speeds() -> None:
    lines = [line for line in docs.section(FRACTIONS, "Device classes").splitlines() if line.startswith("|")]
    models, _, speeds = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert {model: SPEED_MILLI[model] for model in models} == dict(zip(models, map(int, speeds), strict=True))
