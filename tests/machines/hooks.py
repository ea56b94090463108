"""A socket whose hooks do as the messages tell them, and check how they are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from tests.machines.notebook import Boom, Notebook, Offer, frame_of, label_of
from tests.machines.programs import Setup
from trioglock import (
    Close,
    Connection,
    Deliver,
    Disconnect,
    Reconnect,
    Reply,
    Socket,
    Status,
    Stop,
    UsageError,
)

__all__ = ["Obedient", "Say"]

SECONDS = {"sleep": 1.0, "long": 50.0}
# A state that they return may be refused with the call that brought it.
OF_CALLS = ("handle_send", "handle_call")


@dataclass
class Say:
    """A message for ``handle_send``, ``handle_cast`` or ``handle_call``: what the hook shall do."""

    label: str
    word: str
    size: int = 0
    offer: Offer | None = None


class Obedient(Socket[int]):
    """Counts its hooks in its state.

    Overridden are the hooks that the setup names, each plain or async as the setup says.
    """

    def __init__(self, setup: Setup, notes: Notebook) -> None:
        self.conn: Connection[int]
        self._setup = setup
        self._notes = notes
        self._inside: str | None = None
        # What the state may be at the next hook.
        self._states: set[int | None] = {None if "init_stream" not in setup.hooks else -1}
        self._greetings = list(setup.greetings)
        self._decisions = list(setup.decisions)
        self._open_reply: list[Offer] = []
        for name in setup.hooks:
            body = getattr(self, f"on_{name}")
            hook = self._slow(name, body) if name in setup.slow else self._plain(name, body)
            setattr(self, name, hook)

    # Around every hook.

    def _enter(self, name: str, args: tuple[Any, ...]) -> None:
        notes = self._notes
        notes.hooks += 1
        if notes.begun:
            str(self.conn.status_report())
        for offer in self._open_reply:
            offer.ended = notes.tick()
        self._open_reply.clear()
        if self._inside is not None:
            notes.blame(f"{name} begins inside {self._inside}")
        if notes.ends:
            notes.blame(f"{name} after terminate")
        if notes.stopped and name != "terminate":
            notes.blame(f"{name} after {notes.stopped}")
        self._inside = name
        if name == "terminate":
            notes.ends.append(args[0])
        if name == "init_stream":
            if notes.begun:
                notes.blame("init_stream a second time")
            return
        state = args[-1]
        if not self._has_begun:
            return
        if state not in self._states:
            notes.blame(f"{name} got state {state}, not of {self._states}")
        self._states = {state}

    @property
    def _has_begun(self) -> bool:
        """Whether there is a state; before, only attempts can fail."""
        return bool(self._notes.begun if "init_stream" in self._setup.hooks else self._notes.links)

    def _leave(self, name: str, returned: Any) -> None:
        notes = self._notes
        match returned:
            case int() if name == "init_stream":
                notes.begun += 1
                self._states = {returned}
            case (*_, int(state)) if len(returned) in (2, 3) and self._has_begun:
                # The result may be refused after that, with the state that came along.
                doubtful = name in OF_CALLS or returned[0] == "again"
                self._states = {*self._states, state} if doubtful else {state}
            case _:
                pass

    def _failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, Exception) and name not in OF_CALLS:
            self._notes.raised.append(error)
            self._notes.stopped = f"an error in {name}"

    def _plain(self, name: str, body: Callable[..., Any]) -> Callable[..., Any]:
        def hook(*args: Any) -> Any:
            self._enter(name, args)
            try:
                returned = body(*args)
                self._leave(name, returned)
            except BaseException as error:
                self._failed(name, error)
                raise
            finally:
                self._inside = None
            return returned

        return hook

    def _slow(self, name: str, body: Callable[..., Any]) -> Callable[..., Any]:
        async def hook(*args: Any) -> Any:
            self._enter(name, args)
            try:
                word = self._word(name, args)
                if word == "nap":
                    await trio.lowlevel.checkpoint()
                elif word in SECONDS:
                    self._notes.lost_track = True
                    await trio.sleep(SECONDS[word])
                returned = body(*args)
                self._leave(name, returned)
            except BaseException as error:
                self._failed(name, error)
                raise
            finally:
                self._inside = None
            return returned

        return hook

    def _word(self, name: str, args: tuple[Any, ...]) -> str:
        """What the hook is told to do."""
        match name:
            case "init_stream":
                return self._setup.first
            case "terminate":
                return self._setup.last
            case "handle_connect":
                return self._greetings[0] if self._greetings else "none"
            case "handle_disconnect":
                return self._decisions[0] if self._decisions else "none"
            case "handle_receive":
                return label_of(args[0]).partition(":")[2]
            case "handle_ping" | "handle_pong":
                # The heartbeat's pings have other payloads.
                return str(args[0].decode("latin-1"))
            case _:
                return str(args[0].word)

    # What they do.

    def _obey(self, word: str, label: str, *, first: bool = False) -> Any:
        """The result that a word asks for."""
        if word in ("value", "deliver", "both"):
            self._notes.delivered.append((label, not first))
        match word:
            case "value":
                return label
            case "deliver":
                return Deliver(label)
            case "both":
                return Reply(*self._reply(1, first=first), deliver=label)
            case "reply":
                return Reply(*self._reply(1, first=first))
            case "many":
                return Reply(*self._reply(3, first=first))
            case "replyclose":
                return Reply(*self._reply(1, first=first), Close(4000), frame_of("never", 0))
            case "close":
                return Close(4001)
        return self._act(word, label)

    def _act(self, word: str, label: str) -> None:
        """Do what a word asks for, with no result."""
        notes = self._notes
        if word in ("raise", "abort", "background"):
            notes.lost_track = True
        match word:
            case "raise":
                raise Boom(label)
            case "abort":
                if self.conn.status is not Status.CLOSED:
                    notes.stopped = "abort()"
                self.conn.abort()
            case "background":
                self.conn.start_soon(self._background)
            case "inside":
                self._try_inside()
            case "cast" if "handle_cast" in self._setup.hooks and not self.conn_is_over:
                self.conn.cast(Say(notes.label("c"), "deliver"))

    @property
    def conn_is_over(self) -> bool:
        return self.conn.status is Status.CLOSED or self._notes.lost_track

    async def _background(self) -> None:
        await trio.sleep(0.5)
        error = Boom("in the background of a hook")
        self._notes.raised.append(error)
        raise error

    def _try_inside(self) -> None:
        for call in (self.conn.receive_nowait, lambda: self.conn.send_nowait("x")):
            try:
                call()
            except UsageError:
                continue
            self._notes.blame("a call inside a hook was not refused")

    def _reply(self, count: int, *, first: bool) -> list[str | bytes]:
        offer = self._notes.offer(count, "r", first=first)
        self._open_reply.append(offer)
        return [frame_of(label, 0) for label in offer.labels]

    def _answer(self, word: str, label: str, state: int, *, first: bool = False) -> Any:
        if word == "bad":
            self._notes.lost_track = True
            return 42
        return self._obey(word, label, first=first), self._next(state)

    def _next(self, state: int | None) -> int:
        return (state or 0) + 1

    def on_init_stream(self, stream: Any) -> Any:
        self.conn = stream.connection
        self._obey(self._setup.first, "init")
        return 0

    def on_handle_connect(self, stream: Any, state: int) -> Any:
        self.conn = stream.connection
        word = self._greetings.pop(0) if self._greetings else "none"
        return self._answer(word, self._notes.label("h"), state, first=True)

    def on_handle_receive(self, frame: Any, state: int) -> Any:
        label = label_of(frame)
        self._notes.handled.append(label)
        return self._answer(label.partition(":")[2], label, state)

    def on_handle_ping(self, payload: bytes, state: int) -> Any:
        return self._answer(payload.decode("latin-1"), self._notes.label("p"), state)

    on_handle_pong = on_handle_ping

    def on_handle_cast(self, message: Say, state: int) -> Any:
        return self._answer(message.word, message.label, state)

    def on_handle_call(self, request: Say, state: int) -> Any:
        if request.word == "bad":
            return 42
        if request.word == "raise":
            raise Boom(request.label)
        return request.label, self._obey(request.word, request.label), self._next(state)

    def on_handle_send(self, message: Say, state: int) -> Any:
        offer = message.offer
        assert offer is not None
        frames: list[Any] = [frame_of(label, message.size) for label in offer.labels]
        match message.word:
            case "bad":
                return [*frames, 42], self._next(state)
            case "raise":
                raise Boom(message.label)
            case "close":
                return [*frames, Close(4002), frame_of("never", 0)], self._next(state)
        return (frames or None), self._next(state)

    def on_handle_disconnect(self, reason: Disconnect, state: int) -> Any:
        word = self._decisions.pop(0) if self._decisions else "none"
        match word:
            case "again":
                return Reconnect(delay=0), self._next(state)
            case "later":
                return Reconnect(), self._next(state)
            case "stop":
                return Stop(), self._next(state)
            case "raise":
                raise Boom("in handle_disconnect")
            case "bad":
                return "again", self._next(state)
        return None, self._next(state)

    def on_terminate(self, reason: Disconnect, state: int) -> Any:
        self._obey(self._setup.last, "last")
