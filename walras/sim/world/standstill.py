"""Until when a clearing would decide the same: most ticks of a full pool need none."""

from __future__ import annotations

from typing import Final

from walras.core.money import HOUR_MS
from walras.market.types import Outcome, Reason, Snapshot

# Refusals that stand as long as nothing changes; those for money or a part do not.
STANDING: Final = frozenset(
    (Reason.OUTBID, Reason.NO_CAPACITY, Reason.BELOW_RESERVE, Reason.TOO_LARGE, Reason.NO_DEVICE)
)
# Their decisions move from tick to tick by themselves, as those of all that remember do.
MOVING: Final = frozenset(("proportional",))


def stands_until(mechanism: str, snapshot: Snapshot, outcome: Outcome) -> int:
    """When another clearing may decide otherwise, if nobody bids or is paid and no lease begins or ends."""
    now_ms, rules = snapshot.now_ms, snapshot.rules
    done = (*outcome.awards, *outcome.renewals, *outcome.displacements)
    kept = (*snapshot.escrows, *outcome.escrows)
    reasons = {refusal.explanation.reason for refusal in outcome.refusals}
    moves = outcome.memory.mechanism or mechanism in MOVING
    if done or kept or moves or not reasons <= STANDING:
        return now_ms
    changes = [now_ms + HOUR_MS]
    changes += [bid.deadline_ms for bid in snapshot.bids if bid.deadline_ms is not None]
    for lease in snapshot.leases:
        changes.append(lease.end_ms - rules.notice_ms - rules.tick_ms)
        changes += [at for at in (lease.start_ms + rules.quantum_ms,) if at > now_ms]
    return min(changes)
