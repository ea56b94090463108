"""A long run, by ``nox -s soak``; pytest collects nothing here."""
