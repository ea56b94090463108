"""Clients that others wrote, each in a process of its own."""
