"""The books checked from the first entry on: the journal, what it leads to, and what the meters read."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from walras.core.errors import BadRequest, Conflict, StorageError
from walras.core.money import format_credits
from walras.exchange.journal import Reader, read_books, read_rows
from walras.exchange.treasury import account_of
from walras.ledger.verify import EMPTY, Fault, Head, Verifier

_LAST = "(SELECT coalesce(max(seq), 0) FROM ledger_journal)"
_METERED = """(SELECT json_group_array(json_array(agent, lease, micros)) FROM
    (SELECT agent, lease, sum(micros) AS micros FROM usage GROUP BY agent, lease))"""

Paid = dict[tuple[str, str], int]  # micros by the account that paid and its lease


class Audit(Struct, frozen=True, kw_only=True):
    """The last entry that is right with its seal, the first fault if any, and what was paid and metered."""

    head: Head
    fault: Fault | None
    captured_micros: int
    metered_micros: int

    def as_object(self) -> dict[str, object]:
        fault = {"entry": self.fault.seq, "message": self.fault.message} if self.fault else None
        return {
            "entries": self.head.seq,
            "head": str(self.head),
            "fault": fault,
            "captured": format_credits(self.captured_micros),
            "metered": format_credits(self.metered_micros),
            "balanced": fault is None,
        }


def audit(database: Reader, anchor: Head | None = None) -> Audit:
    """Checks seals, sequence, balances, holds and cost. It reads the whole journal, so call it in a thread.

    `anchor` is a head that was written down at an earlier time. Raises StorageError when there is no ledger.
    """
    if not database.query("SELECT 1 FROM sqlite_master WHERE name = 'ledger_head'"):
        raise StorageError("there is no ledger with seals here; start `walras up` on this data once")
    try:
        books, (last, rows) = read_books(database, _LAST, _METERED)
    except (Conflict, StorageError) as error:
        return Audit(head=EMPTY, fault=Fault(0, error.message), captured_micros=0, metered_micros=0)
    metered: Paid = {}
    for agent, lease, micros in msgspec.json.decode(rows, type=list[tuple[str, str, int]]):
        _add(metered, account_of(agent), lease, micros)
    verifier = Verifier(anchor)
    for chunk in read_rows(database, upto=last):
        if not verifier.read(chunk):
            break
    verdict = verifier.verdict(books)
    captured: Paid = {}
    for (account, ref), micros in verdict.captured.items():
        _add(captured, account, ref.rpartition("/")[2], micros)
    return Audit(
        head=verdict.head,
        fault=verdict.fault or _disagreement(captured, metered),
        captured_micros=sum(captured.values()),
        metered_micros=sum(metered.values()),
    )


def read_head(text: str) -> Head | None:
    """A journal's head as `Head` writes it, None for none. Raises BadRequest."""
    if not text:
        return None
    if not re.fullmatch(r"\d{1,18}:[0-9a-f]{64}", text, re.ASCII):
        raise BadRequest(f'"{text}" is not NUMBER:SEAL as `walras ledger verify` prints it')
    number, sealed = text.split(":")
    return Head(int(number), sealed)


def _add(sums: Paid, account: str, lease: str, micros: int) -> None:
    if micros:
        sums[account, lease] = sums.get((account, lease), 0) + micros


def _disagreement(
    captured: Mapping[tuple[str, str], int], metered: Mapping[tuple[str, str], int]
) -> Fault | None:
    for account, lease in sorted({*captured, *metered}):
        paid, read = captured.get((account, lease), 0), metered.get((account, lease), 0)
        if paid != read:
            return Fault(
                0,
                f'"{account}" paid {format_credits(paid)} for lease "{lease}", '
                f"its meters read {format_credits(read)}",
            )
    return None
