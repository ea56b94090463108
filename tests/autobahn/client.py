"""The client under test. It echoes the messages of the fuzzing server, one connection per case."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trioglock import Connection, ConnectionClosed, connect

__all__ = ["AGENT", "MAX_SIZE", "run_cases"]

AGENT = "trioglock"
"""The name of trioglock in the reports."""

MAX_SIZE = 2**25
"""Maximum message size in bytes. The longest messages of the suite have 16 MiB."""

# The server ends a case after at most 100 seconds.
CASE_SECONDS = 150


async def run_cases(server: str, progress: Callable[[int, int], None]) -> int:
    """Run all cases of the server and let it write its report; return the number of cases.

    A case that hangs does not raise an exception: it fails in the report.

    Args:
        server: the URL of the server, without a path.
        progress: called before each case with its number and the number of cases.

    Raises:
        trio.TooSlowError, ConnectError: the server has exited.
    """
    count = await _case_count(server)
    for number in range(1, count + 1):
        progress(number, count)
        with trio.move_on_after(CASE_SECONDS):
            await _echo_at(f"{server}/runCase?case={number}&agent={AGENT}")
    with trio.fail_after(CASE_SECONDS):
        await _echo_at(f"{server}/updateReports?agent={AGENT}")
    return count


async def _case_count(server: str) -> int:
    with trio.fail_after(CASE_SECONDS):
        async with connect(f"{server}/getCaseCount", proxy=None) as conn:
            return int(await conn.receive())


async def _echo_at(url: str) -> None:
    """Echo until the server closes the connection or violates the protocol."""
    async with connect(url, proxy=None, max_size=MAX_SIZE) as conn:
        await _echo(conn)


async def _echo(conn: Connection[None]) -> None:
    try:
        async for message in conn:
            await conn.send(message)
    except ConnectionClosed:
        pass  # the report contains whether this is correct
