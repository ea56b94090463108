"""A Redis server, and signals, for all tests of the command line."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.pubsub.redis_server import RealRedis, real_redis


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A real server, for one test."""
    with real_redis() as server:
        yield server


@pytest.fixture(autouse=True)
def heard_signals() -> Iterator[None]:
    """SIGINT and SIGHUP are not ignored, whoever has started pytest.

    ``nohup`` ignores the one, a script that puts pytest into the background the other, and what
    is ignored stays so in every process that is started. A signal with a handler begins there
    with its default.
    """
    ignored = {
        number: signal.SIG_IGN
        for number in (signal.SIGINT, getattr(signal, "SIGHUP", None))
        if number is not None and signal.getsignal(number) is signal.SIG_IGN
    }
    for number in ignored:
        signal.signal(number, _hear)
    yield
    for number, before in ignored.items():
        signal.signal(number, before)


def _hear(_number: int, _frame: object) -> None:
    """What was ignored still does nothing to pytest itself."""
