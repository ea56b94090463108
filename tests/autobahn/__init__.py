"""Runs the Autobahn test suite on the client and the server: ``nox -s autobahn``."""
