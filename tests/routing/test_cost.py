"""The benchmark of routing runs with every library. Its results are not checked."""

from __future__ import annotations

import pytest

from benchmarks import routing
from trioglock.codecs.json import LIBRARIES


def test_the_benchmark_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each library and kind of pattern."""
    monkeypatch.setattr(routing, "ROUNDS", 1)
    monkeypatch.setattr(routing, "EVENTS", 100)
    assert routing.main() in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * len(LIBRARIES)
    assert all("routing costs" in line and "limit 1.5" in line for line in lines)
