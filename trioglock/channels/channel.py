"""``Channel``: the hooks of a topic, and the actions available to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias

from .._hints import describe_value
from .._redact import label, shorten
from .._types import StateT
from ..errors import BadHookResult, InvalidOption, UsageError
from ..hooks import MaybeAwaitable
from ..hooks import Stop as SocketStop
from ..protocols.phoenix.errors import JoinRefused as ClientJoinRefused
from ..routing import Router
from ..routing.router import ignore, is_async
from .history import History
from .results import Answer, Broadcast, ChannelResult, EndReason, JoinRefused, Push, Stop

if TYPE_CHECKING:
    from .actor import ChannelActor

__all__ = [
    "RESULTS",
    "Channel",
    "ChannelHookTable",
    "ClientEvent",
    "HookOutcome",
    "hook_table",
    "result_hint",
    "split_outcome",
]

HookOutcome: TypeAlias = tuple[ChannelResult, StateT]
"""The return value of most hooks: ``(result, state)``."""


class Channel(Generic[StateT]):
    """The hooks of a topic for one client. Override those you need, with ``def`` or ``async def``.

    ::

        class Room(Channel[User]):
            def join(self, topic, payload, user):
                if topic not in user.rooms:
                    raise JoinRefused({"reason": "unauthorized"})
                return {"welcome": topic}, user

            def handle_in(self, event, payload, state):
                match event:
                    case "shout":
                        return Broadcast("shout", payload), state
                    case "echo":
                        return Answer("ok", payload), state

    Each join has its own object, and a state that each hook receives and returns. The hooks of one
    join run one at a time and in order. While an ``async`` hook waits, other topics of the same
    client, and other clients, are served; messages for this topic wait.

    The *result* of a hook is None, one of :class:`Answer`, :class:`Push`, :class:`Broadcast` and
    :class:`Stop`, or a tuple of them.

    An exception raised by a hook, or a result of the wrong shape, ends only this channel: it is
    logged, the client receives ``phx_error``, ``terminate`` runs, and the client may join again.

    For type checkers, ``Channel[State]`` declares the type of the state, by default None.
    """

    intercept: ClassVar[Collection[str]] = ()
    """The events of broadcasts that are passed to :meth:`handle_out`."""

    history: ClassVar[History | None] = None
    """The history of broadcasts for clients that join later; by default none are kept."""

    _actor: ChannelActor | None = None
    _hooks: ClassVar[ChannelHookTable | None] = None  # of this class, not of a base class

    # Hooks.

    def join(
        self,
        topic: str,
        payload: Any,
        user: Any,
    ) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called when a client joins the topic.

        While an ``async`` hook waits, other topics of the same client are served, and messages for
        this topic wait. If the client joins the topic again, the hook is cancelled. It cannot push:
        call :meth:`cast`, and push in :meth:`handle_cast`.

        Args:
            topic: the topic, such as ``"room:1"``.
            payload: the payload of the join.
            user: the user that ``connect`` returned; None without ``connect``.

        Returns:
            ``(response, state)``: the response for the client, a JSON value or ``bytes``, and the
            initial state. With a :attr:`history`, the response must be a dict. Default: ``({},
            user)``, so every client can join.

        Raises:
            JoinRefused: the client may not join. After any other exception the client receives the
                reason "join crashed".
        """
        return {}, user

    def handle_in(
        self, event: str, payload: Any, state: StateT
    ) -> MaybeAwaitable[HookOutcome[StateT]]:
        """Called for each push of the client.

        A class attribute with a :class:`~trioglock.routing.Router` can replace this hook. Its
        handlers are called with a :class:`ClientEvent` and the state.

        Args:
            event: the name of the event.
            payload: a JSON value, or ``bytes`` of a binary message.
            state: the current state.

        Returns:
            ``(result, state)``. Default: raise LookupError, because an unknown event also ends the
            channel in Phoenix.
        """
        raise LookupError(f"{type(self).__name__} does not handle the event {event!r}")

    def handle_out(
        self, event: str, payload: Any, state: StateT
    ) -> MaybeAwaitable[HookOutcome[StateT]]:
        """Called for each broadcast whose event is listed in :attr:`intercept`.

        Args:
            event: the name of the event.
            payload: a JSON value, or ``bytes``.
            state: the current state.

        Returns:
            ``(result, state)``; with None, the client does not receive the event. Default: push it.
        """
        return Push(event, payload), state

    def handle_cast(self, message: Any, state: StateT) -> MaybeAwaitable[HookOutcome[StateT]]:
        """Called for each :meth:`cast`.

        Args:
            message: the argument of ``cast``.
            state: the current state.

        Returns:
            ``(result, state)``. Without this hook, ``cast`` raises UsageError.
        """
        raise UsageError(f"{type(self).__name__} has no handle_cast")

    def terminate(self, reason: EndReason, state: StateT) -> MaybeAwaitable[object]:
        """Called exactly once at the end of each successful join.

        Args:
            reason: why the channel ended.
            state: the current state.
        """
        return None

    # Actions.

    @property
    def topic(self) -> str:
        """The topic.

        Raises:
            UsageError: the channel belongs to no client.
        """
        return self._attached.join.topic

    @property
    def ref(self) -> str | None:
        """The ref of the push that ``handle_in`` handles, to :meth:`answer` it later.

        Raises:
            UsageError: used outside of ``handle_in``.
        """
        return self._attached.take_ref()

    async def answer(self, ref: str | None, status: str, response: Any = None) -> None:
        """Answer a push whose :attr:`ref` was kept.

        Args:
            ref: the ref.
            status: ``"ok"``, ``"error"``, or another string.
            response: a JSON value, or ``bytes``; by default ``{}``.

        Raises:
            ChannelClosed: the channel has ended.
            UsageError: the push has already been answered, or its ref was not kept.
            EncodeError, InvalidMessage: the response cannot be sent. In this case, and after a
                cancellation, the push can still be answered.
        """
        await self._attached.answer(ref, status, {} if response is None else response)

    async def push(self, event: str, payload: Any) -> None:
        """Push an event to the client. Waits while the client is slow.

        Args:
            event: the name of the event.
            payload: a JSON value, or ``bytes`` for a binary message.

        Raises:
            ChannelClosed: the channel has ended.
            UsageError: the client has not joined yet.
            InvalidOption, EncodeError, InvalidMessage: the event or payload cannot be sent.
        """
        await self._attached.push(event, payload)

    async def broadcast(
        self, event: str, payload: Any, to_self: bool = True, keep: bool = True
    ) -> None:
        """Broadcast an event to all clients that have joined the topic, in every process.

        This is also allowed in ``join``, in ``terminate`` and after the end of the channel.

        Args:
            event: the name of the event.
            payload: a JSON value, or ``bytes`` for a binary message.
            to_self: whether the client of this channel also receives it.
            keep: if the class has a history, whether the event is kept and has an id.

        Raises:
            InvalidOption, EncodeError, InvalidMessage: the event or payload cannot be sent.
            BrokerUnavailable, BrokerError: the broker did not accept the message.
            UsageError: the hub is not open.
        """
        await self._attached.broadcast(event, payload, to_self, keep)

    def cast(self, message: Any) -> None:
        """Queue a message for :meth:`handle_cast`. Allowed in hooks, and in any task.

        A cast during ``join`` is handled after the client has received the response.

        Args:
            message: any object.

        Raises:
            ChannelClosed: the channel has ended.
            trio.WouldBlock: too many messages are waiting for the hooks.
            UsageError: there is no ``handle_cast``.
        """
        self._attached.cast(message)

    @property
    def _attached(self) -> ChannelActor:
        if self._actor is None:
            raise UsageError(f"this {type(self).__name__} belongs to no client")
        return self._actor


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """A push from a client, for the handlers of a Router that replaces ``handle_in``.

    Args:
        event: the name of the event.
        payload: a JSON value, or ``bytes`` of a binary message.
        channel: the channel that has received it.
    """

    event: str
    payload: Any
    channel: Channel[Any]


class ChannelHookTable:
    """The hooks of a channel class: which are async, and which events are intercepted.

    Args:
        kind: the class.

    Raises:
        InvalidOption: the class is invalid.
    """

    __slots__ = (
        "cast_is_async",
        "has_cast",
        "history",
        "in_is_async",
        "in_is_plain",
        "in_name",
        "intercept",
        "join_is_async",
        "name",
        "out_is_async",
        "router",
        "terminate_is_async",
    )

    def __init__(self, kind: type[Channel[Any]]) -> None:
        self.name: str = kind.__qualname__
        self.in_name: str = f"{self.name}.handle_in"
        if isinstance(kind.intercept, str) or not all(
            isinstance(event, str) for event in kind.intercept
        ):
            raise InvalidOption(
                f"{self.name}.intercept must be a collection of events such as ('shout',), "
                f"not {kind.intercept!r}"
            )
        self.intercept: frozenset[str] = frozenset(kind.intercept)
        self.history: History | None = kind.history
        if not (self.history is None or isinstance(self.history, History)):
            raise InvalidOption(
                f"{self.name}.history must be a History such as History(size=100), "
                f"not {describe_value(self.history)}"
            )
        for name in ("join", "handle_in", "handle_out", "handle_cast", "terminate"):
            hook = getattr(kind, name)
            if inspect.isasyncgenfunction(hook) or inspect.isgeneratorfunction(hook):
                raise InvalidOption(f"{self.name}.{name} is a generator; a hook returns its result")
        handle_in: Any = kind.handle_in
        self.router: Router | None = handle_in if isinstance(handle_in, Router) else None
        if self.router is not None:
            self.router.freeze(f"used by {self.name}")
        self.join_is_async: bool = is_async(kind.join)
        self.in_is_async: bool = self.router is None and is_async(kind.handle_in)
        self.in_is_plain: bool = self.router is None and not self.in_is_async
        self.out_is_async: bool = is_async(kind.handle_out)
        self.cast_is_async: bool = is_async(kind.handle_cast)
        self.terminate_is_async: bool = is_async(kind.terminate)
        self.has_cast: bool = kind.handle_cast is not Channel.handle_cast

    def find(self, router: Router, event: str) -> tuple[Callable[..., Any], bool, str]:
        """Return the handler of an event in the router, whether it is async, and its name.

        Raises:
            LookupError: there is none.
        """
        handler = router.find(event)
        if handler is ignore:
            raise LookupError(f"the router of {self.name} has no handler for {event!r}")
        return handler, is_async(handler), label(handler)


def hook_table(kind: type[Channel[Any]]) -> ChannelHookTable:
    """Return the hooks of a class."""
    table: ChannelHookTable | None = vars(kind).get("_hooks")
    if table is None:
        table = kind._hooks = ChannelHookTable(kind)  # noqa: SLF001 - the same module
    return table


RESULTS = frozenset({Answer, Broadcast, Push, Stop})


def split_outcome(name: str, returned: Any, first: str = "result") -> tuple[Any, Any]:
    """Check the pair that a hook has returned.

    Raises:
        BadHookResult: it is not a pair.
    """
    if isinstance(returned, tuple) and len(returned) == 2:
        if returned[1].__class__ in RESULTS:
            raise BadHookResult(
                f"{name} must return ({first}, state), in this order: {shorten(returned[1])} is "
                "not a state"
            )
        return returned
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise BadHookResult(f"{name} returned an awaitable; declare it with async def")
    raise BadHookResult(
        f"{name} must return a tuple ({first}, state), not {shorten(returned)}"
        f"{result_hint(returned, first)}"
    )


def result_hint(value: object, first: str = "result") -> str:
    """Return a hint about a wrong result; "" if there is none."""
    if isinstance(value, JoinRefused | ClientJoinRefused):
        return "; raise trioglock.channels.JoinRefused, do not return it"
    if isinstance(value, SocketStop):
        return ", which is trioglock.Stop: return trioglock.channels.Stop"
    if isinstance(value, dict) and first == "result":
        return '; to answer a push, return Answer("ok", {...}), state'
    return ""
