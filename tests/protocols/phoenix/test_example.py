"""The chat of the examples talks to a server that it is told of."""

from __future__ import annotations

import runpy

from tests.scripts import ROOT, assert_lines, run_python
from trioglock.testing import MockPhoenixServer

CHAT = ROOT / "examples" / "phoenix_chat.py"


async def test_the_chat_takes_the_url_of_a_server() -> None:
    """With --url it starts no server of its own."""
    lobby = runpy.run_path(str(CHAT))["Lobby"]
    async with MockPhoenixServer({"room:*": lobby}) as server:
        done = await run_python(CHAT, "--url", server.url)
        assert (done.code, done.stderr) == (0, "")
        assert_lines(done.stdout, ["al has joined: .*", "al hears bo: hello"])
        assert len(server.peers) == 2
