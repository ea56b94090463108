"""The benchmark of a push and its reply works. What is fast is not asked."""

from __future__ import annotations

import re

import pytest

from tests.scripts import run_python

for needed in ("picows", "uvloop"):
    pytest.importorskip(needed, reason="the extra 'bench' is not installed")


async def test_it_measures_and_says_whether_the_limit_was_kept() -> None:
    """For each size: an echo, a push, and the difference."""
    done = await run_python("-m", "benchmarks.phoenix", "--rounds", "1", "--count", "20")
    assert (done.code, done.stderr) == (0, ""), done.stdout
    assert len(re.findall(r"bytes: echo .* us, push and reply .* us", done.stdout)) == 3
    assert len(re.findall(r"(yes|NO): at most 25 us more: ", done.stdout)) == 3
