"""The texts that clients of channels exchange with each kind of server.

In the texts, ``{n}`` is the number of the message, and ``{c}`` that of the client.
"""

from __future__ import annotations

from dataclasses import dataclass

from .job import payload

__all__ = ["PHOENIX", "PLAIN", "SOCKET_IO", "Dialect"]

PLACE = "{payload}"


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What clients send, and how they recognize the messages of the server.

    Args:
        path: the path and query of the URL.
        greeting: the first message of a client, if there is one.
        greeted: a part of the answer to it.
        join: joins the topic ``{n}``; empty if there are no topics.
        leave: leaves it.
        push: a push to the topic 0, with ``{payload}`` in place of the payload.
        reply: a part of each reply, and of no other message.
        heartbeat: what a client sends every 30 seconds, if anything.
    """

    path: str
    greeting: str = ""
    greeted: str = ""
    join: str = ""
    leave: str = ""
    push: str
    reply: str
    heartbeat: str = ""

    def push_of(self, size: int) -> str:
        """Return a push whose payload contains a text of this size."""
        return self.push.replace(PLACE, f'{{"text":"{payload(size).decode()}"}}')


PHOENIX = Dialect(
    path="/socket/websocket?vsn=2.0.0",
    join='["{n}","{n}","room:{n}","phx_join",{}]',
    leave='["{n}","{n}","room:{n}","phx_leave",{}]',
    push='["0","p{n}","room:0","echo",{payload}]',
    reply='"phx_reply"',
    heartbeat='[null,"h{n}","phoenix","heartbeat",{}]',
)

SOCKET_IO = Dialect(
    path="/socket.io/?EIO=4&transport=websocket",
    greeting="40",
    greeted="40{",
    join='42{n}["join","room:{n}"]',
    leave='42{n}["leave","room:{n}"]',
    push='42{n}["echo",{payload}]',
    reply='["ok"',
)

# The reply of a channels server, which an echo returns as it is.
PLAIN = Dialect(
    path="/",
    push='["0","p{n}","room:0","phx_reply",{"response":{payload},"status":"ok"}]',
    reply='"phx_reply"',
)
