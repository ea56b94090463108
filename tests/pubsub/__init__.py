"""Hubs, brokers and browsers."""
