"""``RedisBroker``: hubs in many processes, on many machines."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from ..._scope import open_scope
from ...backoff import Backoff
from ...errors import BrokerUnavailable, InvalidOption
from ...frames import Data
from ...options import check_seconds, check_whole
from ..broker import Broker, Deliver, Line
from ..history import History
from .address import parse_address
from .commands import Commands
from .keeper import Timing
from .source import SPARE, Channels, Entries, Source

__all__ = ["RedisBroker"]


class RedisBroker(Broker):
    """Hands messages on through a Redis server: PUBLISH and PSUBSCRIBE.

    A message for the channel ``news`` of the hub ``trioglock`` is published on the Redis channel
    ``trioglock/news``, and the hub listens to ``trioglock*``, as sock-drawer does: anything that
    can PUBLISH can speak to the hub.

    The connections are supervised. Redis restarted, cut off or silent is found out, and when it is
    back the hub listens again and its listeners are told a :class:`Gap`. Meanwhile ``publish``
    waits, and in the end raises; a message that was under way when the connection broke is
    published again, so in rare cases it arrives twice.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, or
            ``unix://[[user]:password@]/path[?db=n]``.
        history: keep so many messages of each hub in a Redis stream, named as the hub, for those
            who come back. They then travel by that stream alone: others publish with
            ``XADD trioglock * channel news data hello``. The stream is 500 messages longer, for
            hubs that are behind. None keeps none.
        ssl_context: for ``rediss://``; by default the system's certificates are trusted.
        open_timeout: seconds to reach Redis on entering ``async with hub``; None for ever.
        publish_timeout: seconds that a message may take; None for ever.
        health_interval: seconds of silence after which Redis is asked whether it is there.
        health_timeout: seconds that any answer may take.
        backoff: when to try again; it never gives up.

    Raises:
        InvalidOption: one of these does not fit, or the extra is missing: ``pip install
            'trioglock[redis]'``.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379",
        *,
        history: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        open_timeout: float | None = 10,
        publish_timeout: float | None = 10,
        health_interval: float = 5,
        health_timeout: float = 3,
        backoff: Backoff | None = None,
    ) -> None:
        check_whole("history", history, least=1)
        check_seconds("open_timeout", open_timeout)
        check_seconds("publish_timeout", publish_timeout)
        for name, value in (("interval", health_interval), ("timeout", health_timeout)):
            check_seconds(f"health_{name}", value)
            if value is None:
                raise InvalidOption(f"health_{name} is a number of seconds, not None")
        if not (backoff is None or isinstance(backoff, Backoff)):
            raise InvalidOption(f"backoff is a Backoff, not {backoff!r}")
        self._address = parse_address(url, ssl_context)
        self._history = history
        self._timing = Timing(
            open_timeout=math.inf if open_timeout is None else open_timeout,
            publish_timeout=math.inf if publish_timeout is None else publish_timeout,
            health_interval=health_interval,
            health_timeout=health_timeout,
            backoff=backoff or Backoff(initial=0.1, maximum=5, max_attempts=None, stable_after=5),
        )

    def __repr__(self) -> str:
        return f"<RedisBroker at {self._address}>"

    def open(self, name: str, deliver: Deliver) -> AbstractAsyncContextManager[Line]:
        """See :meth:`Broker.open`."""
        if self._history is None:
            channels = Channels(self._address, self._timing, name, deliver)
            commands = Commands(self._address, self._timing, channels.keeper)
            return self._join(channels, commands, Published(commands, name))
        history = History(self._history, shared=True)
        stream = Entries(self._address, self._timing, name, history, deliver)
        commands = Commands(self._address, self._timing, stream.keeper)
        return self._join(stream, commands, Streamed(commands, name, history))

    @asynccontextmanager
    async def _join(self, source: Source, commands: Commands, line: Line) -> AsyncIterator[Line]:
        keeper = source.keeper
        async with open_scope() as nursery:
            nursery.start_soon(keeper.run)
            nursery.start_soon(commands.keeper.run)
            with trio.move_on_after(self._timing.open_timeout):
                await keeper.tried.wait()
                if not source.ready.is_set() and keeper.refused is not None:
                    raise keeper.refused
                await source.ready.wait()
            if not source.ready.is_set():
                raise BrokerUnavailable(
                    f"Redis at {self._address} was not reached within "
                    f"{self._timing.open_timeout} seconds"
                ) from keeper.failure
            yield line


class Published(Line):
    """Publishes with PUBLISH."""

    def __init__(self, commands: Commands, name: str) -> None:
        self._commands = commands
        self._name = name

    async def publish(self, channel: str, data: Data) -> None:
        """See :meth:`Line.publish`."""
        await self._commands.ask("PUBLISH", f"{self._name}/{channel}", data)


class Streamed(Line):
    """Publishes with XADD."""

    def __init__(self, commands: Commands, name: str, history: History) -> None:
        self.history: History | None = history
        self._commands = commands
        length = (history.messages.maxlen or 1) + SPARE
        self._start = ("XADD", name, "MAXLEN", length, "*")

    async def publish(self, channel: str, data: Data) -> None:
        """See :meth:`Line.publish`."""
        await self._commands.ask(*self._start, "channel", channel, "data", data)
