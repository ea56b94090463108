"""Use MQTT 3.1.1 over a WebSocket, with WebSocketStream as the byte stream of the protocol.

Without arguments, the example starts its own broker, which must be installed (in Debian, the
package ``mosquitto``)::

    python examples/mqtt.py
    python examples/mqtt.py ws://test.mosquitto.org:8080/mqtt
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from trioglock import WebSocketStream, connect

# Packet types, with their fixed flags (MQTT 3.1.1, section 2.2).
CONNECT, CONNACK, PUBLISH, SUBSCRIBE, SUBACK, DISCONNECT = 0x10, 0x20, 0x30, 0x82, 0x90, 0xE0


class MQTTClient:
    """A client for messages with QoS 0. It reads from and writes to any trio stream."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.buffer = bytearray()

    async def log_in(self, client_id: str, keepalive: int = 60) -> None:
        # Level 4 is version 3.1.1; the only flag asks for a clean session.
        variable = encode_text("MQTT") + bytes([4, 0x02]) + keepalive.to_bytes(2, "big")
        await self._send(CONNECT, variable + encode_text(client_id))
        answer = await self._expect(CONNACK)
        if answer[1]:
            raise ConnectionRefusedError(f"the broker refused the connection: code {answer[1]}")

    async def subscribe(self, topic_filter: str) -> None:
        await self._send(SUBSCRIBE, b"\0\1" + encode_text(topic_filter) + b"\0")
        if (await self._expect(SUBACK))[2] == 0x80:
            raise PermissionError(f"the broker refused the subscription to {topic_filter}")

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._send(PUBLISH, encode_text(topic) + payload)

    async def receive(self) -> tuple[str, bytes]:
        body = await self._expect(PUBLISH)
        end = 2 + int.from_bytes(body[:2], "big")
        return body[2:end].decode(), body[end:]

    async def log_out(self) -> None:
        await self._send(DISCONNECT, b"")

    async def _send(self, kind: int, body: bytes) -> None:
        size, length = len(body), bytearray()
        while size >= 0x80:  # 7 bits per byte, the lowest first (section 2.2.3)
            length.append(size % 0x80 | 0x80)
            size //= 0x80
        await self.stream.send_all(bytes([kind]) + length + bytes([size]) + body)

    async def _expect(self, kind: int) -> bytes:
        received = (await self._read(1))[0] & (0xF0 if kind == PUBLISH else 0xFF)
        size = shift = 0
        while (byte := (await self._read(1))[0]) & 0x80:
            size |= (byte & 0x7F) << shift
            shift += 7
        body = await self._read(size | byte << shift)
        if received != kind:
            raise ValueError(f"expected a packet of type {kind:#x}, received {received:#x}")
        return body

    async def _read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError("the broker has closed the connection")
            self.buffer += data
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken


def encode_text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


async def publish_and_receive(url: str) -> None:
    async with connect(url, subprotocols=["mqtt"]) as conn, WebSocketStream(conn) as stream:
        client = MQTTClient(stream)
        await client.log_in("trioglock-example")
        await client.subscribe("garden/+/temperature")
        for place, degrees in (("pond", b"17.5"), ("greenhouse", b"31.0")):
            await client.publish(f"garden/{place}/temperature", degrees)
        for _ in range(2):
            topic, payload = await client.receive()
            print(f"{topic}: {payload.decode()}")
        await client.log_out()
    print(f"closed, subprotocol {conn.subprotocol}")


@asynccontextmanager
async def mosquitto() -> AsyncIterator[str]:
    """Run a broker on a free port."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        sys.exit("mosquitto is not installed; pass the URL of another broker")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        # Version 2.0.11 does not start without another listener.
        lines = f"""
            user root
            listener 0 {folder}/socket
            listener {port} 127.0.0.1
            socket_domain ipv4
            protocol websockets
            allow_anonymous true
        """
        config = trio.Path(folder, "mosquitto.conf")
        await config.write_text("\n".join(map(str.strip, lines.splitlines())))
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, check=False, stderr=subprocess.DEVNULL)
            await nursery.start(run, [program, "-c", str(config)])
            with trio.fail_after(10):
                await wait_listening(port)
            yield f"ws://127.0.0.1:{port}/mqtt"
            nursery.cancel_scope.cancel()


async def wait_listening(port: int) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.05)
        else:
            await stream.aclose()
            return


async def main() -> None:
    if sys.argv[1:]:
        await publish_and_receive(sys.argv[1])
    else:
        async with mosquitto() as url:
            await publish_and_receive(url)


if __name__ == "__main__":
    trio.run(main)
