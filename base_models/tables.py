"""Integer frequencies: what a range coder works with, and what symbols cost by them.

A table is a row of cumulative frequencies from 0 to `TOTAL`. Entry k stands for the symbol `offset + k`; the last
entry, the escape, stands for all symbols outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

TOTAL = 1 << 16
"""What the frequencies of a table add up to: no symbol is less probable than 2⁻¹⁶, or costs more than 16 bits."""


@dataclass(frozen=True, eq=False)
class IntegerTables:
    """T tables: `cdfs` int32 [T, longest], each row ascending from 0 to `TOTAL`; `lengths` counts its valid entries."""

    cdfs: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def frequencies(self, table: int) -> np.ndarray:
        """int32, the last that of the escape."""
        return np.diff(self.cdfs[table, : self.lengths[table]])

    def escape(self, table: int) -> int:
        """Number of the entry that stands for all symbols outside."""
        return int(self.lengths[table]) - 2

    @cached_property
    def costs(self) -> np.ndarray:
        """Bits of each entry, float64 [T, longest − 1]; beyond a row's end those of its escape."""
        costs = np.zeros((len(self), max(self.cdfs.shape[1] - 1, 0)))
        for table, row in enumerate(costs):
            bits = -np.log2(self.frequencies(table) / TOTAL)
            row[: len(bits)], row[len(bits) :] = bits, bits[-1]
        return costs

    @cached_property
    def least_costs(self) -> np.ndarray:
        """Bits of each table's cheapest entry, float64 [T]."""
        return np.array([row.min() for row in self.costs])
