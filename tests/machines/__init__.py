"""Random programs against the connection, and random bytes against the decoder."""
