"""Subscriptions that survive reconnects: ``conn.subscribe()``."""
