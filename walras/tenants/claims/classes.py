"""The DeviceClasses that every agent's cluster has, as NVIDIA's DRA driver defines them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from walras.devices.models import DOMAIN
from walras.devices.request import WHOLE
from walras.tenants.objects import Object

GPU_CLASS: Final = DOMAIN
MIG_CLASS: Final = "mig.nvidia.com"
_OF_TYPE: Final = "device.driver == '{driver}' && device.attributes['{driver}'].type == '{type}'"


def device_classes() -> Iterator[Object]:
    """Whole devices and shares of them are of type gpu, MIG instances of type mig."""
    for name, kind, resource in ((GPU_CLASS, "gpu", WHOLE), (MIG_CLASS, "mig", "")):
        expression = _OF_TYPE.format(driver=DOMAIN, type=kind)
        spec: Object = {"selectors": [{"cel": {"expression": expression}}]}
        if resource:
            spec["extendedResourceName"] = resource
        yield {"metadata": {"name": name}, "spec": spec}
