"""The connection against Autobahn's fuzzing server: ``nox -s autobahn``."""
