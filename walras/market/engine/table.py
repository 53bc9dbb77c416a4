"""Columns of integers that grow, with rows that are used again."""

from __future__ import annotations

import numpy as np

from walras.market.engine.jit import Ints


class Table:
    """Rows of named columns. A free row is 0 in every column."""

    def __init__(self, *names: str) -> None:
        self._columns = {name: np.zeros(64, np.int64) for name in names}
        self._free = np.empty(0, np.int64)
        self.size = 0  # no row at or above it was ever used

    def __getitem__(self, name: str) -> Ints:
        """The whole column, up to its capacity; good until rows are taken."""
        return self._columns[name]

    def column(self, name: str) -> Ints:
        """The column up to `size`."""
        return self._columns[name][: self.size]

    def take(self, count: int) -> Ints:
        """Rows to write into: free ones, the last freed first, then new ones."""
        again = self._free[: -count - 1 : -1][:count] if count else self._free[:0]
        rows = np.concatenate((again, np.arange(self.size, self.size + count - again.size)))
        self._free = self._free[: self._free.size - again.size]
        self.size += count - again.size
        capacity = next(iter(self._columns.values())).size
        if self.size > capacity:
            more = max(capacity, self.size - capacity)
            for name, column in self._columns.items():
                self._columns[name] = np.concatenate((column, np.zeros(more, np.int64)))
        return rows

    def give(self, rows: Ints) -> None:
        """Free rows."""
        for column in self._columns.values():
            column[rows] = 0
        self._free = np.concatenate((self._free, rows))
