"""The journal read again from its first entry: is it whole, unaltered, and does it lead to what is stored?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from walras.core.errors import WalrasError
from walras.ledger.chain import GENESIS, seal
from walras.ledger.ledger import Ledger
from walras.ledger.types import Account, Entry, Hold


class Head(Struct, frozen=True, array_like=True):
    """The journal's last entry, and its seal in hexadecimal. Before the first entry seq is 0."""

    seq: int
    seal: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.seal}"


EMPTY = Head(0, GENESIS.hex())


class Books(Struct, frozen=True):
    """What is stored beside the journal, as of one moment."""

    accounts: Mapping[str, Account]
    holds: Mapping[str, Hold]
    head: Head


class Fault(Struct, frozen=True):
    """The first thing that is wrong: the number of the entry, or 0 when the journal itself is right."""

    seq: int
    message: str


class Verdict(Struct, frozen=True):
    """How far the journal is right, and what is wrong then, if anything.

    `captured` are the micros paid out of holds, by the account that paid and the `ref` of its hold.
    """

    head: Head
    fault: Fault | None
    captured: Mapping[tuple[str, str], int]


class Verifier:
    """Takes the journal's rows in order, then compares where they lead with the books.

    A row is the ten columns of an Entry and the seal. `anchor` is a head that was written down before.
    """

    def __init__(self, anchor: Head | None = None) -> None:
        self._ledger = Ledger()
        self._anchor = anchor
        self._seal = GENESIS
        self._captured: dict[tuple[str, str], int] = {}
        self.fault: Fault | None = None

    def read(self, rows: Iterable[tuple[Any, ...]]) -> bool:
        """Whether these, the next rows, are right; stops at the first that is not."""
        for row in rows:
            self.fault = self.fault or self._read(row)
            if self.fault:
                return False
        return True

    def verdict(self, books: Books) -> Verdict:
        head = Head(self._ledger.seq, self._seal.hex())
        return Verdict(head, self.fault or self._compare(head, books), self._captured)

    def _read(self, row: tuple[Any, ...]) -> Fault | None:
        *columns, stored = row
        number = self._ledger.seq + 1
        if columns[0] != number:
            return Fault(number, f"entry {number} is missing: entry {columns[0]} is in its place")
        try:
            entry = msgspec.convert(columns, Entry)
        except msgspec.ValidationError as error:
            return Fault(number, f"entry {number} was altered: it is no entry ({error})")
        (expected,) = seal(self._seal, (entry,))
        if stored != expected:
            return Fault(number, f"entry {number} was altered: its seal is not that of its content")
        try:
            self._note(entry)
            self._ledger.append(entry)
        except WalrasError as error:
            return Fault(number, f"entry {number} cannot be: {error.message}")
        self._ledger.drain()
        self._seal = expected
        if self._anchor and self._anchor.seq == number and self._anchor.seal != expected.hex():
            return Fault(number, f"the journal was rewritten: entry {number} has not the seal you know")
        return None

    def _note(self, entry: Entry) -> None:
        if entry.kind == "capture":
            key = (entry.debit, self._ledger.find_hold(entry.hold).ref)
            self._captured[key] = self._captured.get(key, 0) + entry.amount

    def _compare(self, head: Head, books: Books) -> Fault | None:
        if head != books.head:
            return Fault(
                head.seq + 1, f"the journal ends with entry {head.seq}, yet was stored up to {books.head}"
            )
        if self._anchor and self._anchor.seq > head.seq:
            return Fault(head.seq + 1, f"the journal ends with entry {head.seq}, yet you know {self._anchor}")
        for what, stored, reached in (
            ("account", books.accounts, self._ledger.accounts),
            ("hold", books.holds, self._ledger.holds),
        ):
            for name in sorted({*stored, *reached}):
                if stored.get(name) != reached.get(name):
                    return Fault(
                        0,
                        f'{what} "{name}" is stored as {_show(stored, name)}, '
                        f"the journal leads to {_show(reached, name)}",
                    )
        assert self._ledger.balanced(), "every entry was checked"
        return None


def _show(found: Mapping[str, Struct], name: str) -> str:
    return msgspec.json.encode(found[name]).decode() if name in found else "nothing"
