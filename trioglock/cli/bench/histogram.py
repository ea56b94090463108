"""The histogram: durations counted in buckets, in the same memory however many there are.

A bucket is as wide as the durations in it are long: 1/128 of a power of two. So every figure that
comes out is within 0.8 % of the truth, from nanoseconds to days.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Bucket", "Histogram"]

BITS = 7
"""A power of two is cut into 2 to the BITS buckets."""

LONGEST = 2**48 - 1
"""Nanoseconds, about three days; what is longer counts as this."""

BUCKETS = (48 - BITS + 1) << BITS


@dataclass(frozen=True, slots=True)
class Bucket:
    """Durations from ``low`` up to, and without, ``high``, in nanoseconds; how many they were."""

    low: int
    high: int
    count: int


class Histogram:
    """Counts durations. The extremes and the mean are exact, the quantiles within 0.8 %."""

    def __init__(self) -> None:
        self.count: int = 0
        self.least: int = LONGEST
        self.most: int = 0
        self._sum = 0
        self._counts = [0] * BUCKETS

    def add(self, nanoseconds: int) -> None:
        """Count one more."""
        value = min(nanoseconds, LONGEST)
        shift = max(value.bit_length() - BITS - 1, 0)
        self._counts[(shift << BITS) + (value >> shift)] += 1
        self.count += 1
        self._sum += nanoseconds
        if value < self.least:
            self.least = value
        if value > self.most:
            self.most = value

    @property
    def mean(self) -> float:
        """In nanoseconds; 0 of nothing."""
        return self._sum / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Nanoseconds that ``share`` of all durations, from 0 to 1, are not longer than."""
        wanted, seen = max(math.ceil(share * self.count), 1), 0
        for bucket in self.buckets():
            seen += bucket.count
            if seen >= wanted:
                middle = (bucket.low + bucket.high - 1) / 2
                return min(max(middle, self.least), self.most)
        return 0.0

    def buckets(self) -> Iterator[Bucket]:
        """Those that are not empty, the shortest durations first."""
        for index, count in enumerate(self._counts):
            if count:
                shift = max((index >> BITS) - 1, 0)
                low = (index - (shift << BITS)) << shift
                yield Bucket(low, low + (1 << shift), count)
