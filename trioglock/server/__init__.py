"""``serve()``: hooks and handlers for connections that others open."""

from .program import Handler, Program, Target
from .roster import Roster
from .serve import ServeOptions, serve, serve_forever
from .server import Server

__all__ = [
    "Handler",
    "Program",
    "Roster",
    "ServeOptions",
    "Server",
    "Target",
    "serve",
    "serve_forever",
]
