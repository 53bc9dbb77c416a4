"""What the process runtime can and cannot enforce on this machine, for `walras doctor`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.runtimes.cgroups_detect import Detected, detect
from walras.runtimes.gpus.cards import CardError
from walras.runtimes.gpus.mps import PROGRAM
from walras.runtimes.gpus.nvml import Nvml
from walras.runtimes.handlers import CONTAINER, VM, Offer, offers
from walras.runtimes.network.networks import Networks
from walras.runtimes.probe import Probed, probe
from walras.runtimes.spawn import Spawner
from walras.runtimes.vm import acceleration, parts

_PODMAN_MIN: Final = 4
_OPEN_FILES_WANTED: Final = 4096
_ABILITIES: Final = {
    "cpu": ("CPU shares", "shares are kept by stopping processes that are ahead, which is coarse"),
    "memory": (
        "memory limits",
        "a pod can take memory that others need; the limit holds for each process alone",
    ),
    "pids": ("process limits", "they hold for each pod only in a sandbox of its own user namespace"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One ability: whether it is there, what was found, and what to do where it is not."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def checks(data_dir: Path) -> list[Check]:
    """Tries everything for real, beside a server that may be running on `data_dir`. Needs no event loop."""
    mark = hashlib.sha256(f"{data_dir.resolve()}/{os.getpid()}".encode()).hexdigest()[:12]
    detected = detect(f"walras-check-{mark}")
    if detected.groups is not None:
        with suppress(OSError):
            detected.groups.remove(())
    found = asyncio.run(_probe(detected, data_dir))
    networks = asyncio.run(_network(found))
    return [
        _linux(), *_sandbox(found), networks, *_groups(detected), _open_files(), *_runtimes(data_dir),
        _cards(),
    ]  # fmt: skip


async def _probe(detected: Detected, data_dir: Path) -> Probed:
    spawner = Spawner()
    try:
        return await probe(spawner, None, detected, data_dir, None)
    finally:
        spawner.close()


async def _network(found: Probed) -> Check:
    if found.sandbox.mode == "plain":
        return Check("pod network", False, "pods use this machine's network", "see sandbox")
    networks = Networks()
    await networks.open()
    missing, no_taps = networks.missing, networks.no_taps
    await networks.close()
    if not missing:
        words = ["addresses, Services and names, each agent for itself", *([no_taps] if no_taps else [])]
        return Check("pod network", True, "; ".join(words))
    advice = "run as root, or allow user namespaces and install util-linux"
    return Check("pod network", False, missing, "load nf_tables" if "nf_tables" in missing else advice)


def _linux() -> Check:
    good = sys.platform == "linux" and hasattr(os, "pidfd_open")
    return Check("kernel", good, f"{os.uname().sysname} {os.uname().release}", "Linux 5.4 or later is needed")


def _sandbox(found: Probed) -> Iterator[Check]:
    mode = found.sandbox.mode
    said = "; ".join(note for note in found.notes if note.startswith(("sandbox", "bubblewrap")))
    if mode == "plain":
        advice = "install bubblewrap (bwrap)" if not found.sandbox.tools.bwrap else "allow user namespaces"
        yield Check("sandbox", False, said, f"{advice}: until then run only programs that you trust")
        return
    whose = "each agent under a user of its own" if mode == "root" else "all agents under the server's user"
    yield Check("sandbox", True, f"bubblewrap, own files, processes and network; {whose}")
    if mode == "user":
        yield Check("user separation", False, said or "not running as root", "run the server as root")


def _groups(detected: Detected) -> Iterator[Check]:
    groups = detected.groups
    for controller, (name, loss) in _ABILITIES.items():
        if groups is not None and controller in groups.controllers:
            yield Check(name, True, f"cgroup v{groups.version} {controller}")
            continue
        notes = [note for note in detected.notes if controller in note] or list(detected.notes)
        advice = "run as root, or delegate a cgroup: systemd-run --user -p Delegate=yes --scope walras up"
        yield Check(name, False, "; ".join([loss, *notes]), advice)


def _cards() -> Check:
    """The NVIDIA cards, the driver, and how parts of them would be kept apart. Changes nothing."""
    try:
        nvml = Nvml()
    except CardError:
        return Check("GPUs", False, "no NVIDIA card answers through NVML", "`walras up` emulates two")
    try:
        kinds, (driver, cuda) = Counter(card.product for card in nvml.cards()), nvml.versions()
    except CardError as error:
        return Check("GPUs", False, error.message, "look at what the driver says with nvidia-smi")
    finally:
        nvml.close()
    listed = ", ".join(f"{count} x {product}" for product, count in kinds.items()) or "none"
    detail = f"{listed}; driver {driver}, CUDA {cuda}"
    if not kinds:
        return Check("GPUs", False, detail, "`walras up` emulates two")
    missing = [] if os.geteuid() == 0 else ["root"]
    missing += [] if shutil.which(PROGRAM) else [PROGRAM]
    if missing:
        detail += f"; without {' and '.join(missing)} parts of a card are time slices and not kept apart"
    return Check("GPUs", not missing, detail, "run the server as root, with NVIDIA's MPS on the PATH")


def _open_files() -> Check:
    most = os.sysconf("SC_OPEN_MAX")
    return Check("open files", most >= _OPEN_FILES_WANTED, str(most), f"ulimit -n {_OPEN_FILES_WANTED}")


def _runtimes(data_dir: Path) -> Iterator[Check]:
    for offer in offers(data_dir):
        there = offer.make is not None
        if offer.handler == CONTAINER and there:
            yield _podman(offer)
        else:
            yield Check(f"runtime {offer.handler}", there, offer.detail, offer.advice)
        if offer.handler == VM and there:
            yield _acceleration()


def _podman(offer: Offer) -> Check:
    said = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=False).stdout
    version = said.strip().rpartition(" ")[2]
    major = version.partition(".")[0]
    good = major.isdigit() and int(major) >= _PODMAN_MIN
    detail = f"{offer.detail}, version {version or 'unknown'}"
    return Check(f"runtime {offer.handler}", good, detail, f"install podman {_PODMAN_MIN} or later")


def _acceleration() -> Check:
    found, missing = parts.find()
    assert found is not None, missing
    fault = acceleration.tried(found)
    detail = f"machines are emulated, which is slow: {fault}" if fault else "machines run on its processors"
    advice = "let agents' users open /dev/kvm (chmod 666), on a machine whose processors virtualise"
    return Check("KVM", not fault, detail, advice)
