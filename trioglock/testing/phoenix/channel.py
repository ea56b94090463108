"""What happens on a topic: write your own channel, or use :class:`MockTopic`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from trio_websocket import ConnectionClosed

from . import format as wire

if TYPE_CHECKING:
    from .client import MockClient

__all__ = ["MockPhoenixChannel", "MockTopic", "RefuseJoin"]

QUEUE = 2**16


class RefuseJoin(Exception):
    """Raised in ``on_join``: the join is refused with ``response``."""

    def __init__(self, response: Any) -> None:
        super().__init__(response)
        self.response: Any = response


class MockPhoenixChannel:
    """One client on one topic. Override the two hooks, and push, broadcast, stop and crash in them.

    Events of one channel are handled one after the other, those of different channels side by
    side. A join blocks the client's whole connection, as Phoenix's does: heartbeats wait for it.
    """

    def __init__(self, client: MockClient, topic: str, join_ref: str | None) -> None:
        self.client: MockClient = client
        """The connection: its ``peer`` is a :class:`MockPeer`."""
        self.topic: str = topic
        self.join_ref: str | None = join_ref
        self.alive: bool = True
        """Whether it has neither stopped nor crashed nor been left."""
        self.tracked: dict[str, dict[str, Any]] = {}
        self._jobs, self._waiting = trio.open_memory_channel[wire.ClientMessage](QUEUE)
        self._scope = trio.CancelScope()

    # Hooks.

    async def on_join(self, payload: Any) -> Any:
        """The response to a join. Raise :class:`RefuseJoin`; anything else is a join that crashes.

        Default: ``{}``.

        Args:
            payload: of the join.
        """
        return {}

    async def on_joined(self) -> None:
        """Called when the response has gone: push what a client gets first."""

    async def on_event(self, event: str, payload: Any) -> Any:
        """The reply to a push: ``(status, response)``, a bare status, or None for no reply.

        An exception crashes the channel, as an unknown event does on a server. Default: a
        LookupError for every event.

        Args:
            event: its name.
            payload: what JSON can say, or bytes.
        """
        raise LookupError(f"no function clause for {event!r}")

    # Tools.

    async def push(self, event: str, payload: Any) -> None:
        """Push an event to this client.

        Args:
            event: its name.
            payload: what JSON can say, or bytes-like.
        """
        await self.client.send(wire.push(self.join_ref, self.topic, event, payload))

    async def broadcast(self, event: str, payload: Any) -> None:
        """Push an event to every client on this topic, this one included.

        Args:
            event: its name.
            payload: what JSON can say, or bytes-like.
        """
        await self.client.server.broadcast(self.topic, event, payload)

    async def reply(self, ref: str | None, status: str, response: Any) -> None:
        """Answer a push, by hand: late, twice, or with a ref that never was.

        Args:
            ref: of the push that is answered.
            status: ``"ok"`` or ``"error"``, as Phoenix has it.
            response: what JSON can say, or bytes-like.
        """
        await self.client.send(wire.reply(self.join_ref, ref, self.topic, status, response))

    async def stop(self) -> None:
        """End in good order: ``phx_close``."""
        await self._end("phx_close", {})

    async def crash(self) -> None:
        """End with ``phx_error``."""
        await self._end("phx_error", self.client.server.crash_payload)

    async def _end(self, event: str, payload: Any) -> None:
        if self.alive:
            ref = self.join_ref
            # It may be a hook of this channel that ends it, and so is cancelled here.
            with trio.CancelScope(shield=True):
                await self.close()
                await self.client.send(wire.push(ref, self.topic, event, payload, ref))

    async def track(self, key: str, *, diff_first: bool = False, **meta: Any) -> None:
        """Presence: tell this client who is there, and everyone who has come.

        Args:
            key: of the presence.
            diff_first: whether the diff goes out before the state, as it may.
            meta: what is known of this client.
        """
        if diff_first:
            await self._track(key, meta)
        await self.push("presence_state", self.client.server.presences(self.topic))
        if not diff_first:
            await self._track(key, meta)

    async def _track(self, key: str, meta: dict[str, Any]) -> None:
        meta = {"phx_ref": self.client.server.new_ref(), **meta}
        self.tracked[key] = meta
        diff = {"joins": {key: {"metas": [meta]}}, "leaves": {}}
        await self.broadcast("presence_diff", diff)

    # What the connection asks for.

    async def close(self) -> None:
        """End without a word."""
        if not self.alive:
            return
        self.alive = False
        self.client.forget(self)
        self._scope.cancel()
        if self.tracked:
            left = {key: {"metas": [meta]} for key, meta in self.tracked.items()}
            self.tracked = {}
            with trio.CancelScope(shield=True):
                await self.broadcast("presence_diff", {"joins": {}, "leaves": left})

    def post(self, message: wire.ClientMessage) -> None:
        """A push has come."""
        self._jobs.send_nowait(message)

    async def run(self) -> None:
        """Handle what is pushed until the end."""
        with self._scope:
            await self._guard(self.on_joined)
            async for message in self._waiting:
                await self._guard(self._handle, message)

    async def _guard(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        try:
            await fn(*args)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
            raise
        except Exception:  # noqa: BLE001 - whatever the script raises, as on a server
            await self.crash()

    async def _handle(self, message: wire.ClientMessage) -> None:
        answer = await self.on_event(message.event, message.payload)
        if answer is not None:
            status, response = (answer, {}) if isinstance(answer, str) else answer
            await self.reply(message.ref, status, response)


class MockTopic(MockPhoenixChannel):
    """A room that knows most of what a channel may do.

    ==============  =====================================================================
    ``echo``        replies ``ok`` with the payload, text or binary
    ``bare``        replies ``ok`` and nothing more
    ``fail``        replies ``error`` with the payload
    ``silent``      does not reply
    ``shout``       broadcasts the payload, and replies ``ok``
    ``back``        pushes the payload back, and does not reply
    ``stop``        ends with ``phx_close`` instead of a reply
    others          crash
    ==============  =====================================================================

    It welcomes with ``{"welcome": topic}`` and then pushes ``hello``; the topic ``room:forbidden``
    is refused, and ``room:crash`` crashes while joining.
    """

    async def on_join(self, payload: Any) -> Any:
        """As :meth:`MockPhoenixChannel.on_join`.

        Raises:
            RefuseJoin: of the topic ``room:forbidden``.
            RuntimeError: of the topic ``room:crash``, which crashes it.
        """
        if self.topic == "room:forbidden":
            raise RefuseJoin({"reason": "unauthorized"})
        if self.topic == "room:crash":
            raise RuntimeError("join crashed")
        return {"welcome": self.topic}

    async def on_joined(self) -> None:
        """As :meth:`MockPhoenixChannel.on_joined`."""
        await self.push("hello", {"topic": self.topic})

    async def on_event(self, event: str, payload: Any) -> Any:
        """As :meth:`MockPhoenixChannel.on_event`."""
        match event:
            case "echo":
                return "ok", payload
            case "bare":
                return "ok"
            case "fail":
                return "error", payload
            case "silent":
                return None
            case "shout":
                await self.broadcast("shout", payload)
                return "ok"
            case "back":
                await self.push("back", payload)
                return None
            case "stop":
                await self.stop()
                return None
            case _:
                return await super().on_event(event, payload)
