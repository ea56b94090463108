"""Hostile clients, in a process of their own, that flood a server in another one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.channels.attackers import GROUPS
from tests.scripts import ROOT

pytestmark = pytest.mark.slow

SECONDS = 1.0
MAX_LATENCY = 3.0
"""Seconds, without those in which the server or its client waits for a processor."""
MAX_GROWTH = {"small": 50.0, "large": 400.0}
"""Megabytes, for all attacks together. Two attacks keep 500 KB for each of 100 topics, and others 4
MiB of frames for each connection, which take 20 times as much when they are decoded."""


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.channels.attacked_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.kill()


def memory(process: subprocess.Popen[str]) -> float:
    """Return the resident memory in megabytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


def unhindered(server: subprocess.Popen[str]) -> float:
    """Return a time in seconds that stands still while a process waits for a processor."""
    waited = (Path(f"/proc/{name}/schedstat") for name in (server.pid, "self"))
    return time.monotonic() - sum(int(path.read_text().split()[1]) / 1e9 for path in waited)


def echo(server: subprocess.Popen[str], link: ClientConnection, ref: int) -> float:
    """Return the latency of a push."""
    began = unhindered(server)
    link.send(json.dumps(["1", str(ref), "echo:1", "x", {"n": ref}]))
    reply = json.loads(link.recv(timeout=30))
    assert reply[1] == str(ref)
    assert reply[4] == {"status": "ok", "response": {"n": ref}}
    return unhindered(server) - began


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_floods_of_all_kinds_leave_memory_and_the_latency_of_other_clients_bounded(
    server: subprocess.Popen[str], group: str
) -> None:
    assert server.stdout is not None
    url = f"ws://127.0.0.1:{int(server.stdout.readline())}/socket/websocket?vsn=2.0.0"
    with connect(url) as link:
        link.send(json.dumps(["1", "1", "echo:1", "phx_join", {}]))
        assert json.loads(link.recv())[4]["status"] == "ok"
        for ref in range(100):
            echo(server, link, ref)
        before, end = memory(server), time.monotonic() + SECONDS
        command = [sys.executable, "-m", "tests.channels.attackers", url, group, str(SECONDS)]
        latencies, peak = [0.0], before
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as attackers:  # noqa: S603
            while time.monotonic() < end + 0.5:
                latencies.append(echo(server, link, 100 + len(latencies)))
                peak = max(peak, memory(server))
                time.sleep(0.02)
            results = json.loads(attackers.communicate(timeout=90)[0])
        assert server.poll() is None
    for name, (code, sent) in sorted(results.items()):
        print(f"{name}: sent {sent}, closed with {code}")
    print(
        f"{peak - before:.0f} MB more; latency at most {max(latencies):.3f} s of {len(latencies)}"
    )
    assert peak - before < MAX_GROWTH[group]
    assert max(latencies) < MAX_LATENCY
    if group == "large":
        assert results["too large"][0] == 1009
    else:
        assert results["joins of one topic"][0] == 1008
