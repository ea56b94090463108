"""``trioglock demo``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from tests.cli.helpers import run_command
from tests.cli.terminal import Terminal
from tests.scripts import assert_lines
from trioglock import Backoff, Connection
from trioglock.cli.demo import Count, Display, _receive
from trioglock.cli.main import main

OUTAGE = [
    r"demo#\d+ connection lost: .*",
    r"demo#\d+ reconnecting in 0.5 seconds",
    r"demo#\d+ attempting to connect",
    r"demo#\d+ failed to connect: .* 502 Bad Gateway",
    r"demo#\d+ reconnecting in 1 seconds",
    r"Count\(sent=200, received=100\); send queue: 100",
    r"demo#\d+ attempting to connect",
    r"demo#\d+ successfully connected",
    r"demo#\d+ sending frame: '{\"number\": 100, .*",
    r"demo#\d+ received frame: '{\"number\": 100, .*",
]


@pytest.mark.slow
async def test_plain_lines() -> None:
    """Outside of a terminal the progress bar consists of twenty lines, without colors."""
    done = await run_command("demo", "--messages", "200")
    assert (done.code, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert sum(line.startswith("[") for line in lines) == 20
    assert sum("frame: " in line for line in lines) == 2
    assert_lines(
        done.stdout,
        [
            r"echo server at ws://127\.0\.0\.1:\d+/",
            r"\[#\.{19}\] 10 of 200, [\d,]+/s",
            r"\[#{10}\.{10}\] 100 of 200, [\d,]+/s",
            r"Count\(sent=100, received=100\); cutting the connection",
            *OUTAGE,
            r"\[#{20}\] 200 of 200, [\d,]+/s",
            r"final state: Count\(sent=200, received=200\)",
            r"200 messages sent and received in \d+\.\d\d s: 1 reconnect, 0 lost",
        ],
    )
    assert lines[-1].endswith("0 lost")


@pytest.mark.parametrize("messages", [1, 2, 5000])
def test_the_state_survives_the_outage(
    messages: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of messages: also if they do not fit into the send queue."""
    monkeypatch.setattr("trioglock.cli.demo.BACKOFF", Backoff(initial=0.02, jitter="none"))
    assert main(["demo", "--messages", str(messages)]) == 0
    final = f"final state: Count(sent={messages}, received={messages})"
    assert final in capsys.readouterr().out.splitlines()


async def test_fault_35_the_bar_moves_with_every_thousand_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if there are many: 5 % of two million would take seconds."""
    numbers: list[int] = []

    class Endless:
        async def receive(self) -> None:
            pass

    def update(_: Progress, __: object, *, completed: int, rate: str) -> None:
        assert rate.endswith("/s")
        numbers.append(completed)

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(Progress, "update", update)
    await _receive(cast("Connection[Count]", Endless()), range(200_000), Display(200_000))
    assert numbers == list(range(1000, 200_001, 1000))


@pytest.mark.slow
@pytest.mark.terminal
async def test_a_bar_in_a_terminal(window: Terminal, tmp_path: Path) -> None:
    """The progress bar occupies one line, below the trace."""
    await window.run("demo")
    lines = await window.shows("exit code 0")
    screen = await window.screen(colours=True)
    keep_picture(screen.rpartition("exit code")[0].rstrip(), tmp_path)
    [bar] = [number for number, line in enumerate(lines) if line.startswith("messages ━")]
    assert re.fullmatch(r"messages ━+ 1000/1000 [\d,]+/s", lines[bar])
    assert lines[bar - 1].startswith("demo#1 received frame: ")
    assert lines[bar + 1] == "final state: Count(sent=1000, received=1000)"


def keep_picture(screen: str, tmp_path: Path) -> None:
    """Save a terminal as an SVG, in the directory of the variable SCREENSHOTS if it is set."""
    path = Path(os.environ.get("SCREENSHOTS", tmp_path)) / "demo.svg"
    with Path(os.devnull).open("w") as nothing:
        console = Console(record=True, width=80, file=nothing, force_terminal=True)
        console.print(Text.from_ansi(screen))
    picture = console.export_svg(title="python -m trioglock demo", unique_id="demo")
    # An image loads no fonts from other servers.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL))
    assert "url(http" not in path.read_text()
