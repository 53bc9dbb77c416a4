"""What `walras/v1/ledger` and `walras/v1/statement` answer. They read the database: call them in a thread."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from walras.core.clock import parse_rfc3339, rfc3339_micro
from walras.core.errors import BadRequest, Conflict, Invalid
from walras.core.money import format_credits
from walras.core.quantity import parse_duration_ms
from walras.exchange.audit import audit, read_head
from walras.exchange.journal import Place, Reader, read_books, read_statement
from walras.kube.record import Object
from walras.ledger.ledger import Ledger
from walras.ledger.statement import Line, Position

PAGE_MAX: Final = 1_000
FOREVER_MS: Final = 2**63 - 1

_CAPTURED: Final = "(SELECT coalesce(sum(amount), 0) FROM ledger_journal WHERE kind = 'capture')"
_METERED: Final = "(SELECT coalesce(sum(micros), 0) FROM usage)"


def ledger_object(database: Reader, query: Mapping[str, str]) -> Object:
    """Every account, and whether debits equal credits and cost agrees; with `verify` by the whole journal.

    Raises BadRequest.
    """
    books, (captured, metered) = read_books(database, _CAPTURED, _METERED)
    try:
        balanced = Ledger.restore(books.accounts.values(), books.holds.values(), ()).balanced()
    except Conflict:
        balanced = False
    shown: Object = {
        "accounts": [
            {
                "id": account.id,
                "balance": format_credits(account.balance),
                "held": format_credits(account.debits_pending),
                "available": format_credits(account.available),
                "paid": format_credits(account.debits_posted),
                "received": format_credits(account.credits_posted),
            }
            for _, account in sorted(books.accounts.items())
        ],
        "entries": books.head.seq,
        "head": str(books.head),
        "captured": format_credits(captured),
        "metered": format_credits(metered),
        "balanced": balanced and captured == metered,
    }
    if query.get("verify"):
        shown |= audit(database, read_head(query.get("head", ""))).as_object()
    return shown


def statement_object(
    database: Reader, account: str, query: Mapping[str, str], now_ms: int, opened: int
) -> Object:
    """One page of an account's statement, from the entry `opened` on. Raises BadRequest, NotFound."""
    since, until = query.get("since", ""), query.get("until", "")
    after = _place(query["continue"]) if query.get("continue") else Place(read_time(since, now_ms, 0), 0)
    until_ms = read_time(until, now_ms, FOREVER_MS)
    limit = _limit(query.get("limit", ""))
    found, more = read_statement(database, account, after, until_ms, limit, opened)
    shown: Object = {
        "account": found.account,
        "opening": _position(found.opening),
        "entries": [_line(line) for line in found.lines],
        "closing": _position(found.closing),
    }
    if more:
        shown["continue"] = f"{more.at_ms}:{more.seq}"
    return shown


def read_time(text: str, now_ms: int, otherwise_ms: int) -> int:
    """A time in milliseconds, of RFC 3339 or of a duration that is how long ago. Raises BadRequest."""
    if not text:
        return otherwise_ms
    try:
        return now_ms - parse_duration_ms(text)
    except Invalid:
        pass
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise BadRequest(f'"{text}" is neither a time such as 2030-01-01T00:00:00Z nor a duration') from None


def _place(text: str) -> Place:
    match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", text, re.ASCII)
    if match is None:
        raise BadRequest(f'"{text}" is not where a statement goes on')
    return Place(int(match[1]), int(match[2]))


def _limit(text: str) -> int:
    if not text:
        return PAGE_MAX
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII) or not 1 <= int(text) <= PAGE_MAX:
        raise BadRequest(f'limit "{text}" is not 1 to {PAGE_MAX}')
    return int(text)


def _position(position: Position) -> Object:
    return {"balance": format_credits(position.balance), "held": format_credits(position.held)}


def _line(line: Line) -> Object:
    return {
        "entry": line.seq,
        "time": rfc3339_micro(line.at_ms),
        "kind": line.kind,
        "with": line.other,
        "amount": format_credits(line.change.balance),
        "hold": format_credits(line.change.held),
        "balance": format_credits(line.after.balance),
        "held": format_credits(line.after.held),
        "for": line.ref,
        "id": line.id,
    }
