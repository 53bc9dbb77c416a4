"""The table of GPU models."""

from __future__ import annotations

import pytest

from walras.core.errors import Invalid
from walras.devices.models import MODELS, find_model, model_of


@pytest.mark.parametrize("name", ["H100", "h100", "NVIDIA H100 80GB HBM3", "rtx4090", "RTX-4090", "emulated"])
def test_a_model_is_found_by_short_or_product_name(name: str) -> None:
    assert find_model(name).memory_mib > 0


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(Invalid, match="known are emulated, B200"):
        find_model("Voodoo2")


def test_every_model_is_its_own_and_has_plausible_memory() -> None:
    assert len({model.product_name for model in MODELS.values()}) == len(MODELS)
    for name, model in MODELS.items():
        assert find_model(name) is find_model(model.product_name) is model
        assert 8 * 1024 <= model.memory_mib <= 200 * 1024


def test_attributes_are_those_of_the_dra_driver() -> None:
    attributes = find_model("A100").attributes("GPU-1", 3)
    assert attributes["productName"] == "NVIDIA A100-SXM4-80GB"
    assert attributes["architecture"] == "Ampere"
    assert attributes["uuid"] == "GPU-1"
    assert attributes["emulated"] is False


def test_an_emulated_device_never_passes_for_a_real_one() -> None:
    attributes = find_model("A100").attributes("x", 0, emulated=True)
    assert attributes["productName"] == "Emulated NVIDIA A100-SXM4-80GB"
    assert attributes["emulated"] is True
    assert find_model("emulated").attributes("x", 0)["emulated"] is True


def test_a_device_that_was_found_keeps_the_memory_it_has() -> None:
    assert model_of("NVIDIA L4", 23034) is MODELS["L4"]
    odd = model_of("NVIDIA L4", 22000)
    assert (odd.memory_mib, odd.architecture) == (22000, "Ada Lovelace")
    unknown = model_of("NVIDIA Z900 Ti", 1000)
    assert (unknown.name, unknown.architecture) == ("Z900-Ti", "Unknown")
