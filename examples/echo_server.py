"""A server: hooks for each connection, a page over plain HTTP, and a graceful shutdown.

Without arguments it runs its own client and ends. With a port it serves until Ctrl-C; open the
URL that it prints in a browser::

    python examples/echo_server.py
    python examples/echo_server.py 8765
"""

from __future__ import annotations

import signal
import sys

import trio

from trioglock import ConnectionInfo, Reply, Request, Response, Server, Socket, connect, serve

PAGE = """<!doctype html><title>Echo</title>
<input id=say placeholder="say something" autofocus><pre id=log></pre>
<script>
  const socket = new WebSocket(location.href.replace(/^http/, "ws"));
  socket.onmessage = (event) => log.append(event.data + "\\n");
  say.onchange = () => { socket.send(say.value); say.value = ""; };
</script>"""


class Echo(Socket[int]):
    def init_stream(self, info: ConnectionInfo) -> int:
        return 0

    def handle_receive(self, frame: str | bytes, state: int) -> tuple[Reply, int]:
        return Reply(f"{state + 1}. {frame!r}"), state + 1


def respond(request: Request) -> Response | None:
    if request.path == "/health":
        return Response(200, "ok\n")
    if "upgrade" not in request.headers:
        return Response(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
    return None  # continue with the WebSocket handshake


async def demonstrate(server: Server) -> None:
    async with connect(f"ws://127.0.0.1:{server.port}/") as conn:
        for word in ("hello", "world"):
            await conn.send(word)
            print(await conn.receive())
        print(f"broadcast to {server.broadcast('lunch time')}: {await conn.receive()!r}")
        server.close(reason="that was all")
        await conn.wait_closed()
        print(f"closed with {conn.close_code} {conn.close_reason}")


async def main() -> None:
    port = int(sys.argv[1]) if sys.argv[1:] else 0
    async with serve(Echo, "127.0.0.1", port, process_request=respond) as server:
        if not port:
            await demonstrate(server)
            return
        print(f"http://127.0.0.1:{server.port}/ until Ctrl-C")
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await anext(signals)


if __name__ == "__main__":
    trio.run(main)
