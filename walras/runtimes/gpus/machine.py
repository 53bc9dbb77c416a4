"""The device port: the cards of this machine, made to be what leases need, and what programs get of them.

Its methods block, on a driver that may take seconds; call them in a thread, one at a time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from walras.devices.arrangement import Action, Arrangement, Step, Technique, Wanted, steps
from walras.devices.mig import MigInstance
from walras.runtimes.gpus import mps as mps_
from walras.runtimes.gpus.cards import Card, CardError, Fault, Made, Reading
from walras.runtimes.gpus.mps import Mps, MpsError
from walras.runtimes.gpus.nvml import Nvml

CAPABILITIES: Final = Path("/proc/driver/nvidia/capabilities")
_CONTROL: Final = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
# Under MPS: the first architecture with address spaces and thread shares of their own for clients.
VOLTA: Final = (7, 0)
RESTARTS_MAX: Final = 3
RESTARTS_WITHIN_MS: Final = 600_000
_NO_STATE: Final = 0
NOTHING_WANTED: Final = Wanted()


@dataclass(frozen=True, slots=True)
class Access:
    """What a program is given of a card or instance: CUDA's name for it, device files."""

    uuid: str
    files: tuple[str, ...]
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class Needed:
    """What a card's leases need; under MPS no client gets more than the bounds."""

    want: Wanted = NOTHING_WANTED
    percent_max: int = 100
    memory_mib_max: int = 0


def mps_folders(data: Path, uuid: str) -> tuple[Path, Path]:
    """Where a card's MPS daemon is met, and the shared memory that it and its clients have to themselves.

    Below /run where that can be written, as names of sockets are short.
    """
    mark = f"walras-{hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:8]}"
    above = Path("/run") if os.access("/run", os.W_OK) else Path(tempfile.gettempdir())
    name = uuid.removeprefix("GPU-")[:8]
    return above / mark / name, Path("/dev/shm") / f"{mark}-{name}"  # noqa: S108


class Machine:
    """`mps` is the command line of the MPS control daemon, None where shares go by the driver's time slices.

    Without `may_cut` no card is sold in instances: who is not root cannot make them.
    """

    def __init__(
        self,
        nvml: Nvml,
        data: Path,
        *,
        mps: Sequence[str] | None = None,
        simulated: bool = False,
        may_cut: bool = True,
        capabilities: Path = CAPABILITIES,
    ) -> None:
        self._nvml, self.data, self.simulated, self._capabilities = nvml, data, simulated, capabilities
        self._lock = threading.RLock()
        self.cards: Mapping[str, Card] = {
            card.uuid: card if may_cut else replace(card, mig=None) for card in nvml.cards()
        }
        self.driver_version, self.cuda_version = nvml.versions() if self.cards else ("", "")
        able = all(card.capability >= VOLTA for card in self.cards.values())
        self.shares_by = Technique.MPS if mps and able else Technique.TIMESLICE
        as_root = os.geteuid() == 0 and not simulated
        self._mps = {
            uuid: Mps(mps or (), uuid, pipe=pipe, shm=shm, log=data / "gpus" / uuid, as_root=as_root)
            for uuid in self.cards
            for pipe, shm in (mps_folders(data, uuid),)
        }
        self._needed: dict[str, Needed] = {}
        self._restarts: dict[str, deque[int]] = {uuid: deque(maxlen=RESTARTS_MAX) for uuid in self.cards}

    def close(self) -> None:
        """Ends the daemons; instances stay as they are, as on any card."""
        with self._lock:
            for each in self._mps.values():
                each.stop()
            self._nvml.close()

    def clear(self) -> None:
        """Ends daemons that an earlier server left behind. Only who owns the data folder may."""
        with self._lock:
            for each in self._mps.values():
                each.clear()

    # What cards are made to be

    def arrangement(self, uuid: str) -> Arrangement:
        """The card as it is. Raises CardError."""
        with self._lock:
            made = self._nvml.made(self.cards[uuid])
            return Arrangement(
                mig=self._nvml.mig(uuid),
                instances=frozenset(each.instance for each in made if each.uuid),
                broken=frozenset(each.instance for each in made if not each.uuid),
                one_process=self._nvml.one_process(uuid),
                mps=self._mps[uuid].alive,
            )

    def arrange(self, uuid: str, needed: Needed) -> Mapping[MigInstance | None, Access]:
        """Makes the card what its leases need; returns what each of them gets of it.

        Whatever was done half before is finished or undone. Raises CardError.
        """
        with self._lock:
            for step in steps(self.arrangement(uuid), needed.want):
                self._do(uuid, step)
            if left := steps(self.arrangement(uuid), needed.want):
                raise CardError(f"{uuid} is not what it was made: still to {left[0].action}", _NO_STATE)
            if needed.want.technique is Technique.MPS:
                try:
                    self._mps[uuid].bound(needed.percent_max, needed.memory_mib_max)
                except MpsError as error:
                    raise CardError(error.message, _NO_STATE) from error
            self._needed[uuid] = needed
            return self._access(uuid)

    def _do(self, uuid: str, step: Step) -> None:
        card, daemon = self.cards[uuid], self._mps[uuid]
        match step.action:
            case Action.START_MPS | Action.STOP_MPS:
                try:
                    daemon.start() if step.action is Action.START_MPS else daemon.stop()
                except MpsError as error:
                    raise CardError(error.message, _NO_STATE) from error
            case Action.SHARE_FREELY | Action.SHARE_BY_MPS:
                self._nvml.set_one_process(uuid, step.action is Action.SHARE_BY_MPS)
            case Action.MIG_ON | Action.MIG_OFF:
                self._nvml.set_mig(uuid, step.action is Action.MIG_ON)
            case Action.CREATE:
                assert step.instance is not None
                self._nvml.create(card, step.instance.profile, step.instance.start)
            case Action.DESTROY:
                for each in self._nvml.made(card):
                    if each.instance == step.instance:
                        self._nvml.destroy(card, each)

    def _access(self, uuid: str) -> Mapping[MigInstance | None, Access]:
        card, minor = self.cards[uuid], self._nvml.minor(uuid)
        files = (f"/dev/nvidia{minor}", *_CONTROL)
        found: dict[MigInstance | None, Access] = {None: Access(uuid, files)}
        for each in self._nvml.made(card):
            if each.uuid:
                found[each.instance] = Access(each.uuid, (*files, *self._caps(minor, each)), each.id)
        return found

    def _caps(self, minor: int, made: Made) -> tuple[str, ...]:
        """The device files without which an instance cannot be used, by what the kernel numbers them."""
        base = self._capabilities / f"gpu{minor}" / "mig" / f"gi{made.id}"
        found = []
        for path in (base / "access", base / "ci0" / "access"):
            with suppress(OSError):
                if match := re.search(r"DeviceFileMinor:\s*(\d+)", path.read_text()):
                    found.append(f"/dev/nvidia-caps/nvidia-cap{match[1]}")
        return tuple(found)

    def mps_directories(self, uuid: str) -> tuple[str, str]:
        """What a client of the card's MPS daemon has to see: its pipes, and its part of shared memory."""
        daemon = self._mps[uuid]
        return str(daemon.pipe), str(daemon.shm)

    def kill(self, pids: Iterable[int]) -> None:
        """SIGKILL to processes that are known to be there now."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # What cards do

    def read(self, uuid: str) -> Reading:
        """What the card does now, without MPS's own processes. Raises CardError."""
        with self._lock:
            reading, own = self._nvml.reading(uuid), self._servers(uuid)
            uses = tuple(use for use in reading.uses if use.pid not in own)
            return Reading(
                reading.utilisation_percent,
                reading.memory_used_mib,
                reading.energy_mj,
                reading.temperature_c,
                reading.throttled,
                uses,
            )

    def _servers(self, uuid: str) -> tuple[int, ...]:
        daemon = self._mps[uuid]
        if not daemon.alive:
            return ()
        try:
            return daemon.servers()
        except MpsError:
            return daemon.last_servers

    def tend(self, now_ms: int) -> tuple[Fault, ...]:
        """Starts daemons that died again; says which card has none after several times."""
        found = []
        with self._lock:
            for uuid, daemon in self._mps.items():
                if not daemon.wanted or daemon.alive:
                    continue
                times = self._restarts[uuid]
                if len(times) == RESTARTS_MAX and now_ms - times[0] < RESTARTS_WITHIN_MS:
                    message = f"the MPS daemon died {RESTARTS_MAX + 1} times within 10 minutes"
                    found.append(Fault(uuid, "MpsDaemonDead", message))
                    daemon.stop()
                    continue
                times.append(now_ms)
                try:
                    daemon.start()
                    needed = self._needed.get(uuid, Needed())
                    daemon.bound(needed.percent_max, needed.memory_mib_max)
                except MpsError as error:
                    found.append(Fault(uuid, "MpsDaemonDead", error.message))
                else:
                    message = "the MPS daemon died and was started again; its programs lost the card"
                    found.append(Fault(uuid, "MpsDaemonRestarted", message, fatal=False))
        return tuple(found)


def here(data: Path, *, by_mps: bool = True) -> Machine | None:
    """The machine's own cards, None where there are none that NVML tells of.

    `by_mps`: parts of them are kept apart by MPS, where that can be had.
    Raises CardError where there are some that cannot be used: nothing else is sold in their place.
    """
    try:
        nvml = Nvml()
    except CardError:
        return None
    program = shutil.which(mps_.PROGRAM) if by_mps else None
    # Modes are set only by root.
    root = os.geteuid() == 0
    found = Machine(nvml, data, mps=(program,) if program and mps_.may_serve() else None, may_cut=root)
    if found.cards:
        return found
    found.close()
    return None


def simulated(data: Path, *, by_mps: bool = True) -> Machine:
    """A machine over the simulator that is installed: its MPS daemon is a simulator too."""
    program = Path(__file__).with_name("simulated_mps.py")
    mps = (sys.executable, str(program)) if by_mps else None
    return Machine(Nvml(), data, mps=mps, simulated=True)
