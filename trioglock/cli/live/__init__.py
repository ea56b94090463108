"""What ``trioglock serve`` adds to a hub: a page that shows live traffic, and a way to publish."""

from .desk import Desk
from .guard import Guard, check_token, is_loopback, is_wildcard
from .press import channel_problem
from .publisher import PUBLISH

__all__ = [
    "PUBLISH",
    "Desk",
    "Guard",
    "channel_problem",
    "check_token",
    "is_loopback",
    "is_wildcard",
]
