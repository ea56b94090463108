"""The shape of a distribution: how much falls into each column of a chart, on a scale of times.

The scale is logarithmic: a slow tail is as wide as it is slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .figures import Times

__all__ = ["Shape"]

SLACK = 1.05
"""The chart goes so much beyond the extremes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns of a chart.

    Args:
        left: where the first begins, in powers of ten of seconds.
        right: where the last ends.
        shares: of all messages, for each column.
    """

    left: float
    right: float
    shares: tuple[float, ...]

    @staticmethod
    def of(times: Times, columns: int) -> Shape:
        """The shape in so many columns."""
        left = math.log10(max(times.seconds["min"], 1e-9) / SLACK)
        right = math.log10(max(times.seconds["max"], 1e-9) * SLACK)
        shares = [0.0] * columns
        total = sum(bucket.count for bucket in times.buckets)
        scale = columns / (right - left)
        for bucket in times.buckets:
            low = (math.log10(max(bucket.low, 1) / 1e9) - left) * scale
            high = (math.log10(bucket.high / 1e9) - left) * scale
            _spread(shares, low, high, bucket.count / total)
        return Shape(left, right, tuple(shares))

    def edge(self, column: int) -> float:
        """Where a column begins, in powers of ten of seconds."""
        return self.left + column * (self.right - self.left) / len(self.shares)


def _spread(shares: list[float], low: float, high: float, share: float) -> None:
    """Add a share to the columns from ``low`` to ``high``, which may lie within one."""
    last = len(shares) - 1
    for column in range(math.floor(low), math.floor(high) + 1):
        part = min(high, column + 1) - max(low, column)
        shares[min(max(column, 0), last)] += share * part / (high - low)
