"""Many small cases in one test, which take less time than a test for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["case_of"]


@contextmanager
def case_of(*names: object) -> Iterator[None]:
    """Add the names of a case to the report of an exception that leaves the block."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case {', '.join(map(repr, names))}")
        raise
