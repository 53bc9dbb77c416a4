"""The simulator's cards: their state, in a file where they are to outlive the server, and their faults.

A simulator, not a card: nothing computes on it. What it knows is what the driver refuses and in which order
things have to be done; programs on it are put there by whoever plays with it.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from walras.devices.mig import MigInstance, state_of, taken
from walras.devices.mig_profiles import MigGeometry, geometry_of
from walras.devices.models import find_model

IDLE_MW: Final = 70_000
BUSY_MW: Final = 600_000
STATE_FILE: Final = "cards.json"
HOT_C: Final = 85
# nvmlClocksEventReasonSwThermalSlowdown
_THERMAL: Final = 0x20


class SimulatedProcess(msgspec.Struct):
    pid: int
    memory_mib: int
    sm_percent: int = 0
    instance: int | None = None


class SimulatedInstance(msgspec.Struct):
    """`computes` says whether it has its compute instance."""

    id: int
    profile: str
    start: int
    computes: bool = False

    @property
    def cut(self) -> MigInstance:
        return MigInstance(self.profile, self.start)


class SimulatedCard(msgspec.Struct):
    uuid: str
    model: str
    mig: bool = False
    pending_mig: bool = False
    one_process: bool = False
    lost: bool = False
    # No instance can be made any more; those that there are go on.
    uncuttable: bool = False
    temperature_c: int = 40
    throttle_bits: int = 0
    energy_mj: int = 0
    energy_at_ms: int = 0
    instances: list[SimulatedInstance] = []
    processes: list[SimulatedProcess] = []

    @property
    def geometry(self) -> MigGeometry | None:
        return geometry_of(self.model)

    def has_room(self, profile: str, start: int) -> bool:
        assert self.geometry is not None, "only cards with MIG are cut"
        state = state_of(self.geometry, [each.cut for each in self.instances])
        return not state & taken(self.geometry, self.geometry[profile], start)

    def uuid_of(self, made: SimulatedInstance) -> str:
        """What CUDA calls the compute instance: the same for the same place on the same card."""
        name = f"{self.uuid}/{made.id}/{made.profile}@{made.start}"
        return f"MIG-{uuid.uuid5(uuid.NAMESPACE_OID, name)}"


class Event(msgspec.Struct):
    card: int
    xid: int


class State(msgspec.Struct):
    cards: list[SimulatedCard]
    events: list[Event] = []


class SimulatedCards:
    """Thread-safe. Without a folder the state is in memory alone."""

    def __init__(
        self, models: tuple[str, ...], now_ms: Callable[[], int], folder: Path | None = None
    ) -> None:
        self._now_ms, self._lock, self._modified = now_ms, threading.RLock(), 0
        self._file = folder / STATE_FILE if folder is not None else None
        self.happened = threading.Condition(self._lock)
        cards = [
            SimulatedCard(f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, f'simulated/{at}')}", find_model(model).name)
            for at, model in enumerate(models)
        ]
        self._state = State(cards)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._load()
            # Without models it takes the cards that there are.
            if models and [card.model for card in self._state.cards] != [card.model for card in cards]:
                self._state = State(cards)
            self._save()

    @contextmanager
    def state(self) -> Iterator[State]:
        """The state as it is now, to look at or to change. One at a time."""
        with self._lock:
            self._load()
            before = msgspec.json.encode(self._state)
            yield self._state
            if self._file is not None and msgspec.json.encode(self._state) != before:
                self._save()

    def _load(self) -> None:
        """Takes up what another process wrote: faults may come from outside."""
        if self._file is None or not self._file.exists():
            return
        modified = self._file.stat().st_mtime_ns
        if modified != self._modified:
            self._state = msgspec.json.decode(self._file.read_bytes(), type=State)
            self._modified = modified

    def _save(self) -> None:
        assert self._file is not None
        partial = self._file.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(self._state))
        partial.replace(self._file)
        self._modified = self._file.stat().st_mtime_ns

    def energy_mj(self, card: SimulatedCard) -> int:
        """Since the start: so much while idle, more by how busy the card is."""
        now = self._now_ms()
        busy = min(100, sum(each.sm_percent for each in card.processes))
        power_mw = IDLE_MW + (BUSY_MW - IDLE_MW) * busy // 100
        since = card.energy_at_ms or now
        card.energy_mj += power_mw * max(0, now - since) // 1000
        card.energy_at_ms = now
        return card.energy_mj

    # Programs and faults

    def run(
        self, at: int, pid: int, memory_mib: int, sm_percent: int = 0, instance: int | None = None
    ) -> None:
        """A program computes on a card, or in an instance of it."""
        with self.state() as state:
            self.energy_mj(state.cards[at])
            state.cards[at].processes.append(SimulatedProcess(pid, memory_mib, sm_percent, instance))

    def end(self, pid: int) -> None:
        with self.state() as state:
            for card in state.cards:
                self.energy_mj(card)
                card.processes = [each for each in card.processes if each.pid != pid]

    def xid(self, at: int, number: int) -> None:
        """The driver reports an error of that number."""
        with self.state() as state:
            state.events.append(Event(at, number))
            self.happened.notify_all()

    def lose(self, at: int, *, lost: bool = True) -> None:
        """The card falls off the bus, or is there again as after a reset: empty, without instances."""
        with self.state() as state:
            card = state.cards[at]
            card.lost = lost
            if not lost:
                card.mig = card.pending_mig = card.one_process = False
                card.instances, card.processes = [], []

    def throttle(self, at: int, bits: int, temperature_c: int) -> None:
        """The card is hot; bits as nvmlDeviceGetCurrentClocksEventReasons has them."""
        with self.state() as state:
            state.cards[at].throttle_bits, state.cards[at].temperature_c = bits, temperature_c


def main(arguments: Sequence[str]) -> int:
    """Something happens to the cards in a folder: `FOLDER xid|lose|mend|throttle|run|end NUMBER...`."""
    folder, what, *numbers = arguments
    cards = SimulatedCards((), lambda: time.monotonic_ns() // 1_000_000, Path(folder))
    given = [int(each) for each in numbers]
    match what, given:
        case "xid", [at, number]:
            cards.xid(at, number)
        case "lose" | "mend", [at]:
            cards.lose(at, lost=what == "lose")
        case "throttle", [at, degrees]:
            cards.throttle(at, _THERMAL if degrees >= HOT_C else 0, degrees)
        case "run", [at, pid, memory_mib, *rest]:
            cards.run(at, pid, memory_mib, *rest)
        case "end", [pid]:
            cards.end(pid)
        case _:
            print(main.__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
