"""The client under test: it echoes what the fuzzing server sends, one connection for each case."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trioglock import Connection, ConnectionClosed, connect

__all__ = ["AGENT", "MAX_SIZE", "run_cases"]

AGENT = "trioglock"
"""Our name in the reports."""

MAX_SIZE = 2**25
"""The longest messages have 16 MiB."""

# The server itself gives up on a case after 100 seconds at the most.
CASE_SECONDS = 150


async def run_cases(server: str, progress: Callable[[int, int], None]) -> int:
    """Run all cases that the server has and let it write its report; how many they were.

    Args:
        server: its URL, without a path.
        progress: called before each case with its number, and how many there are.

    Raises:
        trio.TooSlowError, ConnectError: the server is gone. A case that hangs is left alone: what
            to think of it stands in the report.
    """
    count = await _case_count(server)
    for number in range(1, count + 1):
        progress(number, count)
        with trio.move_on_after(CASE_SECONDS):
            await _visit(f"{server}/runCase?case={number}&agent={AGENT}")
    with trio.fail_after(CASE_SECONDS):
        await _visit(f"{server}/updateReports?agent={AGENT}")
    return count


async def _case_count(server: str) -> int:
    with trio.fail_after(CASE_SECONDS):
        async with connect(f"{server}/getCaseCount", proxy=None) as conn:
            return int(await conn.receive())


async def _visit(url: str) -> None:
    """Echo until the server, or a mistake of the server's, ends the connection."""
    async with connect(url, proxy=None, max_size=MAX_SIZE) as conn:
        await _echo(conn)


async def _echo(conn: Connection[None]) -> None:
    try:
        async for message in conn:
            await conn.send(message)
    except ConnectionClosed:
        pass  # whether rightly so is the report's to say
