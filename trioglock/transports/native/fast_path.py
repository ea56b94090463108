"""The fast lanes: loops that cut every whole, plain data frame out of one chunk.

A lane is called where a frame begins and no message is open. It adds what it takes to a run, and
returns where the first thing begins that it does not know: a control frame, a fragment, a
compressed frame, one cut off by the end of the chunk or larger than the limit, anything illegal.
There are two, one for each role, because they take nearly all of the traffic, and every test in the
loop shows. For the same reason a limit below 125 bytes, which none would set, is not for them.
"""

from __future__ import annotations

from ...frames import Run
from .masking import apply_mask

__all__ = ["LEAST_LIMIT", "cut_masked", "cut_plain"]

FINAL_TEXT, FINAL_BINARY = 0x81, 0x82
MASKED = 0x80

LEAST_LIMIT = 125
"""What every frame with a short length keeps to: the lanes do not check those."""


def cut_plain(chunk: bytes, at: int, limit: int, run: Run) -> int:
    """Frames of a server, which are not masked (RFC 6455, section 5.1).

    Raises:
        UnicodeDecodeError: a text is none; ``run`` has what came before it.
    """
    append = run.append
    end = len(chunk)
    last = end - 1
    while at < last:
        length = chunk[at + 1]
        start = at + 2
        if length > 125:
            if length == 126:
                start = at + 4
            elif length == 127:
                start = at + 10
            else:
                break
            length = int.from_bytes(chunk[at + 2 : start])
            if length > limit:
                break
        stop = start + length
        if stop > end:
            break
        if chunk[at] == 0x81:  # FINAL_TEXT; a name would show
            append(chunk[start:stop].decode())
        elif chunk[at] == FINAL_BINARY:
            append(chunk[start:stop])
        else:
            break
        at = stop
    return at


def cut_masked(chunk: bytes, at: int, limit: int, run: Run) -> int:
    """Frames of a client, each masked with a key of its own (RFC 6455, section 5.3).

    Raises:
        UnicodeDecodeError: a text is none; ``run`` has what came before it.
    """
    append = run.append
    end = len(chunk)
    last = end - 1
    while at < last:
        length = chunk[at + 1] - MASKED
        key = at + 2
        if length > 125:
            key = at + (4 if length == 126 else 10)
            length = int.from_bytes(chunk[at + 2 : key])
            if length > limit:
                break
        elif length < 0:
            break
        start = key + 4
        stop = start + length
        if stop > end:
            break
        head = chunk[at]
        if head == FINAL_TEXT:
            append(apply_mask(chunk[start:stop], chunk[key:start]).decode())
        elif head == FINAL_BINARY:
            append(apply_mask(chunk[start:stop], chunk[key:start]))
        else:
            break
        at = stop
    return at
