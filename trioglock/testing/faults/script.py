"""What a test can do to the bytes that pass: the lasting faults, with their arguments checked."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from ...errors import InvalidOption
from ...options import check_whole
from .way import DIRECTIONS, Change, Direction, Way

__all__ = ["Faults", "check_direction"]


class Faults(ABC):
    """The faults that last, for one connection or for all.

    Each is for one direction, ``"to_server"`` or ``"to_client"``, or for both with None; each
    replaces what was said before in the same method; all may hold at the same time.

    Raises:
        InvalidOption: from every method, at the call: an argument of the wrong type or range.
    """

    @abstractmethod
    def _ways(self, direction: Direction | None) -> Sequence[Way]:
        """What a fault of ``direction`` is noted in."""

    def delay(self, seconds: float, direction: Direction | None = None) -> None:
        """Let every byte take so many seconds longer, each way.

        Order is kept. At most 64 KiB are under way in each direction, the sender waits then.

        Args:
            seconds: for each byte; 0 for none.
            direction: of the bytes; None for both.
        """
        _check_number("seconds", seconds, "a number of at least 0", zero=True)
        for way in self._ways(direction):
            way.delay = seconds
            way.notify()

    def throttle(self, bytes_per_second: float | None, direction: Direction | None = None) -> None:
        """Let no more than so many bytes pass in a second, each way.

        Args:
            bytes_per_second: None for any number.
            direction: of the bytes; None for both.
        """
        if bytes_per_second is not None:
            _check_number("bytes_per_second", bytes_per_second, "a number above 0, or None")
        for way in self._ways(direction):
            way.rate = bytes_per_second
            way.notify()

    def split(self, size: int | None = 1, direction: Direction | None = None) -> None:
        """Hand the bytes on in writes of at most ``size``.

        Over TCP the operating system of the receiver may join them again.

        Args:
            size: bytes; None for as they come.
            direction: of the bytes; None for both.
        """
        check_whole("size", size, least=1)
        for way in self._ways(direction):
            way.size = size

    def transform(self, change: Change | None, direction: Direction | None = None) -> None:
        """Replace each chunk that passes by what ``change`` returns for it.

        Args:
            change: gets a chunk of bytes; None for no change.
            direction: of the bytes; None for both.

        Raises:
            InvalidOption: ``change`` is no function.
        """
        if change is not None and not callable(change):
            raise InvalidOption(f"change is a function of bytes, or None, not {change!r}")
        for way in self._ways(direction):
            way.change = change

    def corrupt(self, offset: int, bits: int = 0xFF, direction: Direction | None = None) -> None:
        """Flip bits of one byte, once in each connection.

        Args:
            offset: of the byte; 0 is the next one to pass, in a new connection the first.
            bits: which, as the number that is their mask, at most 255.
            direction: of the byte.

        Raises:
            InvalidOption: there is no such byte, or no such bits.
        """
        check_whole("offset", offset, least=0, none=False)
        check_whole("bits", bits, least=1, none=False)
        if bits > 0xFF:
            raise InvalidOption(f"bits is a mask from 1 to 255, not {bits}")
        for way in self._ways(direction):
            way.flips[way.passed + offset] = bits

    def cut_after(self, size: int | None, direction: Direction | None = None) -> None:
        """Cut each connection once ``size`` more bytes have passed.

        A new connection counts from its beginning, the opening handshake included.

        Args:
            size: bytes; None for never.
            direction: of the bytes; None for both.
        """
        check_whole("size", size, least=1)
        for way in self._ways(direction):
            way.left = size

    def stall(self, direction: Direction | None = None) -> None:
        """Let nothing pass, and no end of the stream either; it waits for :meth:`resume`.

        Args:
            direction: of the bytes; None for both.
        """
        for way in self._ways(direction):
            way.stalled = True
            way.notify()

    def resume(self, direction: Direction | None = None) -> None:
        """Let pass again what :meth:`stall` has held back.

        Args:
            direction: of the bytes; None for both.
        """
        for way in self._ways(direction):
            way.stalled = False
            way.notify()


def check_direction(direction: Direction | None) -> tuple[Direction, ...]:
    """The directions that are meant."""
    if direction is None:
        return DIRECTIONS
    if direction not in DIRECTIONS:
        raise InvalidOption(
            f"direction is 'to_server', 'to_client' or None for both, not {direction!r}"
        )
    return (direction,)


def _check_number(name: str, value: float, allowed: str, *, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InvalidOption(f"{name} is {allowed}, not {value!r}")
