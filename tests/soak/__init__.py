"""Long tests, run by ``nox -s soak`` and ``nox -s restarts``, not by pytest."""
