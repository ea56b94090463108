"""Limits of messages per second, in both directions: ``send_rate``, ``message_rate`` and ``byte_rate``."""
