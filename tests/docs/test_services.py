"""docs/services.md: its program runs as a process, and stops on SIGTERM."""

from __future__ import annotations

import configparser
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.docs.pages import Page

pytestmark = [
    pytest.mark.docs,
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets"),
]

SECONDS = 300


class Feed:
    """A server that sends one message to each client with the right token."""

    def __init__(self) -> None:
        self.close_codes: Queue[int | None] = Queue()

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers["Authorization"] == "Bearer s3cr3t":
            return None
        return connection.respond(HTTPStatus.FORBIDDEN, "wrong token")

    def handle(self, connection: ServerConnection) -> None:
        connection.send("hello")
        with suppress(ConnectionClosed):
            connection.recv()
        self.close_codes.put(connection.close_code)

    @contextmanager
    def running(self) -> Iterator[str]:
        with serve(self.handle, "127.0.0.1", 0, process_request=self.check) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
            server.shutdown()
            thread.join()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    [block] = Page("docs/services.md").python_blocks()
    path = tmp_path / "follow_feed.py"
    path.write_text(block, encoding="utf-8")
    return path


def start(program: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-W", "error", str(program)],
        env=os.environ | variables,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_stops_on_sigterm(program: Path, tmp_path: Path) -> None:
    """It is ready, reports its status, and closes its connection with 1000."""
    address = str(tmp_path / "notify")
    feed = Feed()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, feed.running() as url:
        manager.bind(address)
        manager.settimeout(SECONDS)
        with start(program, FEED_URL=url, FEED_TOKEN="s3cr3t", NOTIFY_SOCKET=address) as process:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "received hello" in line:
                    break
            process.send_signal(signal.SIGTERM)
            log = "".join(lines) + process.communicate(timeout=SECONDS)[1]
        assert process.returncode == 0, log
        assert feed.close_codes.get(timeout=SECONDS) == 1000
        states = [manager.recv(1000).decode() for _ in range(3)]
    assert "INFO trioglock.client: feed: connected to ws://127.0.0.1" in log
    assert "s3cr3t" not in log
    assert states == ["READY=1", "WATCHDOG=1\nSTATUS=not connected, 0 messages", "STOPPING=1"]


def test_a_wrong_token_prevents_a_restart(program: Path) -> None:
    unit = configparser.ConfigParser()
    unit.read_string(Page("docs/services.md").text.split("```ini\n")[1].split("```")[0])
    with (
        Feed().running() as url,
        start(program, FEED_URL=url, FEED_TOKEN="wrong") as process,
    ):
        log = process.communicate(timeout=SECONDS)[1]
    assert str(process.returncode) == unit["Service"]["RestartPreventExitStatus"]
    assert "CRITICAL feed: check FEED_TOKEN: " in log
