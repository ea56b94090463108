"""Dialects that are spoken over a connection: siblings that never import each other."""
