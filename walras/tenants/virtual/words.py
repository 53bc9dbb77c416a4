"""Names that KubeVirt's objects and their pods have in common. Pure."""

from __future__ import annotations

from typing import Final

MACHINES: Final = "virtualmachines.kubevirt.io"
INSTANCES: Final = "virtualmachineinstances.kubevirt.io"
API_VERSION: Final = "kubevirt.io/v1"

# On launcher pods.
APP_LABEL: Final = "kubevirt.io"
CREATED_BY: Final = "kubevirt.io/created-by"
NAME_LABEL: Final = "vm.kubevirt.io/name"
DOMAIN: Final = "kubevirt.io/domain"
LAUNCHER: Final = "virt-launcher"
COMPUTE: Final = "compute"
RUNTIME_CLASS: Final = "vm"

# What KubeVirt calls the network of an instance that names none.
DEFAULT_NETWORK: Final = "default"

# A condition of the pod, by which it is not ready while its machine is held.
UNPAUSED: Final = "kubevirt.io/virtual-machine-unpaused"

# Keeps an instance until its pod is gone.
FINALIZER: Final = "foregroundDeleteVirtualMachine"

# Where the vm runtime looks for disks, as in KubeVirt's launchers; their sizes are in the variable.
DISKS: Final = "/var/run/kubevirt-private/vmi-disks"
DISKS_VARIABLE: Final = "WALRAS_DISKS"
# A disk is one of these files in its directory.
DISK_RAW: Final = "disk.img"
DISK_QCOW2: Final = "disk.qcow2"
# Where the guest's first program looks for cloud-init's data: of the instance, and of a Secret.
SEED: Final = "/var/lib/cloud/seed/nocloud"
SEED_APART: Final = "/var/lib/cloud/seed/secret"
FIRST_PROGRAM: Final = ("python3", "/run/walras/cloud_init.py")
SEED_ANNOTATION: Final = "seed.kubevirt.io/"


def label_value(name: str) -> str:
    """As much of an object's name as a label takes."""
    return name[:63].rstrip("-.")
