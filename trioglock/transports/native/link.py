"""Native links: frames on a trio stream, in both roles. The hot path of a connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from ...frames import Close, Event, Frame, Violation
from ..base import Handshake, Link, LinkBroken
from ..http1 import STREAM_ERRORS, end_stream
from .decoder import Decoder, ReportingDecoder
from .encoder import Buffer, Encoder
from .poller import AGAIN, ENDED, LEFT, PAUSED, WAIT, Poller, poller_of_run
from .socket_io import NonblockingIO, SocketIO, choose_io

__all__ = ["NativeLink", "NativeServerLink"]

# Bytes of one read. A write that has to wait is split into slices of this size, so that its
# progress is counted.
CHUNK = 2**16

# Maximum size of a write that does not wait.
MAX_WRITE = 2**20

# The poller feeds the links of clients only if a run has at least this many links. With fewer
# links, it has no advantage.
CLIENTS_TO_POLL = 4


class NativeLink(Link):
    """A WebSocket on any trio stream; decoder and encoder determine the role.

    ``rest`` contains the bytes that were received after the handshake.
    """

    __slots__ = (
        "_broken",
        "_closing",
        "_decoder",
        "_encoder",
        "_ended",
        "_fd",
        "_first_events",
        "_handle",
        "_has_backlog",
        "_io",
        "_poller",
        "_rest",
        "bytes_received",
        "bytes_sent",
        "handshake",
    )

    takes_fragments: bool = True
    takes_prepared: bool = True

    _always_polls: bool = False  # even if it is the only link of the run

    def __init__(
        self,
        stream: trio.abc.Stream,
        handshake: Handshake,
        decoder: Decoder,
        encoder: Encoder,
        rest: bytes = b"",
    ) -> None:
        self.handshake: Handshake = handshake
        self.bytes_received: int = len(rest)
        self.bytes_sent: int = 0
        self._io = choose_io(stream)
        self._decoder: Decoder | ReportingDecoder = decoder
        self._encoder = encoder
        self._first_events = decoder.feed(rest)
        self._rest: list[Buffer] = []  # what write_now() could not write
        self._broken: OSError | None = None
        self._ended = False  # no events follow; a server then ends the stream
        self._closing = False  # our Close frame is being written; only pongs may follow it
        self._poller: Poller | None = None  # from the first feed() until aclose()
        self._fd = -1  # the descriptor in the poller
        self._has_backlog = False  # the decoder has events left for the poller
        self._handle: Callable[[list[Event]], bool] | None = None  # the argument of feed()

    def report_all(self) -> None:
        self._decoder = ReportingDecoder(self._decoder)

    @property
    def partial(self) -> object:
        return self._decoder.partial

    async def feed(self, handle: Callable[[list[Event]], bool]) -> bool:
        polls = isinstance(self._io, NonblockingIO)
        if polls and self._poller is None:
            self._poller = poller_of_run()
            if self._poller is not None:
                self._poller.join()
        poller = self._poller
        while True:
            if (
                polls
                and poller is not None
                and (self._always_polls or poller.links >= CLIENTS_TO_POLL)
                and not (self._ended or self._has_pending)
            ):
                progress = await self._feed_polled(poller, handle)
                if progress != LEFT:
                    return progress == PAUSED
                polls = False
            events = await self.receive()
            if not events:
                return False
            if not handle(events):
                return True

    async def _feed_polled(self, poller: Poller, handle: Callable[[list[Event]], bool]) -> int:
        self._handle, self._has_backlog = handle, False
        self._fd = self._io.fileno()  # type: ignore[union-attr]
        try:
            return await poller.feed(self._fd, self._feed_chunk)
        except OSError as error:
            raise LinkBroken(str(error)) from error
        finally:
            self._fd = -1
            self._handle = None

    @trio.lowlevel.disable_ki_protection
    def _feed_chunk(self) -> int:
        """Read and handle one chunk; called by the poller."""
        io, decoder = self._io, self._decoder
        chunk: bytes | None = b""
        if not self._has_backlog:
            try:
                chunk = io.read_now(CHUNK)  # type: ignore[union-attr]
            except OSError as error:
                raise LinkBroken(str(error)) from error
            if not chunk:
                return WAIT if chunk is None else ENDED
            self.bytes_received += len(chunk)
        events = decoder.feed(chunk)  # type: ignore[arg-type]
        if events:
            if events[-1].__class__ is not list:
                self._ended = isinstance(events[-1], Close | Violation)
            if not self._handle(events):  # type: ignore[misc]
                return PAUSED
            if self._ended:
                return LEFT
        self._has_backlog = decoder.backlog
        return AGAIN if self._has_backlog or io.pending else WAIT  # type: ignore[union-attr]

    @property
    def _has_pending(self) -> bool:
        """Whether events can be received although the socket may have nothing to read."""
        return bool(
            self._first_events or self._decoder.backlog or self._io.pending  # type: ignore[union-attr]
        )

    async def receive(self) -> list[Event]:
        if self._first_events:
            events, self._first_events = self._first_events, []
            return events
        decoder = self._decoder
        receive_some = self._io.receive_some
        try:
            while True:
                chunk = b""
                if decoder.backlog:
                    await trio.lowlevel.checkpoint()
                else:
                    data = await receive_some(CHUNK)
                    if not data:
                        return []
                    # Some streams return bytearrays, whose slices would be delivered to the user.
                    chunk = data if data.__class__ is bytes else bytes(data)
                    self.bytes_received += len(chunk)
                events = decoder.feed(chunk)
                if events:
                    return events
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise LinkBroken(str(error.__cause__ or error)) from (error.__cause__ or error)

    async def write(self, frames: Sequence[Frame]) -> None:
        buffers = self._rest + self._encoder.encode_buffers(frames)
        self._rest = []
        if frames and frames[-1].__class__ is Close:
            self._closing = True
        try:
            if self._broken is not None:
                raise self._broken
            for data in buffers:
                if len(data) <= CHUNK:
                    await self._io.send_all(data)
                    self.bytes_sent += len(data)
                else:
                    await self._write_large(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._broken = None  # its traceback refers to this link
            self._check_closed()
            raise LinkBroken(str(error.__cause__ or error)) from (error.__cause__ or error)
        if self._closing:
            self._set_close_sent()

    async def _write_large(self, data: Buffer) -> None:
        io = self._io
        with memoryview(data) as view:
            sent = 0
            while sent < len(data):
                with view[sent : sent + CHUNK] as part:
                    await io.send_all(part)
                    self.bytes_sent += len(part)
                    sent += len(part)
                if self.writes_now:
                    # The socket has space again: fill the space, instead of waiting for each slice.
                    with view[sent : sent + MAX_WRITE] as part:
                        now = io.send_now(part)  # type: ignore[union-attr]
                    self.bytes_sent += now
                    sent += now
                await trio.lowlevel.checkpoint()

    @property
    def defers(self) -> bool:
        return self._poller is not None and self._poller.defers

    def defer(self, write: Callable[[], None]) -> None:
        assert self._poller is not None  # it defers
        self._poller.defer(write)

    @property
    def writes_now(self) -> bool:
        return isinstance(self._io, NonblockingIO)

    def write_now(self, frames: Sequence[Frame]) -> bool:
        buffers = self._encoder.encode_buffers(frames)
        if frames and frames[-1].__class__ is Close:
            self._closing = True
        send_now = self._io.send_now  # type: ignore[union-attr]
        for number, data in enumerate(buffers):
            try:
                sent = send_now(data)
            except OSError as error:
                self._broken, sent = error.with_traceback(None), 0
                self._check_closed()
            self.bytes_sent += sent
            if sent < len(data):
                # A view: the data of a broadcast is shared by all connections that are behind.
                self._rest = [memoryview(data)[sent:], *buffers[number + 1 :]]
                return False
        if self._closing:
            self._set_close_sent()
        return True

    def start_write(self, frame: Frame) -> tuple[int, bytes] | None:
        if self._io.__class__ is SocketIO:
            data = self._encoder.encode_single(frame)
            if data:
                return self._io.fileno(), data
        return None

    def finish_write(self, data: bytes, sent: int | OSError) -> bool:
        if isinstance(sent, OSError):
            if not isinstance(sent, BlockingIOError):
                self._broken = sent.with_traceback(None)
                self._check_closed()
            sent = 0
        self.bytes_sent += sent
        if sent < len(data):
            self._rest = [memoryview(data)[sent:]]
            return False
        return True

    def _set_close_sent(self) -> None:
        """Called when the Close frame, or a pong after it, has been written."""

    def _check_closed(self) -> None:
        """Wake the task in :meth:`feed` if other code has closed the socket.

        The poller cannot detect this, because a closed socket silently leaves the epoll instance.
        """
        if self._poller is not None and self._fd != -1 and self._io.fileno() == -1:  # type: ignore[union-attr]
            self._poller.closed(self._fd)

    async def aclose(self) -> None:
        poller, self._poller = self._poller, None
        if poller is not None:
            if self._fd != -1:
                poller.closed(self._fd)
            poller.leave()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await trio.aclose_forcefully(self._io)


class NativeServerLink(NativeLink):
    """The link of a server, which ends the stream after a close (RFC 6455, section 7.1.1).

    ``response`` is the response to the opening handshake, which :meth:`respond` writes.
    """

    __slots__ = ("_close_sent", "_close_sent_event", "_response", "_stream")

    _always_polls: bool = True

    def __init__(
        self,
        stream: trio.abc.Stream,
        handshake: Handshake,
        decoder: Decoder,
        encoder: Encoder,
        rest: bytes = b"",
        *,
        response: bytes = b"",
    ) -> None:
        super().__init__(stream, handshake, decoder, encoder, rest)
        self._response = response
        self._stream = stream
        self._close_sent = False
        self._close_sent_event: trio.Event | None = None

    async def receive(self) -> list[Event]:
        if self._ended:
            if not self._close_sent:
                self._close_sent_event = trio.Event()
                await self._close_sent_event.wait()
            await end_stream(self._stream)
            return []
        events = await super().receive()
        if events:
            self._ended = isinstance(events[-1], Close | Violation)
        return events

    async def respond(self) -> None:
        response, self._response = self._response, b""
        try:
            await self._io.send_all(response)
        except STREAM_ERRORS as error:
            raise LinkBroken(str(error.__cause__ or error)) from (error.__cause__ or error)

    async def write(self, frames: Sequence[Frame]) -> None:
        try:
            await super().write(frames)
        except LinkBroken:
            self._set_close_sent()
            raise

    def _set_close_sent(self) -> None:
        self._close_sent = True
        if self._close_sent_event is not None:
            self._close_sent_event.set()
