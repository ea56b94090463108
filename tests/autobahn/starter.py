"""Starts Autobahn's suite, on 127.0.0.1 alone: by itself its server listens on every interface.

For Python 2.7; the arguments are those of ``wstest``.
"""

import autobahntestsuite.choosereactor  # type: ignore[import-not-found]  # noqa: F401 - before twisted's
from autobahntestsuite import wstest
from twisted.internet import reactor  # type: ignore[import-not-found]

listen = reactor.listenTCP
reactor.listenTCP = lambda port, factory, backlog=50, interface="": listen(
    port, factory, backlog, interface or "127.0.0.1"
)
wstest.run()
