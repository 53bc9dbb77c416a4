"""The hash chain: what is sealed, and that another program can seal the same."""

from __future__ import annotations

import json
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from walras.ledger.chain import GENESIS, canonical, seal
from walras.ledger.types import Entry

TEXT = st.text(max_size=20)
ENTRIES = st.builds(
    Entry, st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1), TEXT, st.just("transfer"), TEXT, TEXT,
    st.integers(0, 2**63 - 1), TEXT, TEXT, st.integers(0, 2**63 - 1),
)  # fmt: skip


def test_an_entry_is_sealed_as_the_json_array_of_its_columns() -> None:
    entry = Entry(3, 1_700_000_000_000, "pay:7", "transfer", "agent:a", "agent:ü", 250, "", 'rent "x"', 0)
    assert canonical(entry) == (
        '[3,1700000000000,"pay:7","transfer","agent:a","agent:ü",250,"","rent \\"x\\"",0]'.encode()
    )


@given(ENTRIES)
def test_another_json_writer_writes_the_same_bytes(entry: Entry) -> None:
    columns = [getattr(entry, name) for name in entry.__struct_fields__]
    assert json.loads(canonical(entry)) == columns


@given(st.lists(ENTRIES, max_size=8), st.integers(0, 8))
def test_the_chain_is_the_same_however_it_is_cut(entries: list[Entry], cut: int) -> None:
    whole = seal(GENESIS, entries)
    first = seal(GENESIS, entries[:cut])
    assert first + seal(first[-1] if first else GENESIS, entries[cut:]) == whole
    previous = bytes(32)
    for entry, sealed in zip(entries, whole, strict=True):
        previous = sha256(previous + canonical(entry)).digest()
        assert sealed == previous
