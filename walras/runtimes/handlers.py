"""Which runtimes a server has on this machine, and why not the others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from walras.core.errors import Invalid
from walras.runtimes.base import PodRuntime
from walras.runtimes.dispatch import Runtimes
from walras.runtimes.network.networks import Networks
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.shares import Shares
from walras.runtimes.vm import parts
from walras.runtimes.vm.qemu import OVERHEAD

PROCESS: Final = "process"
CONTAINER: Final = "container"
VM: Final = "vm"
HANDLERS: Final = (PROCESS, CONTAINER, VM)


@dataclass(frozen=True, slots=True)
class Offer:
    """A runtime by its handler. `make` is None where it is not to be had; `detail` says what or why not."""

    handler: str
    make: Callable[[Shares], PodRuntime] | None
    detail: str
    advice: str = ""
    # What a pod takes beside its containers, by resource.
    overhead: Mapping[str, str] = field(default_factory=dict)


def offers(data_dir: Path, engine: Path | None = None) -> list[Offer]:
    """What there is for each handler. Looks at what is installed, starts nothing.

    `engine`: the socket of one that runs containers; without it the server starts its own.
    """
    return [
        Offer(PROCESS, lambda shares: ProcessRuntime(data_dir, shares=shares), "programs of this machine"),
        _container(data_dir, engine),
        _vm(data_dir),
    ]


def _container(data_dir: Path, engine: Path | None) -> Offer:
    if engine is not None and os.geteuid() == 0:

        def given(shares: Shares) -> PodRuntime:
            from walras.runtimes.engine.runtime import ContainerRuntime  # noqa: PLC0415

            return ContainerRuntime(data_dir, socket=engine, shares=shares)

        return Offer(CONTAINER, given, f"images, run by the engine at {engine}")
    # Where there are both, the one that runs on all versions of control groups.
    programs = [name for name in ("runc", "crun") if shutil.which(name)]
    missing = [name for name, there in (("podman", shutil.which("podman")), ("runc", programs)) if not there]
    if missing:
        names = " and ".join(missing)
        return Offer(CONTAINER, None, f"{names} not found", f"install {names}; podman 4 or later")
    if os.geteuid() != 0:
        return Offer(CONTAINER, None, "not running as root", "run the server as root")

    def container(shares: Shares) -> PodRuntime:
        # Only servers that run containers load what talks to an engine.
        from walras.runtimes.engine.runtime import ContainerRuntime  # noqa: PLC0415

        return ContainerRuntime(data_dir, program=programs[0], shares=shares)

    return Offer(CONTAINER, container, f"images, run by podman with {programs[0]}")


def _vm(data_dir: Path) -> Offer:
    found, missing = parts.find()
    if found is None:
        return Offer(VM, None, missing, parts.ADVICE)

    def vm(shares: Shares) -> PodRuntime:
        # Only servers with QEMU load what runs it.
        from walras.runtimes.vm.runtime import VmRuntime  # noqa: PLC0415

        return VmRuntime(data_dir, found, shares=shares)

    return Offer(VM, vm, f"QEMU with Linux {found.kernel.version}", overhead=OVERHEAD)


def runtimes(data_dir: Path, default: str, found: list[Offer]) -> Runtimes:
    """Everything that is `found`. Raises Invalid when `default` is not."""
    chosen = next(each for each in found if each.handler == default)
    if chosen.make is None:
        advice = f": {chosen.advice}" if chosen.advice else ""
        raise Invalid(f"--runtime {default}: {chosen.detail}{advice}")
    made = [each for each in found if each.make is not None]
    one_path = any(each.handler == CONTAINER for each in made)
    shares = Shares(data_dir, one_path=one_path, networks=Networks())
    return Runtimes(shares, {each.handler: each.make(shares) for each in made if each.make}, default)
