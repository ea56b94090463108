"""The benchmark of routing runs, for every library; what is fast is not asked here."""

from __future__ import annotations

import pytest

from benchmarks import routing
from trioglock.codecs.json import LIBRARIES


def test_the_cost_of_routing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each library and each kind of pattern, and a verdict."""
    monkeypatch.setattr(routing, "ROUNDS", 1)
    monkeypatch.setattr(routing, "EVENTS", 100)
    assert routing.main() in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * len(LIBRARIES)
    assert all("routing costs" in line and "limit 1.5" in line for line in lines)
