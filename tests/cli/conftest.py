"""A Redis server, a terminal, and signals, for all tests of the command line."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal, terminal
from tests.pubsub.redis_server import RealRedis, real_redis


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A real server, for one test."""
    with real_redis() as server:
        yield server


@pytest.fixture
async def window(tmp_path: Path) -> AsyncIterator[Terminal]:
    """A real terminal, for one test."""
    async with terminal(tmp_path) as window:
        yield window


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time for which commands in this process wait at the end of their input."""
    monkeypatch.setattr("trioglock.cli.conversation.QUIET_TIME", 0.25)


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    """Make sure that SIGINT and SIGHUP are not ignored.

    ``nohup`` ignores SIGHUP and a shell's background job SIGINT, and child processes inherit that.
    They reset a signal with a handler to its default.
    """
    ignored = {
        number: signal.SIG_IGN
        for number in (signal.SIGINT, getattr(signal, "SIGHUP", None))
        if number is not None and signal.getsignal(number) is signal.SIG_IGN
    }
    for number in ignored:
        signal.signal(number, _do_nothing)
    yield
    for number, before in ignored.items():
        signal.signal(number, before)


def _do_nothing(_number: int, _frame: object) -> None:
    pass
