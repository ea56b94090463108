"""A market feed for two minutes: outages, a silent server, pacing and subscriptions together."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import pytest
from trio.testing import MockClock

from tests.scripts import ROOT


def load_example() -> Any:
    """Import the example."""
    spec = importlib.util.spec_from_file_location("market_feed", ROOT / "examples/market_feed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
async def test_two_minutes_of_a_market_feed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """No gap is unreported, the limit is never exceeded, and all keys are active at the end."""
    caplog.set_level(logging.INFO, "trioglock.client")
    example = load_example()
    exchange, client = await example.run(120)
    assert client.unreported == 0
    assert client.updates > 1000
    # All keys were subscribed on each link.
    assert client.gaps >= 20 * len(example.SYMBOLS)
    assert client.numbers == exchange.numbers
    arrivals = exchange.arrivals
    assert all(late - early > 1 for early, late in zip(arrivals, arrivals[5:], strict=False))
    lines = [record.getMessage() for record in caplog.records if record.name == "trioglock.client"]
    for what in ("connection lost", "stalled: the peer sent no data", "reconnected to"):
        assert sum(what in line for line in lines) >= 15
