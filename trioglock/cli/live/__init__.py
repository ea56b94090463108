"""The additions of ``trioglock serve`` to a hub: a page with live traffic, and publishing."""

from .access import AccessRules, check_origins, check_token, is_loopback, is_wildcard
from .endpoints import Endpoints
from .sockets import PUBLISH, check_channel

__all__ = [
    "PUBLISH",
    "AccessRules",
    "Endpoints",
    "check_channel",
    "check_origins",
    "check_token",
    "is_loopback",
    "is_wildcard",
]
