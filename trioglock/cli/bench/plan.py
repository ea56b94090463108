"""The plan: what is to be measured, and the messages for it."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...errors import InvalidOption
from ...frames import Data
from ...headers import Headers

__all__ = ["Plan", "messages_of"]

MAX_HELD = 2**30
"""Bytes of messages that may be on their way at the same time: each is kept for comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured.

    Args:
        url: of the echo server; it may hold secrets.
        connections: at the same time.
        size: of a message, in bytes.
        binary: whether messages are binary; else text.
        in_flight: messages on their way on each connection.
        seconds: to measure; None to measure ``messages``.
        messages: in all; None to measure for ``seconds``.
        warm_up: seconds of traffic before anything is measured.
        timeout: seconds that an echo may take.
        proxied: whether the proxy is used that the environment names.
        compressed: whether permessage-deflate is offered.
        headers: of the opening handshakes; they may be secrets.

    Raises:
        InvalidOption: it would take too much memory.
    """

    url: str = field(repr=False)
    connections: int = 10
    size: int = 64
    binary: bool = False
    in_flight: int = 1
    seconds: float | None = 5.0
    messages: int | None = None
    warm_up: float = 1.0
    timeout: float = 10.0
    proxied: bool = True
    compressed: bool = True
    headers: Headers = field(default=Headers(), repr=False)

    def __post_init__(self) -> None:
        held = self.connections * self.in_flight * self.size
        if held > MAX_HELD:
            raise InvalidOption(
                f"{self.connections} connections with {self.in_flight} messages of {self.size} "
                f"bytes on their way are {held:,} bytes to remember, at most {MAX_HELD:,} are"
            )


def messages_of(plan: Plan) -> Iterator[Data]:
    """Messages without end, each different from those before it as far as its size allows.

    Their bytes are random, so that compression has something to do: none for binary, a quarter
    for text.
    """
    noise = random.Random(20).randbytes(plan.size)  # noqa: S311 - noise, no secret
    text = base64.b64encode(noise).decode()
    number = 0
    while True:
        number += 1
        mark = f"{number:x} "
        if len(mark) > plan.size:
            mark = f"{number:0{plan.size}x}"[-plan.size :] if plan.size else ""
        at = len(mark)
        yield mark.encode() + noise[at:] if plan.binary else mark + text[at : plan.size]
