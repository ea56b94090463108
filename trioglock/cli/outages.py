"""Outages: a policy of reconnecting that says what it does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..backoff import Backoff, retry_after
from ..reasons import Disconnect
from .exits import words_of_reason

__all__ = ["ToldBackoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldBackoff(Backoff):
    """A :class:`Backoff` that tells why a connection was lost, and when the next attempt is due.

    Args:
        tell: called with a line for people; it must not wait.
    """

    tell: Callable[[str], object]
    _reasons: list[Disconnect] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        Backoff.__post_init__(self)
        judge = self.retryable

        def note(reason: Disconnect) -> bool:
            # Asked about a reason before it draws the delay that follows.
            self._reasons[:] = [reason]
            return judge(reason)

        object.__setattr__(self, "retryable", note)

    def delays(self, rng: random.Random | None = None) -> Iterator[float]:
        """See :meth:`Backoff.delays`; what is drawn is told."""
        for delay in Backoff.delays(self, rng):
            reason = self._reasons[-1]
            seconds = max(delay, retry_after(reason))
            self.tell(f"{words_of_reason(reason)}; next attempt in {seconds:.1f} s")
            yield delay
