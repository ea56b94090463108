"""Early: what is typed while there is no connection yet."""

from __future__ import annotations

from collections.abc import Callable

import trio

from .._redact import redact_text
from ..frames import Close
from .commands import Commands, is_command
from .console import Console, EndOfInput, Interrupted, Mark
from .dialect import Refused

__all__ = ["WAITS", "Early"]

WAITS = " (waits for a connection)"


class Early:
    """Keeps what is to be sent, and carries out the commands that need no connection.

    Args:
        console: with a prompt.
        url: that is tried.
        leave: called when the person wants no connection any more.
        interrupt: called for Ctrl-C.
    """

    def __init__(
        self,
        console: Console,
        url: str,
        leave: Callable[[], object],
        interrupt: Callable[[], object],
    ) -> None:
        self.lines: list[str] = []
        """To be sent, oldest first."""
        self._console = console
        self._leave = leave
        self._interrupt = interrupt
        self._commands = Commands(console, None, self._close, url=url)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Read until there is a connection, or nobody wants one."""
        self._console.words = self._commands.names
        try:
            with self._scope:
                while True:
                    await self._take(await self._console.next_line())
        except EndOfInput:
            self._leave()
        except Interrupted:
            self._interrupt()
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Read no further line."""
        self._scope.cancel()

    async def stopped(self) -> None:
        """Wait until none is being read; then somebody else may."""
        self.stop()
        await self._ended.wait()

    async def _take(self, line: str) -> None:
        if not is_command(line):
            self.lines.append(line)
            await self._console.tell(Mark.SENT, line.removeprefix("/") + WAITS)
            return
        try:
            await self._commands.run(line)
        except Refused as error:
            await self._console.tell(Mark.PROBLEM, redact_text(str(error)))

    def _close(self, _: Close) -> None:
        self.stop()
        self._leave()
