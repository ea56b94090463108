"""Exception groups, looked into: what nurseries hand on, and users shall not see."""

from __future__ import annotations

import trio

__all__ = ["is_cancelled", "is_graceful", "leaves"]


def leaves(error: BaseException | None) -> list[BaseException]:
    """The exceptions themselves, however deep in groups; none for None."""
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def is_cancelled(error: BaseException) -> bool:
    """Whether it is ``trio.Cancelled`` and nothing else."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


def is_graceful(error: BaseException) -> bool:
    """Whether there is time to end in good order: not when cancelled or interrupted."""
    return all(isinstance(leaf, Exception) for leaf in leaves(error))
