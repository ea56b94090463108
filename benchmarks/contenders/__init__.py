"""The libraries that are compared, one module each.

A process imports only the module of its own contender.
"""
