"""A game on the Gossip network: it chats, sends messages and lists players of other games.

By default it uses a mock network with another game in this process. With a URL it connects to a
real network, and needs the credentials of a registered game::

    python examples/gossip_mud.py
    python examples/gossip_mud.py --url wss://grapevine.haus/socket --id ... --secret ...
"""

from __future__ import annotations

import argparse

import trio

from trioglock.protocols import gossip
from trioglock.testing import MockGossipGame, MockGossipServer


class Mud(
    gossip.ChannelsCallbacks, gossip.PlayersCallbacks, gossip.TellsCallbacks, gossip.GamesCallbacks
):
    """The callbacks of the game. One object may serve several flags."""

    user_agent = "TinyMUD 1.0"
    channels = ("gossip",)

    def message_broadcast(self, message: gossip.ChannelMessage) -> None:
        print(f"[{message.channel}] {message.name}@{message.game}: {message.message}")

    def player_signed_in(self, game: str, name: str) -> None:
        print(f"{name} has entered {game}")

    def player_signed_out(self, game: str, name: str) -> None:
        print(f"{name} has left {game}")

    def tell_received(self, tell: gossip.Tell) -> None:
        print(f"{tell.from_name}@{tell.from_game} tells {tell.to_name}: {tell.message}")

    def game_updated(self, game: gossip.Game) -> None:
        print(f"{game.display_name} is online, {game.players_online_count} playing")


async def play(url: str, client_id: str, client_secret: str, seconds: float) -> None:
    mud = Mud()
    async with gossip.connect(
        url,
        client_id=client_id,
        client_secret=client_secret,
        channels=mud,
        players=mud,
        tells=mud,
        games=mud,
    ) as client:
        await client.sign_in("Bob")
        await client.broadcast("gossip", "Bob", "Hello everyone!")
        try:
            await client.tell("Bob", "ExVenture", "Eric", "Are you there?")
            print("delivered")
            await client.tell("Bob", "ExVenture", "Zed", "And you?")
        except gossip.RequestRefused as failed:
            print(f"a tell failed: {failed.reason}")
        await trio.sleep(seconds)
        for game, players in client.who().items():
            print(f"in {game}: {', '.join(players)}")


async def run_other_game(server: MockGossipServer) -> None:
    """Act as another game on the mock network."""
    await server.expect("channels/send")
    await server.broadcast("gossip", "ExVenture", "Eric", "Welcome!")
    await server.sign_in("ExVenture", "Zoe")
    await server.expect("tells/send")
    await server.tell("ExVenture", "Eric", "Bob", "I am!", "2018-11-15T13:30:00Z")


async def demo() -> None:
    async with MockGossipServer() as server, trio.open_nursery() as nursery:
        server.games["ExVenture"] = MockGossipGame(name="ExVenture", players=["Eric"])
        nursery.start_soon(run_other_game, server)
        await play(server.url, "id", "secret", seconds=0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description="a game on the Gossip network")
    parser.add_argument(
        "--url", help="the URL of a real network, such as wss://grapevine.haus/socket"
    )
    parser.add_argument("--id", default="", help="the client_id of the game")
    parser.add_argument("--secret", default="", help="the client_secret of the game")
    options = parser.parse_args()
    if options.url:
        trio.run(play, options.url, options.id, options.secret, 60)
    else:
        trio.run(demo)


if __name__ == "__main__":
    main()
