"""The example and the benchmark run."""

from __future__ import annotations

import re
import runpy
import sys
from functools import partial

import pytest
import trio

from tests.forks import run_fork
from tests.scripts import ROOT, assert_lines
from trioglock.testing import MockPhoenixServer

CHAT = ROOT / "examples" / "phoenix_chat.py"


@pytest.mark.slow
async def test_the_chat_connects_to_a_given_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --url it starts no server of its own."""
    lobby = runpy.run_path(str(CHAT))["Lobby"]
    async with MockPhoenixServer({"room:*": lobby}) as server:
        monkeypatch.setattr(sys, "argv", [str(CHAT), "--url", server.url])
        await trio.to_thread.run_sync(partial(runpy.run_path, str(CHAT), run_name="__main__"))
        printed = capsys.readouterr()
        assert printed.err == ""
        assert_lines(printed.out, ["al has joined: .*", "al hears bo: hello"])
        assert len(server.peers) == 2


@pytest.mark.slow
async def test_the_benchmark_reports_each_size() -> None:
    """An echo, a push, the difference, and whether it is within the limit."""
    for needed in ("picows", "uvloop"):
        pytest.importorskip(needed, reason="the group 'bench' is not installed")
    done = await run_fork("-m", "benchmarks.phoenix", "--rounds", "1", "--count", "20")
    assert (done.code, done.stderr) == (0, ""), done.stdout
    assert len(re.findall(r"bytes: echo .* us, push and reply .* us", done.stdout)) == 3
    assert len(re.findall(r"(yes|NO): at most 25 us more: ", done.stdout)) == 3
