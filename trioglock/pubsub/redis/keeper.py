"""The keeper: one connection to Redis at a time, and a new one whenever that is lost."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from ...backoff import Backoff
from ...errors import BrokerError
from .address import Address
from .wire import Wire, WireBroken, open_wire

__all__ = ["Keeper", "Timing"]

_logger = logging.getLogger("trioglock.pubsub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take, in seconds; the arguments of ``RedisBroker``."""

    open_timeout: float
    publish_timeout: float
    health_interval: float
    health_timeout: float
    backoff: Backoff


class Keeper:
    """Keeps a connection for one use.

    Args:
        address: of the server.
        timing: how long things may take.
        use: what to do with a connection, until it breaks.
        what: for the log.
    """

    def __init__(
        self, address: Address, timing: Timing, use: Callable[[Wire], Awaitable[None]], what: str
    ) -> None:
        self.failure: Exception | None = None
        """Why the latest connection, or attempt, ended."""
        self.refused: BrokerError | None = None
        """Set if the server did not let us in at the latest attempt."""
        self.tried: trio.Event = trio.Event()
        """Set after the first attempt."""
        self._address = address
        self._timing = timing
        self._use = use
        self._what = what
        self._down = False
        self._is_up = False
        self._up = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Connect, use, and connect again, until cancelled."""
        backoff = self._timing.backoff
        delays = backoff.delays()
        while True:
            began = trio.current_time()
            try:
                async with open_wire(self._address, self._timing.health_timeout) as wire:
                    await self._use(wire)
            except (WireBroken, BrokerError) as error:
                self.failure = error
                self.refused = error if isinstance(error, BrokerError) else None
                self.tried.set()
                self._log(error)
            finally:
                self.down()
            if trio.current_time() - began >= backoff.stable_after:
                delays = backoff.delays()
            await trio.sleep(next(delays, backoff.maximum))

    def up(self) -> None:
        """The connection is in use."""
        self.failure = self.refused = None
        self.tried.set()
        self._is_up = True
        self._up.unpark_all()
        if self._down:
            self._down = False
            _logger.warning("Redis at %s is back: %s", self._address, self._what)

    def down(self) -> None:
        """The connection can be used no more."""
        self._is_up = False

    async def wait_up(self) -> None:
        """Wait until the connection is in use, if it is not."""
        while not self._is_up:
            await self._up.park()

    def _log(self, error: Exception) -> None:
        # Once for each outage, not for each attempt.
        if not self._down:
            self._down = True
            _logger.warning("Redis at %s is lost: %s: %s", self._address, self._what, error)
