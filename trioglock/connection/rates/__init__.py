"""Limits of messages and bytes per second: ``send_rate``, ``message_rate``, ``byte_rate``."""
