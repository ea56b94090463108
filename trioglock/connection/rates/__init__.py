"""Limits of messages per second, in both directions: ``send_rate`` and ``rate_limit``."""
