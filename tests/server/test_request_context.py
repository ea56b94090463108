"""The request of a connection, and what ``process_request`` has attached to it."""

from __future__ import annotations

import pytest
import trio
from websockets.sync.client import connect as library_connect

from tests.server.helpers import Echo, MakeTransport, on_both, serving
from trioglock import (
    Connection,
    ConnectionInfo,
    Headers,
    Reply,
    Request,
    Response,
    Socket,
    UsageError,
    serve,
)


def attach_user(request: Request) -> Response | None:
    """Attach the user that a header names."""
    user = request.headers.get("X-User")
    if user is None:
        return Response(401)
    request.data["user"] = user
    return None


class Greeter(Socket[str]):
    """Its state is the user; every hook finds the same request."""

    def init_stream(self, info: ConnectionInfo) -> str:
        assert info.http_request is info.connection.http_request
        user: str = info.http_request.data["user"]
        return user

    def handle_connect(self, info: ConnectionInfo, state: str) -> tuple[object, str]:
        request = info.http_request
        return Reply(f"{state} asks for {request.path} and {request.query}"), state


@on_both
async def test_hooks_find_the_request_with_the_attached_user(
    transport: MakeTransport, autojump_clock: object
) -> None:
    headers = {"X-User": "al"}
    async with (
        serving(Greeter, process_request=attach_user, transport=transport()) as site,
        site.dial("/chat?room=7", additional_headers=headers) as conn,
    ):
        assert await conn.receive() == "al asks for /chat and room=7"
        [served] = site.server.connections
        assert served.http_request.headers["x-user"] == "al"


async def test_a_handler_finds_what_an_async_function_has_attached(autojump_clock: object) -> None:
    async def attach_later(request: Request) -> None:
        await trio.sleep(1)
        request.data["user"] = request.headers["X-User"]

    async def handler(conn: Connection[None]) -> None:
        request = conn.http_request
        await conn.send(f"{request.data['user']} from {request.peer}")

    async with serving(handler, process_request=attach_later) as site:
        for user in ("al", "bo"):
            async with site.dial(additional_headers={"X-User": user}) as conn:
                assert await conn.receive() == f"{user} from "


async def test_nothing_is_attached_by_default(autojump_clock: object) -> None:
    async with serving(Echo) as site, site.dial():
        [served] = site.server.connections
        assert served.http_request.data == {}


async def test_the_client_of_another_library() -> None:
    """The peer of the request is the address of the client."""

    async def handler(conn: Connection[None]) -> None:
        request = conn.http_request
        await conn.send(f"{request.data['user']} {request.path} {request.peer}")
        await conn.wait_closed()

    def run(port: int) -> tuple[object, int]:
        url = f"ws://127.0.0.1:{port}/a%20b?c"
        with library_connect(url, additional_headers={"X-User": "al"}) as client:
            return client.recv(), client.local_address[1]

    with trio.fail_after(300):
        async with serve(handler, "127.0.0.1", 0, process_request=attach_user) as server:
            assert server.port is not None
            text, port = await trio.to_thread.run_sync(run, server.port)
    assert text == f"al /a%20b 127.0.0.1:{port}"


async def test_a_client_has_no_request(autojump_clock: object) -> None:
    failures: list[str] = []

    class Curious(Socket[None]):
        def init_stream(self, info: ConnectionInfo) -> None:
            with pytest.raises(UsageError, match="only the connections of a server") as raised:
                _ = info.http_request
            failures.append(str(raised.value))

    async with serving(Echo) as site, site.dial(socket=Curious()) as conn:
        with pytest.raises(UsageError, match=r"conn\.handshake\.request_headers"):
            _ = conn.http_request
    assert len(failures) == 1


async def test_attached_values_are_not_part_of_what_a_request_is() -> None:
    """They may be secret or unhashable."""
    one, two = (Request(target="/", headers=Headers({"Host": "a.example"})) for _ in range(2))
    one.data["token"] = ["s3cr3t"]
    assert one == two
    assert hash(one) == hash(two)
    assert "s3cr3t" not in repr(one)
