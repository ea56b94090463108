"""Our client and our server against the Autobahn test suite: ``nox -s autobahn``."""
