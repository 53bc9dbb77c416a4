"""Which networks an instance may ask for: the pods' of its agent, which its guest is in anyway. Pure."""

from __future__ import annotations

from typing import Final

from walras.core.errors import Invalid
from walras.tenants.objects import Object

_DEVICES: Final = "spec.domain.devices"
# Ways to it that come to the same here: the guest has the pod's address.
_BINDINGS: Final = frozenset(("masquerade", "bridge"))
_OTHER_BINDINGS: Final = frozenset(("slirp", "sriov", "macvtap", "passt", "passtBinding", "deprecatedSlirp",
                                    "deprecatedMacvtap", "deprecatedPasst", "binding"))  # fmt: skip


def check_networks(spec: Object) -> None:
    """Raises Invalid for what is not offered."""
    devices = spec["domain"]["devices"]
    networks, interfaces = spec.get("networks") or [], devices.get("interfaces") or []
    if devices.get("autoattachPodInterface") is False:
        raise Invalid(f"{_DEVICES}.autoattachPodInterface: a guest is always in its agent's network")
    if len(networks) > 1 or len(interfaces) > 1:
        raise Invalid("spec.networks: a guest has one network, that of its agent's pods")
    for network in networks:
        if network.get("pod") is None:
            kind = next((key for key in network if key != "name"), "of no type")
            raise Invalid(
                f"spec.networks: {network['name']} ({kind}): there is only the pods' network, pod: {{}}"
            )
    if [each["name"] for each in networks] != [each["name"] for each in interfaces]:
        raise Invalid(f"spec.networks: each has an interface of its name in {_DEVICES}.interfaces")
    for interface in interfaces:
        other = sorted(_OTHER_BINDINGS & interface.keys())
        if other or not _BINDINGS & interface.keys():
            said = other[0] if other else "of no type"
            raise Invalid(f"{_DEVICES}.interfaces: {interface['name']} ({said}): use masquerade or bridge")
