"""A long test, run by ``nox -s soak``, not by pytest."""
