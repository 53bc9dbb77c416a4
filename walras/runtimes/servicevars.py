"""Variables by which programs find Services, as kubelet sets them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Object = Mapping[str, Any]


def variables(services: Iterable[Object], api: tuple[str, int], *, enabled: bool = True) -> dict[str, str]:
    """Those of the API server at `api` and, if `enabled`, of the `services` of a namespace.

    As getServiceEnvVarMap and k8s.io/kubernetes/pkg/kubelet/envvars.
    """
    found: dict[str, str] = {}
    if enabled:
        for service in services:
            spec = service["spec"]
            address = spec.get("clusterIP")
            ports = [
                (str(port.get("name") or ""), int(port["port"]), str(port.get("protocol") or "TCP"))
                for port in spec.get("ports") or ()
            ]
            if address not in (None, "", "None") and ports:
                found |= _of(str(service["metadata"]["name"]), str(address), ports)
    return found | _of("kubernetes", api[0], [("https", api[1], "TCP")])


def _of(service: str, address: str, ports: list[tuple[str, int, str]]) -> dict[str, str]:
    prefix = _upper(service)
    first = ports[0][1]
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(first)}
    found |= {f"{prefix}_SERVICE_PORT_{_upper(name)}": str(port) for name, port, _ in ports if name}
    for index, (_, port, protocol) in enumerate(ports):
        url = f"{protocol.lower()}://{address}:{port}"
        if index == 0:
            found[f"{prefix}_PORT"] = url
        stem = f"{prefix}_PORT_{port}_{protocol.upper()}"
        found |= {
            stem: url, f"{stem}_PROTO": protocol.lower(), f"{stem}_PORT": str(port), f"{stem}_ADDR": address,
        }  # fmt: skip
    return found


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
