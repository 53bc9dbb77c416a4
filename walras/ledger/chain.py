"""The journal's hash chain: each entry is sealed with SHA-256 of the seal before it and its own bytes.

An entry's bytes are the compact JSON array of its columns, so any program can check the chain. Whoever
changes, removes, adds or swaps entries breaks it at that place; whoever rewrites all that follows changes the
last seal, which is therefore worth keeping elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import msgspec

from walras.ledger.types import Entry

GENESIS: Final = bytes(32)  # what the first entry is sealed after

canonical: Final = msgspec.json.Encoder().encode


def seal(previous: bytes, entries: Iterable[Entry]) -> list[bytes]:
    """The seals of consecutive entries, 32 bytes each, where `previous` is that of the one before."""
    seals = []
    for entry in entries:
        previous = sha256(previous + canonical(entry)).digest()
        seals.append(previous)
    return seals
