"""Starts the Autobahn suite on Python 2.7, with the arguments of ``wstest``.

Its server listens only on 127.0.0.1, not on all interfaces as by default.
"""

import autobahntestsuite.choosereactor  # type: ignore[import-not-found]  # noqa: F401 - before twisted's
from autobahntestsuite import wstest
from twisted.internet import reactor  # type: ignore[import-not-found]

listen = reactor.listenTCP
reactor.listenTCP = lambda port, factory, backlog=50, interface="": listen(
    port, factory, backlog, interface or "127.0.0.1"
)
wstest.run()
