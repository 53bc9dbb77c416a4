"""Who spent what on which device: sums over usage rows, each written with its ledger entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from walras.core.errors import BadRequest
from walras.core.money import WHOLE_GPU_MILLI, format_credits

# One row a minute, lease, device and pod; the columns are added to as the meter runs.
MIGRATIONS: Final = (
    """CREATE TABLE usage (
        minute_ms INTEGER NOT NULL, agent TEXT NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL,
        workload TEXT NOT NULL, lease TEXT NOT NULL, device TEXT NOT NULL, pool TEXT NOT NULL,
        milli_ms INTEGER NOT NULL, cpu_ms INTEGER NOT NULL, micros INTEGER NOT NULL,
        PRIMARY KEY (minute_ms, agent, lease, device, pod, namespace)
    ) WITHOUT ROWID""",
    "CREATE INDEX usage_by_agent ON usage (agent, minute_ms)",
    # The instance, where it was one of a device in MIG mode, such as 1g.10gb@4.
    "ALTER TABLE usage ADD COLUMN mig TEXT NOT NULL DEFAULT ''",
    # What was done with the device, as far as its driver tells: 0 is nothing, or not told.
    "ALTER TABLE usage ADD COLUMN busy_ms INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE usage ADD COLUMN memory_mib_ms INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE usage ADD COLUMN energy_mj INTEGER NOT NULL DEFAULT 0",
    # The agent's, which tells it from others that had its name; empty in rows of before there was any.
    "ALTER TABLE usage ADD COLUMN uid TEXT NOT NULL DEFAULT ''",
)
ADD: Final = """INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET milli_ms = milli_ms + excluded.milli_ms,
        cpu_ms = cpu_ms + excluded.cpu_ms, micros = micros + excluded.micros,
        busy_ms = busy_ms + excluded.busy_ms, memory_mib_ms = memory_mib_ms + excluded.memory_mib_ms,
        energy_mj = energy_mj + excluded.energy_mj"""

MINUTE_MS: Final = 60_000
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "agent": ("agent",),
    "workload": ("agent", "namespace", "workload"),
    "pod": ("agent", "namespace", "pod"),
    "device": ("pool", "device", "mig"),
    "lease": ("agent", "namespace", "lease"),
}


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What a lease did with a device: time in which it computed, memory over time, energy; 0 where not told.

    Busy time is of the whole device: 250 of it in a second is as much as a quarter of the device for it.
    """

    busy_ms: int = 0
    memory_mib_ms: int = 0
    energy_mj: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """What a lease used since it was last asked: CPU time of its pods, and of each device."""

    cpu_ms: int = 0
    gpus: Mapping[str, GpuUse] = field(default_factory=dict)


NOTHING: Final = Used()


class Database(Protocol):
    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True, slots=True)
class Report:
    """Rows of one grouping, dearest first, and their exact sum."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    total_micros: int

    def as_object(self) -> dict[str, Any]:
        return {
            "columns": list(self.columns),
            "rows": list(self.rows),
            "total": format_credits(self.total_micros),
        }


def report(database: Database, *, by: str, since_ms: int = 0, agent: str = "", uid: str = "") -> Report:
    """Spend grouped by `by` since `since_ms`, of one agent or of all when `agent` is empty.

    With `uid` of that agent alone, without others that had its name before.

    Rows are whole minutes: the minute in which `since_ms` falls is counted whole. Raises BadRequest.
    """
    if by not in GROUPS:
        raise BadRequest(f'cannot group cost by "{by}"; choose one of {", ".join(GROUPS)}')
    columns = GROUPS[by]
    # The column names come from GROUPS, never from the request.
    sql = (
        f"SELECT {', '.join(columns)}, SUM(milli_ms), SUM(cpu_ms), SUM(micros),"  # noqa: S608
        " SUM(busy_ms), SUM(memory_mib_ms), SUM(energy_mj) FROM usage"
        f" WHERE minute_ms >= ?{' AND agent = ?' if agent else ''}{' AND uid IN (?, ?)' if uid else ''}"
        f" GROUP BY {', '.join(columns)} ORDER BY SUM(micros) DESC, {', '.join(columns)}"
    )
    since_minute = since_ms // MINUTE_MS * MINUTE_MS
    named = (agent,) if agent else ()
    found = database.query(sql, (since_minute, *named, *((uid, "") if uid else ())))
    rows = []
    total = 0
    for row in found:
        milli_ms, cpu_ms, micros, busy_ms, memory_mib_ms, energy_mj = row[len(columns) :]
        total += micros
        group = dict(zip(columns, row, strict=False))
        rows.append(
            {
                **{name: value for name, value in group.items() if value or name != "mig"},
                "gpuSeconds": round(milli_ms / WHOLE_GPU_MILLI / 1000, 3),
                "cpuSeconds": round(cpu_ms / 1000, 3),
                **_told(busy_ms, memory_mib_ms, energy_mj),
                "charged": format_credits(micros),
                "chargedMicros": micros,
            }
        )
    return Report(columns, tuple(rows), total)


def _told(busy_ms: int, memory_mib_ms: int, energy_mj: int) -> dict[str, float]:
    """What drivers told, where they told anything: emulated devices have none, and not all tell all."""
    told = {
        "gpuBusySeconds": round(busy_ms / 1000, 3),
        "gpuMemoryGibHours": round(memory_mib_ms / 1024 / 3_600_000, 6),
        "gpuWattHours": round(energy_mj / 3_600_000, 6),
    }
    return {name: value for name, value in told.items() if value}
