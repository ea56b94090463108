"""Random values for tests with hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["CHARACTERS"]

CHARACTERS = st.characters(exclude_categories=["Cs"])
"""All characters but surrogates, as by default in ``st.text()``.

There, hypothesis would find them by encoding each: in a fresh clone that takes two seconds in each
process.
"""
