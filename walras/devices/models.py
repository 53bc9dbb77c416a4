"""Known GPU models: memory as NVML reports it, and attributes as NVIDIA's DRA driver publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from walras.core.errors import Invalid

DOMAIN: Final = "gpu.nvidia.com"  # of the attributes, as in device.attributes["gpu.nvidia.com"].productName
EMULATED: Final = "emulated"
Attributes = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class Model:
    """`name` is the short one used on the command line; `memory_mib` is what NVML reports as total."""

    name: str
    product_name: str
    architecture: str
    compute_capability: str
    memory_mib: int
    brand: str = "Nvidia"

    def attributes(self, uuid: str, index: int, *, emulated: bool = False) -> Attributes:
        """DRA attributes of one device. An emulated one says so in its name and in `emulated`."""
        emulated = emulated or self.name == EMULATED
        prefix = "Emulated " if emulated and self.name != EMULATED else ""
        return {
            "type": "gpu",
            "uuid": uuid,
            "index": index,
            "productName": prefix + self.product_name,
            "brand": self.brand,
            "architecture": self.architecture,
            "cudaComputeCapability": self.compute_capability,
            "memoryMiB": self.memory_mib,
            "emulated": emulated,
        }


_TABLE: Final = (
    Model(EMULATED, "Emulated", "Emulated", "0.0.0", 16384, "Walras"),
    Model("B200", "NVIDIA B200", "Blackwell", "10.0.0", 183359),
    Model("H200", "NVIDIA H200", "Hopper", "9.0.0", 143771),
    Model("H100", "NVIDIA H100 80GB HBM3", "Hopper", "9.0.0", 81559),
    Model("H100-PCIe", "NVIDIA H100 PCIe", "Hopper", "9.0.0", 81559),
    Model("H100-NVL", "NVIDIA H100 NVL", "Hopper", "9.0.0", 95830),
    Model("H20", "NVIDIA H20", "Hopper", "9.0.0", 97871),
    Model("GH200", "NVIDIA GH200 480GB", "Hopper", "9.0.0", 97871),
    Model("A100", "NVIDIA A100-SXM4-80GB", "Ampere", "8.0.0", 81920),
    Model("A100-PCIe", "NVIDIA A100 80GB PCIe", "Ampere", "8.0.0", 81920),
    Model("A100-40GB", "NVIDIA A100-SXM4-40GB", "Ampere", "8.0.0", 40960),
    Model("A40", "NVIDIA A40", "Ampere", "8.6.0", 46068),
    Model("A30", "NVIDIA A30", "Ampere", "8.0.0", 24576),
    Model("A10", "NVIDIA A10", "Ampere", "8.6.0", 23028),
    Model("A10G", "NVIDIA A10G", "Ampere", "8.6.0", 23028),
    Model("L40S", "NVIDIA L40S", "Ada Lovelace", "8.9.0", 46068),
    Model("L40", "NVIDIA L40", "Ada Lovelace", "8.9.0", 46068),
    Model("L4", "NVIDIA L4", "Ada Lovelace", "8.9.0", 23034),
    Model("T4", "Tesla T4", "Turing", "7.5.0", 15360, "Tesla"),
    Model("V100", "Tesla V100-SXM2-16GB", "Volta", "7.0.0", 16384, "Tesla"),
    Model("V100-32GB", "Tesla V100-SXM2-32GB", "Volta", "7.0.0", 32768, "Tesla"),
    Model("P100", "Tesla P100-PCIE-16GB", "Pascal", "6.0.0", 16384, "Tesla"),
    Model("RTX6000Ada", "NVIDIA RTX 6000 Ada Generation", "Ada Lovelace", "8.9.0", 49140, "NvidiaRTX"),
    Model("RTXA6000", "NVIDIA RTX A6000", "Ampere", "8.6.0", 49140, "NvidiaRTX"),
    Model("RTX5090", "NVIDIA GeForce RTX 5090", "Blackwell", "12.0.0", 32607, "GeForce"),
    Model("RTX4090", "NVIDIA GeForce RTX 4090", "Ada Lovelace", "8.9.0", 24564, "GeForce"),
    Model("RTX4080", "NVIDIA GeForce RTX 4080", "Ada Lovelace", "8.9.0", 16376, "GeForce"),
    Model("RTX3090", "NVIDIA GeForce RTX 3090", "Ampere", "8.6.0", 24576, "GeForce"),
    Model("RTX3080", "NVIDIA GeForce RTX 3080", "Ampere", "8.6.0", 10240, "GeForce"),
    Model("RTX3060", "NVIDIA GeForce RTX 3060", "Ampere", "8.6.0", 12288, "GeForce"),
)
MODELS: Final[Mapping[str, Model]] = {model.name: model for model in _TABLE}


def _key(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "").replace("_", "")


_BY_KEY: Final = {_key(model.name): model for model in _TABLE} | {
    _key(model.product_name): model for model in _TABLE
}


def find_model(name: str) -> Model:
    """The model of that short or product name, whatever its case. Raises Invalid naming those there are."""
    model = _BY_KEY.get(_key(name))
    if model is None:
        raise Invalid(f'"{name[:64]}" is not a known GPU model; known are {", ".join(MODELS)}')
    return model


def model_of(product_name: str, memory_mib: int) -> Model:
    """The model of a device that was found, known or not, with the memory that it really has."""
    known = _BY_KEY.get(_key(product_name))
    if known is not None and known.memory_mib == memory_mib:
        return known
    short = product_name.removeprefix("NVIDIA ").replace(" ", "-")
    architecture, capability = (
        (known.architecture, known.compute_capability) if known else ("Unknown", "0.0.0")
    )
    return Model(short, product_name, architecture, capability, memory_mib)
