"""``trioglock bench``: how fast an echo server is, seen from here."""

from .command import command

__all__ = ["command"]
