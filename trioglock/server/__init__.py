"""``serve()``: hooks and handlers for connections that others open."""

from .connections import ConnectionRegistry
from .runner import ConnectionRunner, Handler, Target
from .serve import ServeOptions, serve, serve_forever
from .server import Server

__all__ = [
    "ConnectionRegistry",
    "ConnectionRunner",
    "Handler",
    "ServeOptions",
    "Server",
    "Target",
    "serve",
    "serve_forever",
]
