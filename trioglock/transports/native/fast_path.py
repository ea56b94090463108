"""The fast path of decoding: loops that extract whole, plain data frames from one chunk.

A loop starts where a frame begins and no message is open. It appends messages to a run, and returns
the position of the first frame that it does not handle: a control frame, a fragment, a compressed
frame, a frame that is incomplete or larger than the limit, an illegal frame. There is one loop for
each role, because they process nearly all traffic and every test in them costs measurable time.
For the same reason they do not support limits below 125 bytes.
"""

from __future__ import annotations

from ...frames import Run

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled wheel
    from websockets.utils import apply_mask

__all__ = ["LEAST_LIMIT", "apply_mask", "cut_masked", "cut_plain"]

FINAL_TEXT, FINAL_BINARY = 0x81, 0x82
MASKED = 0x80

LEAST_LIMIT = 125
"""The smallest limit that the loops support. Frames with a short length never exceed this size, so
the loops do not check them."""


def cut_plain(chunk: bytes, at: int, limit: int, run: Run) -> int:
    """Extract frames from a server, which are not masked (RFC 6455, section 5.1).

    Raises:
        UnicodeDecodeError: a text is not UTF-8; ``run`` contains the messages before it.
    """
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
        if chunk[at] == 0x81:  # FINAL_TEXT; the global name would be slower
            run.append(chunk[start:stop].decode())
        elif chunk[at] == FINAL_BINARY:
            run.append(chunk[start:stop])
        else:
            break
        at = stop
    return at


def cut_masked(chunk: bytes, at: int, limit: int, run: Run) -> int:
    """Extract frames from a client, each masked with its own key (RFC 6455, section 5.3).

    Raises:
        UnicodeDecodeError: a text is not UTF-8; ``run`` contains the messages before it.
    """
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
            run.append(apply_mask(chunk[start:stop], chunk[key:start]).decode())
        elif head == FINAL_BINARY:
            run.append(apply_mask(chunk[start:stop], chunk[key:start]))
        else:
            break
        at = stop
    return at
