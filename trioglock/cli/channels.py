"""The dialect of Phoenix Channels: a line is an event and its payload."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Unpack

import trio

from .._redact import redact_text
from ..client import ConnectOptions
from ..errors import ConnectionClosed, TrioglockError
from ..frames import Data
from ..protocols import phoenix
from .console import Console, Mark, Shape, json_problem
from .dialect import Command, Dialect, Refused
from .exits import OK

__all__ = ["Channels", "Topic", "open_channel"]

WAITING = 16
"""Lines that wait to be printed; behind them, the channel has a queue of its own."""


REJOIN_DELAYS = (1.0, 2.0, 5.0, 10.0)
"""Seconds before each attempt to join again."""

PENDING = 100
"""Pushes that wait for their replies, at the most; further lines wait to be pushed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What is to be joined, and as whom.

    Args:
        name: such as ``"room:1"``.
        payload: of the join.
        params: of the socket's address.
        token: the ``auth_token``.
        timeout: seconds for the join, and for each reply.
    """

    name: str
    payload: Any = None
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)
    timeout: float = 10


class Witness(phoenix.V2Serializer):
    """Sees every message that comes, and tells when a channel crashes and is joined again.

    Args:
        topic: of the channel.
        console: that is told.
    """

    def __init__(self, topic: str, console: Console) -> None:
        super().__init__()
        self._topic = topic
        self._console = console
        self._seen: str | None = None

    def decode(self, frame: Data) -> phoenix.PhoenixMessage:
        """See :meth:`Serializer.decode`; a frame may be decoded twice."""
        message = super().decode(frame)
        if message.topic == self._topic:
            if message.event == "phx_error" and self._seen:
                self._console.post(Mark.PROBLEM, f"{self._topic} has crashed on the server")
            elif self._is_new_join(message):
                if self._seen:
                    self._console.post(Mark.STATUS, f"joined {self._topic} again")
                self._seen = message.ref
        return message

    def _is_new_join(self, message: phoenix.PhoenixMessage) -> bool:
        """Whether it lets a channel in that was not in before."""
        return (
            message.event == "phx_reply"
            and message.ref == message.join_ref != self._seen
            and message.payload.get("status") == "ok"
        )


class Channels(Dialect):
    """Pushes lines, and prints what comes as lines of the same form.

    Args:
        socket: connected.
        channel: joined.
        console: that asks for it.
        nursery: for pushes that wait for their replies.
    """

    def __init__(
        self,
        socket: phoenix.PhoenixSocket,
        channel: phoenix.Channel,
        console: Console,
        nursery: trio.Nursery,
    ) -> None:
        super().__init__(socket.connection)
        self._channel = channel
        self._console = console
        self._nursery = nursery
        self._room = trio.Semaphore(PENDING)
        self._latest = trio.Event()
        self._latest.set()
        self._end: TrioglockError
        self._put, self._lines = trio.open_memory_channel[str](WAITING)
        self._changes: list[str] = []
        self._presence = phoenix.Presence(
            on_join=lambda name, _, come: self._changes.append(_presence("+", name, come)),
            on_leave=lambda name, _, gone: self._changes.append(_presence("-", name, gone)),
        )

    @property
    def commands(self) -> Mapping[str, Command]:
        """See :attr:`Dialect.commands`."""
        return {"presence": Command("", "who is there", self._show_presence)}

    async def say(self, line: str) -> None:
        """See :meth:`Dialect.say`."""
        event, payload = _parsed(line)
        await self._room.acquire()
        before, self._latest = self._latest, trio.Event()
        self._nursery.start_soon(self._push, event, payload, before, self._latest)
        # It is on its way before the next one is even started: lines keep their order.
        await trio.lowlevel.checkpoint()

    async def _push(
        self, event: str, payload: Any, before: trio.Event, printed: trio.Event
    ) -> None:
        try:
            reply = await self._channel.push(event, payload)
            if not self._console.has_prompt:
                # A script reads replies in the order of its lines; a person reads them at once.
                await before.wait()
            await self._put.send(f"{event} {reply.status} {_shown(reply.response)}")
        except (ConnectionClosed, trio.ClosedResourceError):
            pass  # whoever listens tells it
        except phoenix.PushTimeout:
            # No mistake: not every event has a reply.
            await self._console.tell(Mark.STATUS, f"{event}: no reply")
        except TrioglockError as error:
            self.failed = True
            await self._console.tell(Mark.PROBLEM, f"{event}: {redact_text(str(error))}")
        finally:
            self._room.release()
            printed.set()

    async def settle(self) -> None:
        """See :meth:`Dialect.settle`; every push has its reply then, or none will come."""
        for _ in range(PENDING):
            await self._room.acquire()

    async def hear(self) -> Sequence[Data]:
        """See :meth:`Dialect.hear`."""
        try:
            return [await self._lines.receive()]
        except trio.EndOfChannel:
            raise self._end from None

    async def pump(self) -> None:
        """Make lines of what the channel brings, to its end."""
        with self._put:
            try:
                while True:
                    event, payload = await self._channel.receive()
                    for line in self._lines_of(event, payload):
                        await self._put.send(line)
            except phoenix.Disconnected:
                self._end = await self._closed()
            except TrioglockError as error:
                self._end = error

    async def _closed(self) -> TrioglockError:
        """How the connection ends, which is under way."""
        try:
            await self.connection.receive()
        except ConnectionClosed as error:
            return error
        raise AssertionError("the hooks of this connection deliver nothing")

    def _lines_of(self, event: str, payload: Any) -> Sequence[str]:
        self._changes.clear()
        try:
            if self._presence.receive(event, payload, str(self._channel.join_count)):
                return list(self._changes)
        except phoenix.InvalidMessage:
            pass  # an event of that name, and not of presence
        return [f"{event} {_shown(payload)}"]

    def judge(self, error: TrioglockError) -> tuple[int, str]:
        """See :meth:`Dialect.judge`."""
        if type(error) is phoenix.ChannelClosed:
            return OK, f"{self._channel.topic} was closed by the server"
        return super().judge(error)

    async def _show_presence(self, _: str) -> None:
        for name, entry in self._presence.state.items():
            await self._console.tell(Mark.STATUS, _presence("", name, entry))
        await self._console.tell(Mark.STATUS, f"present: {len(self._presence)}")


def _parsed(line: str) -> tuple[str, Any]:
    """The event and the payload of a line.

    Raises:
        Refused: it has none.
    """
    event, _, text = line.strip().partition(" ")
    text = text.strip()
    if not event:
        raise Refused('a push is written: event {"some": "json"}')
    if text.startswith("binary:"):
        try:
            return event, bytes.fromhex(text.removeprefix("binary:"))
        except ValueError:
            raise Refused("binary: takes pairs of hexadecimal digits, such as 00ff") from None
    problem = json_problem(text) if text else None
    if problem is not None:
        raise Refused(f"not sent, for the payload of {event} is no JSON: {problem} of it")
    try:
        return event, json.loads(text) if text else {}
    except ValueError as error:  # more digits than Python takes
        raise Refused(f"not sent: {error}") from None


def _shown(payload: Any) -> str:
    if isinstance(payload, bytes):
        return Shape().text(payload)
    return json.dumps(payload, ensure_ascii=False)


def _presence(sign: str, name: str, entry: Mapping[str, Any]) -> str:
    """Who has come or gone, and what the server says of each of their connections."""
    metas = ({key: meta[key] for key in meta if key != "phx_ref"} for meta in entry["metas"])
    told = [_shown(meta) for meta in metas if meta]
    return " ".join(filter(None, ["presence", sign, name, *told]))


def open_channel(
    url: str, topic: Topic, console: Console, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[Channels]:
    """A connection with one channel.

    Args:
        url: of the socket.
        topic: that is joined.
        console: that asks for it.
        options: of :func:`trioglock.connect`.

    Raises:
        InvalidURL, InvalidOption: at once.
        ConnectError, PhoenixError: on entering the block.
    """
    opening = phoenix.connect(
        url,
        params=topic.params,
        auth_token=topic.token,
        serializer=Witness(topic.name, console) if options["reconnect"] else None,
        timeout=topic.timeout,
        # Without --reconnect the program ends with the channel.
        rejoin_delays=REJOIN_DELAYS if options["reconnect"] else (),
        **options,
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[Channels]:
        async with opening as socket:
            try:
                channel = await socket.join(topic.name, topic.payload)
            except phoenix.PhoenixError:
                await socket.aclose()
                raise
            if console.has_prompt:
                response = _shown(channel.response)
                await console.tell(Mark.STATUS, f"joined {topic.name}: {response}")
            async with trio.open_nursery() as nursery:
                dialect = Channels(socket, channel, console, nursery)
                nursery.start_soon(dialect.pump)
                yield dialect
                nursery.cancel_scope.cancel()

    return opened()
