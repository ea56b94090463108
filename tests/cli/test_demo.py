"""``trioglock demo``."""

from __future__ import annotations

from typing import cast

import pytest
from rich.progress import Progress

from tests.cli.helpers import run_command
from tests.cli.terminal import Terminal
from tests.scripts import assert_lines
from trioglock import Connection
from trioglock.cli.demo import Count, _receive


async def test_plain_lines() -> None:
    """Outside of a terminal the progress bar consists of twenty lines."""
    done = await run_command("demo", "--messages", "200")
    assert (done.code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sum(line.startswith("[") for line in lines) == 20
    assert_lines(
        done.stdout,
        [
            r"echo server at ws://127\.0\.0\.1:\d+/",
            r"\[#\.{19}\] 10 of 200",
            r"\[#{20}\] 200 of 200",
            r"final state: Count\(sent=200, received=200\)",
            r"200 messages sent and received in \d+\.\d\d s: [\d,]+/s",
        ],
    )


async def test_fault_35_the_bar_moves_with_every_thousand_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if there are many: 5 % of two million would take seconds."""
    numbers: list[int] = []

    class Endless:
        async def receive(self) -> None:
            pass

    def update(_: Progress, __: object, *, completed: int) -> None:
        numbers.append(completed)

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(Progress, "update", update)
    await _receive(cast("Connection[Count]", Endless()), 200_000)
    assert numbers == list(range(1000, 200_001, 1000))


@pytest.mark.slow
@pytest.mark.terminal
async def test_a_bar_in_a_terminal(window: Terminal) -> None:
    """The progress bar occupies one line."""
    await window.run("demo", "--messages", "500")
    lines = await window.shows("exit code 0")
    assert lines[1].startswith("messages ━")
    assert lines[1].endswith("500/500")
    assert lines[2] == "final state: Count(sent=500, received=500)"
