"""Every example runs as a script and prints the expected lines."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shutil import which

import pytest
import trio

from tests.forks import run_fork
from tests.scripts import ROOT, assert_lines, run_python
from trioglock.testing import MockServer

pytestmark = [pytest.mark.docs, pytest.mark.slow]

EXAMPLES = ROOT / "examples"

# The lines of each example, in order. Other lines may appear between them. The first takes longest.
EXPECTED = {
    "market_feed": [
        r"feed: connected to ws://exchange\.test/",
        r"feed: connection lost: the stream ended without a Close frame; .*",
        r"feed: stalled: the peer sent no data for 1\.3 seconds; .*",
        r"feed: reconnected to ws://exchange\.test/",
        r"[1-9]\d+ updates; [1-9]\d+ gaps, 0 unreported",
        r"200 symbols are up to date",
    ],
    "counting": [
        r"received \{'fruit': 'apple'\}, state Count\(sent=1, received=1\)",
        r"received \{'fruit': 'cherry'\}, state Count\(sent=3, received=3\)",
        r"closed with 1000, state Count\(sent=3, received=3\)",
    ],
    "echo_server": [
        r"1\. 'hello'",
        r"2\. 'world'",
        r"broadcast to 1: 'lunch time'",
        r"closed with 1001 that was all",
    ],
    "transforming_json": [
        r"Join\(room='garden'\), equal to what was sent: True",
        r"Say\(room='garden', text='Hello, .lan!'\), equal to what was sent: True",
        r"refused: not a chat message: 'just some text'; the connection is still open",
    ],
    "stream_of_messages": [
        r"100 -> 103 \(\+3\)",
        r"103 -> 101 \(-2\)",
        r"101 -> 105 \(\+4\)",
        r"the market closed: end of the day",
        r"6 prices, 102\.00 on average",
    ],
    "heartbeat_and_trace": [
        r"demo#\d+ attempting to connect",
        r"demo#\d+ successfully connected",
        r"demo#\d+ sending frame: 'traced'",
        r"demo#\d+ received frame: 'traced'",
        r"demo#\d+ sending frame: Ping\(.*\)",
        r"demo#\d+ received frame: Pong\(.*\)",
        r"a manual ping took \d+\.\d ms",
        r"[2-9] pongs received, all but the first from the heartbeat",
        r"latest latency: \d+\.\d ms",
        r"\d+ bytes sent, \d+ received",
    ],
    "home_assistant": [
        r"light\.kitchen is on",
        r"connected again; changes may be missing",
        r"light\.kitchen is off",
    ],
    "mqtt": [
        r"garden/pond/temperature: 17\.5",
        r"garden/greenhouse/temperature: 31\.0",
        r"closed, subprotocol mqtt",
    ],
    "phoenix_chat": [
        r"al has joined: {'welcome': 'al'}",
        r"al sees bo come",
        r"al hears bo: hello",
        r"al hears bo: anyone there\?",
        r"al leaves",
    ],
    "gossip_mud": [
        r"ExVenture is online, 1 playing",
        r"\[gossip\] Eric@ExVenture: Welcome!",
        r"Zoe has entered ExVenture",
        r"Eric@ExVenture tells Bob: I am!",
        r"in ExVenture: Eric, Zoe",
    ],
    "json_rpc": [
        r"1 \+ 2 \+ 3 = 6",
        r"number: \[2\]",
        r"number: \[1\]",
        r"lift-off, Ann!",
        r"start must not be negative \(-32602\) \{'start': -1\}",
    ],
    "testing_with_a_mock_server": [
        r".*test_a_headline_is_delivered_and_counted PASSED .*",
        r".*test_subscribes_first PASSED .*",
        r".*test_closes_after_the_last_headline PASSED .*",
        r".* 5 passed in .*",
    ],
}

# The first may be skipped, and plugins of pytest expect an interpreter of their own.
IN_AN_INTERPRETER = ["mqtt", "testing_with_a_mock_server"]

TAKES_A_URL = ["counting", "transforming_json"]


async def test_they_run_as_scripts(echo_server: MockServer, tmp_path: Path) -> None:
    """Without arguments, in another working directory, without output on stderr.

    The one that configures logging also with the URL of another server.
    """
    runs: list[tuple[str, Sequence[str]]]
    runs = [(name, ()) for name in EXPECTED if name not in IN_AN_INTERPRETER]
    runs.append(("heartbeat_and_trace", (echo_server.url,)))
    limiter = trio.CapacityLimiter(3)

    async def check(name: str, arguments: Sequence[str]) -> None:
        async with limiter:
            done = await run_fork(EXAMPLES / f"{name}.py", *arguments, cwd=tmp_path)
        assert (name, done.code, done.stderr) == (name, 0, ""), done.stdout
        assert_lines(done.stdout, EXPECTED[name])

    async with trio.open_nursery() as nursery:
        for name, arguments in runs:
            nursery.start_soon(check, name, arguments)
    assert len(echo_server.peers) == 1


@pytest.mark.parametrize("name", IN_AN_INTERPRETER)
async def test_runs_as_a_script(name: str, tmp_path: Path) -> None:
    """The same, in an interpreter that has imported nothing before."""
    if name == "mqtt" and not (which("mosquitto") or which("mosquitto", path="/usr/sbin")):
        pytest.skip("needs mosquitto: install the system's package")
    done = await run_python(EXAMPLES / f"{name}.py", cwd=tmp_path)
    assert (done.code, done.stderr) == (0, ""), done.stdout
    assert_lines(done.stdout, EXPECTED[name])


@pytest.mark.parametrize("name", TAKES_A_URL)
async def test_connects_to_the_url_it_is_given(
    name: str,
    echo_server: MockServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The optional argument is the URL of another server."""
    path = str(EXAMPLES / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, echo_server.url])
    await trio.to_thread.run_sync(partial(runpy.run_path, path, run_name="__main__"))
    printed = capsys.readouterr()
    assert printed.err == ""
    assert_lines(printed.out, EXPECTED[name])
    assert len(echo_server.peers) == 1


def test_every_example_is_tested() -> None:
    # Another test runs devtools.py, which needs Chromium.
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*EXPECTED, "devtools"}
