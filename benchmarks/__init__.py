"""Benchmarks of messages, connections and round trips, with trioglock and other libraries."""
