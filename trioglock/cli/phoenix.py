"""``trioglock phoenix``: join a topic of a Phoenix server, at a prompt or through pipes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Unpack

import click
import trio

from .._redact import redact_text
from .._scope import open_scope
from ..client import ConnectOptions
from ..errors import ConnectionClosed, TrioglockError
from ..frames import Data
from ..protocols import phoenix
from .commands import Command, InvalidLine, Mode
from .console import Console, open_console
from .conversation import ConversationPlan, run_conversation
from .options import (
    EXIT_CODES,
    OK,
    CarefulCommand,
    connect_arguments,
    json_value,
    pairs,
    seconds,
    session_options,
    topic_name,
)
from .output import BINARY, Mark, MessageFormat, format_binary, json_problem

__all__ = ["PhoenixMode", "command", "open_channel"]

MAX_QUEUE = 16
"""The maximum number of lines waiting to be printed; the channel has its own queue."""

MAX_PENDING = 100
"""The maximum number of pushes waiting for replies; further lines wait to be pushed."""

REJOIN_DELAYS = (1.0, 2.0, 5.0, 10.0)
"""Seconds before each attempt to rejoin."""

EXAMPLES = """\b
Examples:
  trioglock phoenix ws://localhost:4000/socket join room:1
  trioglock phoenix ws://localhost:4000/socket join room:1 --param user=al
  echo 'shout {"text": "hi"}' | trioglock phoenix ws://localhost:4000/socket join room:1
"""


def _check_pushes(_: click.Context, __: click.Parameter, lines: Sequence[str]) -> Sequence[str]:
    for line in lines:
        try:
            _parse_push(line)
        except InvalidLine as error:
            raise click.BadParameter(f"{error}.") from None
    return lines


@click.command("phoenix", cls=CarefulCommand, epilog=f"{EXIT_CODES}\n{EXAMPLES}")
@click.argument("url")
@click.argument("verb", metavar="join", type=click.Choice(["join"]), expose_value=False)
@click.argument("topic", callback=topic_name)
@click.option(
    "--params", "payload", metavar="JSON", callback=json_value, help="The payload of the join."
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    callback=pairs,
    help="A parameter of the socket, sent in the URL. Repeatable.",
)
@click.option(
    "--token",
    "auth_token",
    envvar="TRIOGLOCK_TOKEN",
    metavar="TOKEN",
    help="The auth_token of Phoenix 1.8. Prefer the environment variable TRIOGLOCK_TOKEN: other "
    "users can see the command line.",
)
@click.option(
    "--push",
    "pushes",
    multiple=True,
    metavar="'EVENT JSON'",
    callback=_check_pushes,
    help="Push an event before the input. Repeatable.",
)
@seconds("--timeout", default="10", help="Timeout of the join, and of each reply.")
@session_options
def command(
    url: str,
    topic: str,
    *,
    payload: Any,
    params: dict[str, str],
    auth_token: str | None,
    pushes: tuple[str, ...],
    timeout: float,
    wait: float | None,
    no_history: bool,
    **given: Any,
) -> int:
    """Join TOPIC of the Phoenix socket at URL; /websocket is appended to the path.

    Each line, typed or piped, is an event and its payload, such as: shout {"text": "hi"}. The event
    is pushed, and its reply is printed as event, status and response. Events from the server are
    printed as event and payload, and joins and leaves as presence + name and presence - name. A
    binary payload is written as "binary:" and its hexadecimal digits.

    The prompt, pipes and exiting work as in trioglock connect; see its help.
    """
    console = open_console(MessageFormat(highlight=True), None if no_history else "phoenix_history")
    options = connect_arguments(url, given, has_prompt=console.has_prompt)
    socket = {"params": params, "auth_token": auth_token, "timeout": timeout}
    return run_conversation(
        console,
        ConversationPlan(url=url, wait=wait, pushes=pushes, reconnect=given["reconnect"]),
        lambda: open_channel(url, topic, payload, console, socket, **options),
        given["trace_file"],
    )


class ChannelObserver(phoenix.V2Serializer):
    """Prints when the channel of a topic crashes and when it is rejoined."""

    def __init__(self, topic: str, console: Console) -> None:
        super().__init__()
        self._topic = topic
        self._console = console
        self._join_ref: str | None = None

    def decode(self, frame: Data) -> phoenix.PhoenixMessage:
        # One frame may be decoded twice.
        message = super().decode(frame)
        if message.topic != self._topic:
            return message
        if message.event == "phx_error" and self._join_ref:
            text = f"{self._topic} crashed on the server"
            self._console.print_event_nowait(Mark.PROBLEM, text)
        elif (
            message.event == "phx_reply"
            and message.ref == message.join_ref != self._join_ref
            and message.payload.get("status") == "ok"
        ):
            if self._join_ref:
                self._console.print_event_nowait(Mark.STATUS, f"rejoined {self._topic}")
            self._join_ref = message.ref
        return message


class PhoenixMode(Mode):
    """Pushes lines, and receives events and replies as lines in the same format.

    The nursery runs the tasks of the channel and of each push.
    """

    def __init__(
        self,
        socket: phoenix.PhoenixSocket,
        channel: phoenix.Channel,
        console: Console,
        nursery: trio.Nursery,
    ) -> None:
        super().__init__(socket.connection)
        self.greeting: str | None = f"joined {channel.topic}: {_format_payload(channel.response)}"
        self._channel = channel
        self._console = console
        self._nursery = nursery
        self._pending = trio.Semaphore(MAX_PENDING)
        self._latest = trio.Event()
        self._latest.set()
        self._end: TrioglockError
        self._lines_in, self._lines = trio.open_memory_channel[str](MAX_QUEUE)
        self._changes: list[str] = []
        self._presence = phoenix.Presence(
            on_join=lambda name, _, new: self._changes.append(_format_presence("+", name, new)),
            on_leave=lambda name, _, left: self._changes.append(_format_presence("-", name, left)),
        )
        nursery.start_soon(self._read_channel)

    @property
    def commands(self) -> Mapping[str, Command]:
        return {"presence": Command("", "show the presence list", self._show_presence)}

    async def send(self, line: str) -> None:
        event, payload = _parse_push(line)
        await self._pending.acquire()
        previous, self._latest = self._latest, trio.Event()
        self._nursery.start_soon(self._push, event, payload, previous, self._latest)
        # The push is sent before the next one starts: lines keep their order.
        await trio.lowlevel.checkpoint()

    async def _push(
        self, event: str, payload: Any, previous: trio.Event, printed: trio.Event
    ) -> None:
        try:
            reply = await self._channel.push(event, payload)
            if not self._console.has_prompt:
                # A script receives the replies in the order of its lines.
                await previous.wait()
            line = f"{event} {reply.status} {_format_payload(reply.response)}"
            await self._lines_in.send(line)
        except (ConnectionClosed, trio.ClosedResourceError):
            pass  # receive() raises it
        except phoenix.PushTimeout:
            # Not an error: some events have no reply.
            await self._console.print_event(Mark.STATUS, f"{event}: no reply")
        except TrioglockError as error:
            self.failed = True
            text = f"{event}: {redact_text(str(error))}"
            # Do not wait here: the end of the channel also ends the command, and cancels this task.
            self._console.print_event_nowait(Mark.PROBLEM, text)
        finally:
            self._pending.release()
            printed.set()

    async def drain(self) -> None:
        for _ in range(MAX_PENDING):  # afterwards, every push has its reply or will not receive one
            await self._pending.acquire()

    async def receive(self) -> Sequence[Data]:
        try:
            return [await self._lines.receive()]
        except trio.EndOfChannel:
            raise self._end from None

    async def _read_channel(self) -> None:
        with self._lines_in:
            try:
                while True:
                    event, payload = await self._channel.receive()
                    for line in self._format_event(event, payload):
                        await self._lines_in.send(line)
            except phoenix.Disconnected:
                self._end = await self._wait_closed()
            except TrioglockError as error:
                self._end = error

    async def _wait_closed(self) -> TrioglockError:
        try:
            await self.connection.receive()
        except ConnectionClosed as error:
            return error
        raise AssertionError("the hooks of this connection deliver nothing")

    def _format_event(self, event: str, payload: Any) -> Sequence[str]:
        self._changes.clear()
        try:
            if self._presence.receive(event, payload, str(self._channel.join_count)):
                return list(self._changes)
        except phoenix.InvalidMessage:
            pass  # an event of the same name that does not come from Phoenix.Presence
        return [f"{event} {_format_payload(payload)}"]

    def describe_end(self, error: TrioglockError) -> tuple[int, str]:
        if type(error) is phoenix.ChannelClosed:
            return OK, f"the server closed {self._channel.topic}"
        return super().describe_end(error)

    async def _show_presence(self, _: str) -> None:
        for name, entry in self._presence.state.items():
            await self._console.print_event(Mark.STATUS, _format_presence("", name, entry))
        await self._console.print_event(Mark.STATUS, f"present: {len(self._presence)}")


def _parse_push(line: str) -> tuple[str, Any]:
    event, _, text = line.strip().partition(" ")
    text = text.strip()
    if not event:
        raise InvalidLine('write a push as: event {"some": "json"}')
    if text.startswith(BINARY):
        try:
            return event, bytes.fromhex(text.removeprefix(BINARY))
        except ValueError:
            raise InvalidLine("binary: takes pairs of hexadecimal digits, such as 00ff") from None
    problem = json_problem(text) if text else None
    if problem is not None:
        raise InvalidLine(f"not sent, invalid JSON in the payload of {event}: {problem}")
    try:
        return event, json.loads(text) if text else {}
    except ValueError as error:  # more digits than Python converts
        raise InvalidLine(f"not sent: {error}") from None


def _format_payload(payload: Any) -> str:
    if isinstance(payload, bytes):
        return format_binary(payload)
    return json.dumps(payload, ensure_ascii=False)


def _format_presence(sign: str, name: str, entry: Mapping[str, Any]) -> str:
    metas = ({key: meta[key] for key in meta if key != "phx_ref"} for meta in entry["metas"])
    words = ("presence", sign, name, *map(_format_payload, filter(None, metas)))
    return " ".join(filter(None, words))


def open_channel(
    url: str,
    topic: str,
    payload: Any,
    console: Console,
    socket_options: Mapping[str, Any],
    **options: Unpack[ConnectOptions],
) -> AbstractAsyncContextManager[PhoenixMode]:
    """Open a connection with one channel.

    InvalidURL and InvalidOption are raised by this call, other errors on entering the block.

    Args:
        url: the URL of the socket.
        topic: the topic of the channel.
        payload: the payload of the join.
        console: prints events of the channel.
        socket_options: ``params``, ``auth_token`` and ``timeout`` of ``phoenix.connect``.
        options: the options of :func:`trioglock.connect`.
    """
    reconnect = options["reconnect"]
    opening = phoenix.connect(
        url,
        serializer=ChannelObserver(topic, console) if reconnect else None,
        # Without --reconnect the command ends with the channel.
        rejoin_delays=REJOIN_DELAYS if reconnect else (),
        **socket_options,
        **options,
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[PhoenixMode]:
        async with opening as socket:
            try:
                channel = await socket.join(topic, payload)
            except phoenix.PhoenixError:
                await socket.aclose()
                raise
            async with open_scope() as nursery:
                yield PhoenixMode(socket, channel, console, nursery)

    return opened()
