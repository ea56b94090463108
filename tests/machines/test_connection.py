"""Any program, against any connection: the promises hold."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings

from tests.machines.machine import run
from tests.machines.programs import Program, programs


@settings(
    max_examples=1500,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(programs)
def test_any_program_finds_the_promises_kept(program: Program) -> None:
    """Order, exactly once, one hook at a time, one end, nobody left waiting: see ``verdict``."""
    run(program)
