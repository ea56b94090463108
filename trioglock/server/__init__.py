"""The server: ``serve()``, and the targets that it runs on each connection."""

from .connections import ConnectionRegistry, ConnectionRunner
from .routes import ConnectionHandler, HandshakeTarget, PathTargets, Route, Routes, ServeTarget
from .serve import ServeOptions, serve, serve_forever
from .server import Server

__all__ = [
    "ConnectionHandler",
    "ConnectionRegistry",
    "ConnectionRunner",
    "HandshakeTarget",
    "PathTargets",
    "Route",
    "Routes",
    "ServeOptions",
    "ServeTarget",
    "Server",
    "serve",
    "serve_forever",
]
