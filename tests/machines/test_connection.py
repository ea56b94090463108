"""Random scenarios against a connection."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.machines.machine import run
from tests.machines.scenarios import Scenario, scenarios


@pytest.mark.slow
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(scenarios)
def test_any_scenario(scenario: Scenario) -> None:
    """All guarantees of ``checks`` hold."""
    run(scenario)
