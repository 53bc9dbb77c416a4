"""What happened since the last clearing, for mechanisms that keep accounts of it."""

from __future__ import annotations

from typing import Final

from walras.market.types import Snapshot

# A longer gap is no use of devices: nobody served or metered it.
TICKS_MAX: Final = 10


def elapsed_ms(snapshot: Snapshot, mechanism: str) -> int:
    """Since the clearing that the memory is of; 0 without a memory of that mechanism."""
    memory = snapshot.memory
    return max(0, snapshot.now_ms - memory.at_ms) if memory.mechanism == mechanism else 0


def served_ms(snapshot: Snapshot, elapsed_ms: int) -> int:
    """How much of the time since then leases were served: all of it but in a gap."""
    return min(elapsed_ms, TICKS_MAX * snapshot.rules.tick_ms)


def used_milli_ms(snapshot: Snapshot, elapsed_ms: int) -> dict[str, int]:
    """By agent, milli-GPU x ms under lease in that time, but for leases that are over already."""
    served = served_ms(snapshot, elapsed_ms)
    used: dict[str, int] = {}
    for lease in snapshot.leases:
        if lease.state != "reserved":
            ran_ms = min(served, max(0, snapshot.now_ms - lease.start_ms))
            used[lease.agent] = used.get(lease.agent, 0) + lease.total_milli * ran_ms
    return used
