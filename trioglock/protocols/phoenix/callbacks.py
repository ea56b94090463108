"""Calls the callbacks of one :class:`ChannelClient`, and threads the state through them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..._redact import label
from ...errors import BadHookResult, InvalidOption
from .client import ChannelClient, ChannelTransport, Connect, Result, Stop

__all__ = ["Callbacks", "check_client"]

StateT = TypeVar("StateT")


class Callbacks(Generic[StateT]):
    """One client, and the state that its latest callback returned.

    Args:
        client: the user's.
    """

    state: StateT

    def __init__(self, client: ChannelClient[StateT]) -> None:
        self.client: ChannelClient[StateT] = client

    async def init(self) -> None:
        """Make the first state."""
        self.state = await _awaited(self.client.init())

    async def tell(self, callback: Callable[..., Any], *args: Any) -> Result:
        """Call any callback but the first and ``handle_call``.

        Returns:
            What it wants to be done.

        Raises:
            BadHookResult: it returned something else than it may.
            Exception: whatever it raises.
        """
        returned = await _awaited(callback(*args, self.state))
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise _bad_result(callback, "a tuple (result, state)", returned)
        result = _checked(returned[0])
        self.state = returned[1]
        return result

    async def ask(self, request: Any, transport: ChannelTransport) -> tuple[Any, Result]:
        """Call ``handle_call``.

        Returns:
            Its reply, and what it wants to be done.

        Raises:
            BadHookResult, Exception: as :meth:`tell`.
        """
        callback = self.client.handle_call
        returned: Any = await _awaited(callback(request, transport, self.state))
        if not isinstance(returned, tuple) or len(returned) not in (2, 3):
            wanted = "a tuple (reply, state) or (reply, result, state)"
            raise _bad_result(callback, wanted, returned)
        result = _checked(returned[1] if len(returned) == 3 else None)
        self.state = returned[-1]
        return returned[0], result


async def _awaited(returned: Any) -> Any:
    return await returned if inspect.isawaitable(returned) else returned


def _checked(result: Any) -> Result:
    if result is None or isinstance(result, Connect | Stop):
        return result
    raise BadHookResult(f"a callback's result is None, Connect or Stop, not {result!r:.200}")


def _bad_result(callback: Callable[..., Any], wanted: str, returned: object) -> BadHookResult:
    name = label(callback)
    return BadHookResult(f"{name} must return {wanted}, not {returned!r:.200}")


def check_client(client: ChannelClient[StateT]) -> ChannelClient[StateT]:
    """The client to use.

    Raises:
        InvalidOption: it is none.
    """
    if isinstance(client, type) and issubclass(client, ChannelClient):
        raise InvalidOption(f"client is an instance, not the class: write {client.__name__}()")
    if not isinstance(client, ChannelClient):
        raise InvalidOption(f"client is a ChannelClient, not {client!r}")
    return client
