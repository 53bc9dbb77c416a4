"""What a container of the engine is made from. Pure."""

from __future__ import annotations

from typing import Any, Final

from walras.runtimes.base import ContainerSpec, Limits, Security
from walras.runtimes.cgroups import bandwidth, shares
from walras.runtimes.security import capabilities

MARK: Final = "dev.walras.server"
CONTAINER: Final = "container:"
SHM_BYTES: Final = 64 << 20


def body(
    spec: ContainerSpec, *, mark: str, network: str, parent: str, devices: tuple[str, ...]
) -> dict[str, Any]:
    """The body of a create call.

    `network`: the mode in which it joins the pod's; `parent`: the control group to be in, "" for the engine's
    own.
    """
    host: dict[str, Any] = {
        "NetworkMode": network,
        "Mounts": [
            {
                "Type": "bind",
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": mount.read_only,
                "BindOptions": {"Propagation": "rprivate"},
            }
            for mount in spec.mounts
        ],
        "CapDrop": ["ALL"],
        "CapAdd": capabilities(spec.security),
        "SecurityOpt": ["no-new-privileges"] if spec.security.no_new_privileges else [],
        "ReadonlyRootfs": spec.security.read_only_root,
        "GroupAdd": [str(each) for each in spec.security.groups],
        "Devices": [_device(each) for each in devices],
        "LogConfig": {"Type": "none"},
        "ShmSize": SHM_BYTES,
        "RestartPolicy": {"Name": "no"},
    }
    if parent:
        host["CgroupParent"] = parent
        host |= _cpu(spec.limits)
    if spec.limits.memory_bytes is not None:
        host["Memory"] = host["MemorySwap"] = spec.limits.memory_bytes
    if spec.limits.pids is not None:
        host["PidsLimit"] = spec.limits.pids
    made: dict[str, Any] = {
        "Image": spec.image_id,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Cmd": list(spec.args),
        "WorkingDir": spec.working_dir,
        "User": user(spec.security),
        "Tty": spec.tty,
        "OpenStdin": spec.stdin,
        "StdinOnce": spec.stdin and spec.stdin_once,
        "AttachStdin": spec.stdin,
        "AttachStdout": True,
        "AttachStderr": not spec.tty,
        "Labels": {MARK: mark},
        "HostConfig": host,
    }
    if not network.startswith(CONTAINER):
        # Who joins a container has its name.
        made["Hostname"] = spec.pod.name[:63]
    if spec.command:
        made["Entrypoint"] = list(spec.command)
    return made


def _cpu(limits: Limits) -> dict[str, int]:
    """As in the group that it is put into, for programs that look at their own."""
    found = {}
    if limits.cpu_milli is not None:
        share = bandwidth(limits.cpu_milli, limits.period_us)
        found = {"CpuPeriod": share.period_us, "CpuQuota": share.quota_us}
    if limits.weighs_milli is not None:
        found["CpuShares"] = shares(limits.weighs_milli)
    return found


def _device(name: str) -> dict[str, str]:
    """A device file, or a device by its CDI name."""
    return {"PathOnHost": name, "PathInContainer": name, "CgroupPermissions": "rwm"}


def user(security: Security) -> str:
    """ "" for the image's own."""
    if security.user is None and security.group is None:
        return ""
    uid = "0" if security.user is None else str(security.user)
    return uid if security.group is None else f"{uid}:{security.group}"
